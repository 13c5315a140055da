"""Printing: escaped text, JSON, aligned columns."""

import io
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, cast

import click

from codetape.text.escape import json_text, safe


@contextmanager
def paged() -> Iterator[None]:
    """Show what is printed meanwhile in the user's pager, where it is longer than the terminal is high."""
    if not sys.stdout.isatty():
        yield
        return
    printed = io.StringIO()
    terminal, sys.stdout = sys.stdout, cast(TextIO, _Terminal(printed))
    try:
        yield
    finally:
        sys.stdout = terminal
        import shutil

        text = printed.getvalue()
        longer = text.count("\n") >= shutil.get_terminal_size().lines
        click.echo_via_pager(text, color=True) if longer else click.echo(text, nl=False)


class _Terminal:
    """A text that is taken for a terminal, so that colours are kept."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text, name)

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


COLOURS = {"good": "green", "bad": "red", "waiting": "yellow"}
"""What colours mean in a terminal; NO_COLOR keeps them out."""


def say(text: str = "", *, err: bool = False, tone: str = "") -> None:
    """Print text, with control characters escaped: it may come from a model or a tape. ``tone`` is a key of COLOURS."""
    click.echo(click.style(safe(text), COLOURS[tone]) if tone else safe(text), err=err)


def say_json(value: Any) -> None:
    """Print one JSON value."""
    click.echo(json_text(value))


def columns(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Return rows as aligned columns."""
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
