"""Markdown tables in which no cell is markup."""

import re
from collections.abc import Iterable, Sequence

from codetape.text.escape import shown


def markdown_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table in which no cell is markup or breaks its row."""
    lines = [f"| {' | '.join(names)} |", f"|{'|'.join(' --- ' for _ in names)}|"]
    lines += [f"| {' | '.join(markdown(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def markdown(value: object) -> str:
    """Return a value as one line of Markdown text."""
    text = shown("" if value is None else value).replace("\n", " ")
    text = re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", text)
    return text.replace("@", "&#64;").replace(
        "://", "&#58;//"
    )  # an @ would mention a user, and an address become a link
