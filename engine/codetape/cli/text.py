"""Text for a terminal: what came from outside is shown, never obeyed."""

import json
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

import click


def safe(text: str) -> str:
    """Return the text with control and direction-changing characters spelled out; tabs and line breaks stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _hidden(c) else f"\\x{ord(c):02x}" for c in text)


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")


def say(text: str = "", *, err: bool = False) -> None:
    """Print a text from outside, made safe."""
    click.echo(safe(text), err=err)


def say_json(value: Any) -> None:
    """Print one JSON value."""
    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """Return a value as JSON in which nothing reaches a terminal that it would obey."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isascii() and text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _hidden(c) else c for c in text)


def columns(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Return rows as aligned columns; at once, however many there are."""
    clean = [[safe(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in clean
    )
    return "\n".join(line.rstrip() for line in lines)


def first_line(text: str, width: int = 100) -> str:
    """Return a text's first line, cut to a width."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= width else line[: width - 1] + "…"
