"""codetape list."""

import sys
from dataclasses import dataclass

import click

from codetape.cli.options import as_json, database, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.ports import SessionRow
from codetape.text.escape import safe


@dataclass(frozen=True, kw_only=True)
class ListOptions(FilterOptions):
    """The options."""

    tree: bool


@click.command("list")
@filters(limit="50", sources=False)
@click.option("--tree", is_flag=True, help="Draw forks below what they were forked from.")
@database
@as_json
@typed(ListOptions)
def command(options: ListOptions) -> int:
    """List the sessions of a database, newest first."""
    from dataclasses import replace
    from datetime import UTC, datetime

    from codetape.api.opening import opened

    session_filter = replace(options.where, forks=True).checked(datetime.now(UTC))
    stored, problems = opened(options.db).sessions()
    rows = list(session_filter.chosen(stored))
    for problem in problems:
        say(f"codetape: {problem} What can be read is shown.", err=True)
    if options.as_json:
        say_json({"sessions": rows, "problems": problems})
        return 0
    if not rows and not problems:
        if stored:
            say("No session matches these filters.")
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
    lines = _drawn(rows) if options.tree else [(row["session"], row) for row in rows]
    for name, row in lines:
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
    width = {} if sys.stdout.isatty() else {"width": 200}  # a file or a pipe has no edge to fold at
    Console(highlight=False, **width).print(table)  # type: ignore[arg-type]  # keyword arguments by case
    return 0


def _drawn(rows: list[SessionRow]) -> list[tuple[str, SessionRow]]:
    """Return the rows with each fork below its parent, and each session's name with the branches of the tree."""
    shown = {row["session"] for row in rows}
    below: dict[str, list[SessionRow]] = {}
    for row in reversed(rows):
        below.setdefault(row["parent"] if row["parent"] in shown else "", []).append(row)
    lines: list[tuple[str, SessionRow]] = []

    def draw(parent: str, margin: str) -> None:
        family = below.get(parent, [])
        for number, row in enumerate(family):
            last = number == len(family) - 1
            branch = ("└ " if last else "├ ") if parent else ""
            at = f" @{row['forked_at']}" if parent else ""
            lines.append((f"{margin}{branch}{row['session']}{at}", row))
            draw(row["session"], margin + (("  " if last else "│ ") if parent else ""))

    draw("", "")
    return lines
