"""Printing: escaped text, JSON, aligned columns."""

from collections.abc import Collection, Sequence
from typing import Any

import click

from codetape.text.escape import json_text, safe


def say(text: str = "", *, err: bool = False) -> None:
    """Print text, with control characters escaped: it may come from a model or a tape."""
    click.echo(safe(text), err=err)


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
