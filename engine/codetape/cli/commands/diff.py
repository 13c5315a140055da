"""codetape diff."""

from dataclasses import asdict
from typing import Any

import click

from codetape.cli.options import as_json, database, write_text
from codetape.cli.output import paged, say, say_json


@click.command("diff")
@click.argument("a")
@click.argument("b")
@click.option("-o", "--html", "file", metavar="F.html", help="Write a page that needs nothing else.")
@click.option("--stat", is_flag=True, help="A line for each thing that differs, and how much of it.")
@database
@as_json
def command(a: str, b: str, file: str | None, stat: bool, db: str, as_json: bool) -> int:
    """Compare two sessions or tape files: where they diverge and why, prompts, code, tests, packages, verdicts,
    tokens."""
    from codetape import api

    comparison = asdict(found := api.diff(a, b, store=db))
    if file:
        from codetape.inspector.report_files import diff_page

        write_text(file, diff_page(found, api.open_tape(a, store=db).stream, api.open_tape(b, store=db).stream))
    if as_json:
        say_json(comparison)
    elif file:
        say(f"{file}: {comparison['a']} and {comparison['b']} compared")
    else:
        with paged():
            for heading, body in _sections(comparison):
                say(_stat(heading, body) if stat else f"{heading}\n{body}\n" if body else heading)
    return 0


def _sections(comparison: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the comparison as headings and texts, for a terminal and for a page."""
    parting = comparison["parting"]
    if parting is None:
        return [(f"{comparison['a']} and {comparison['b']} are the same, event by event.", "")]
    at = f"event {parting['seq_a']} of {comparison['a']}, {parting['seq_b']} of {comparison['b']}"
    sections = [(f"They diverge at {at}: {parting['what']}.", f"  {parting['why']}")]
    for heading, rows in (
        ("configuration", comparison["config"]),
        ("verdict", comparison["verdicts"]),
        ("runs of the tests", comparison["runs"]),
    ):
        if rows:
            sections.append(
                (heading, "\n".join(f"  {name}: {old or 'none'} -> {new or 'none'}" for name, old, new in rows))
            )
    if comparison["tokens"]:
        sections.append(
            ("tokens", "\n".join(f"  {name}: {old:,} -> {new:,}" for name, old, new in comparison["tokens"]))
        )
    if comparison["packages"]:
        sections.append(("packages", "\n".join(f"  {name}: {where}" for name, where in comparison["packages"])))
    for kind in ("prompts", "answers"):
        sections += [
            (f"{kind[:-1]}: {change['where']} ({_where(change)})", change["diff"] or "  only one of them has it")
            for change in comparison[kind]
        ]
    for kind in ("code", "tests"):
        if comparison[kind]:
            sections.append((f"{kind}, at the end", comparison[kind]))
    return sections


def _stat(heading: str, body: str) -> str:
    """Return a section in a line: its heading, and how many lines of it were added and removed, or its rows."""
    lines = body.splitlines()
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    counts = f"+{added} -{removed}" if added or removed else "; ".join(line.strip() for line in lines[:4])
    return f"{heading}{f'  {counts}' if counts else ''}"


def _where(change: dict[str, Any]) -> str:
    sides = (("first", change["seq_a"]), ("second", change["seq_b"]))
    return ", ".join(f"{side} {seq}" for side, seq in sides if seq is not None)
