"""codetape list."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from codetape.cli.options import as_json, database, typed, with_checks
from codetape.cli.output import COLOURS, paged, say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.text.escape import first_line, safe

if TYPE_CHECKING:
    from codetape.ports import SessionRow

WIDE = 40  # columns that what was asked needs to stand in the same line
_LEAST_ID = 8
STYLES = {"succeeded": COLOURS["good"], "failed": COLOURS["bad"], "suspended": COLOURS["waiting"]}


class ListOptions(FilterOptions):
    """The options."""

    tree: bool
    with_checks: bool


@click.command("list")
@filters(limit="50", sources=False)
@with_checks
@click.option("--tree", is_flag=True, help="Draw forks below what they were forked from.")
@database
@as_json
@typed(ListOptions)
def command(options: ListOptions) -> int:
    """List the sessions of a database, the last added first: state, what a success rests on, and what was asked.

    Attempts of checks are left out and counted.
    """
    from dataclasses import replace
    from datetime import UTC, datetime

    from codetape.api.opening import opened

    session_filter = replace(options.where, forks=True, checks=options.with_checks).checked(datetime.now(UTC))
    store = opened(options.db)
    stored, problems = store.sessions()
    rows = list(session_filter.chosen(stored))
    left_out = session_filter.left_out_attempts(stored)
    prompts = store.asked([row["session"] for row in rows])
    for problem in problems:
        say(f"codetape: {problem} What can be read is shown.", err=True)
    if options.as_json:
        asked = [{**row, "asked": prompts.get(row["session"], "")} for row in rows]
        say_json({"sessions": asked, "attempts_left_out": left_out, "problems": problems})
        return 0
    if not rows and not problems:
        if stored:
            say("No session matches these filters.")
        else:
            say("No sessions yet: `codetape run` or `codetape demo` makes one.")
    if rows:
        _show(_drawn(rows) if options.tree else [(row["session"], row) for row in rows], prompts, rows)
    if left_out:
        say(f"{left_out} attempts of checks are left out (--with-checks).", err=not rows)
    return 0


def _show(lines: "list[tuple[str, SessionRow]]", prompts: dict[str, str], rows: "list[SessionRow]") -> None:
    """Print a table with what was asked as its last column; where there is no room for it, two lines a session."""
    import shutil

    from codetape.domain.money import brief

    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 200  # a file or a pipe has no edge
    short = shortened([row["session"] for row in rows])
    cells = [
        (
            safe(name.replace(row["session"], short[row["session"]], 1)),
            safe(f"{row['state']} {row['confidence'].replace('_', ' ')}".strip()),
            str(row["iteration"]),
            f"{row['input_tokens'] + row['output_tokens']:,}",
            brief(row["cost"], row["unpriced"]),
            safe(row["started_at"][5:16].replace("T", " ")),
        )
        for name, row in lines
    ]
    names = ("session", "state", "runs", "tokens", "cost", "begun")
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    left = width - sum(widths) - 2 * len(widths)
    with paged():
        if left >= WIDE:
            click.echo(click.style("  ".join([*_padded(names, widths), "what was asked"]), bold=True))
        for (_, row), texts in zip(lines, cells, strict=True):
            padded = _padded(texts, widths)
            padded[1] = click.style(padded[1], STYLES.get(row["state"], "cyan"))
            asked = first_line(_asked(row, prompts), max(20, (left if left >= WIDE else width) - 2))
            line = "  ".join(padded)
            click.echo(f"{line}  {asked}" if left >= WIDE else f"{line}\n  {click.style(asked, dim=True)}")


def _padded(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    right = (2, 3, 4)
    return [t.rjust(w) if n in right else t.ljust(w) for n, (t, w) in enumerate(zip(texts, widths, strict=True))]


def _asked(row: "SessionRow", prompts: dict[str, str]) -> str:
    """Return what was asked in a line, with the session's labels."""
    tags = " ".join(f"[{tag}]" for tag in row["tags"].split(",") if tag)
    return safe(f"{f'{tags} ' if tags else ''}{row['task']}: {first_line(prompts.get(row['session'], ''), 160)}")


def shortened(ids: list[str]) -> dict[str, str]:
    """Return each id cut to where it names no other one of them: 8 characters at least, a short one whole."""
    lengths = {}
    ordered = sorted(ids)
    for number, name in enumerate(ordered):
        beside = [ordered[n] for n in (number - 1, number + 1) if 0 <= n < len(ordered)]
        common = max((_common(name, other) for other in beside), default=0)
        lengths[name] = name if len(name) <= 2 * _LEAST_ID - 4 else name[: max(_LEAST_ID, common + 1)]
    return lengths


def _common(a: str, b: str) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _drawn(rows: "list[SessionRow]") -> "list[tuple[str, SessionRow]]":
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
