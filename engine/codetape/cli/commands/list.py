"""codetape list."""

import sys
from typing import Any

import click

from codetape.cli.options import as_json, database, open_store
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import filter_of, filters
from codetape.text.escape import safe


@click.command("list")
@filters(limit="50", sources=False)
@click.option("--tree", is_flag=True, help="Draw forks below what they were forked from.")
@database
@as_json
def command(tree: bool, db: str, as_json: bool, **given: Any) -> int:
    """List the sessions of a database, newest first."""
    wanted = filter_of(given, forks=True)
    rows, problems = open_store(db).sessions()
    rows = list(wanted.chosen(rows))
    for problem in problems:
        say(f"codetape: {problem} What can be read is shown.", err=True)
    if as_json:
        say_json({"sessions": rows, "problems": problems})
        return 0
    if not rows and not problems:
        if any(given.values()) and open_store(db).sessions()[0]:
            say("No session is meant by these filters.")
            return 0
        say("No sessions yet: `codetape run` or `codetape demo` makes one.")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (
        ("session", "left"),
        ("state", "left"),
        ("runs", "right"),
        ("tokens", "right"),
        ("started", "left"),
        ("task", "left"),
        ("model", "left"),
    ):
        table.add_column(name, justify=side, no_wrap=name != "task")  # type: ignore[arg-type]  # the two words are its values
    drawn = _drawn(rows) if tree else [(row["session"], row) for row in rows]
    for name, row in drawn:
        tokens = row["input_tokens"] + row["output_tokens"]
        cells = (
            name,
            row["state"],
            row["iteration"],
            f"{tokens:,}",
            row["started_at"][:19],
            row["task"],
            row["model"],
        )
        table.add_row(*(Text(safe(str(cell))) for cell in cells))
    wide = {} if sys.stdout.isatty() else {"width": 200}  # a file or a pipe has no edge to fold at
    Console(highlight=False, **wide).print(table)  # type: ignore[arg-type]  # keyword arguments by case
    return 0


def _drawn(rows: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows with each fork below its parent, and the sessions' names with branches before them."""
    shown = {row["session"] for row in rows}
    below: dict[str, list[dict[str, Any]]] = {}
    for row in reversed(rows):
        below.setdefault(row["parent"] if row["parent"] in shown else "", []).append(row)
    found: list[tuple[str, dict[str, Any]]] = []

    def draw(parent: str, margin: str) -> None:
        family = below.get(parent, [])
        for number, row in enumerate(family):
            last = number == len(family) - 1
            branch = ("└ " if last else "├ ") if parent else ""
            at = f" @{row['forked_at']}" if parent else ""
            found.append((f"{margin}{branch}{row['session']}{at}", row))
            draw(row["session"], margin + (("  " if last else "│ ") if parent else ""))

    draw("", "")
    return found
