"""codetape diff."""

from dataclasses import asdict
from typing import Any

import click

from codetape.cli.options import as_json, database, write_text
from codetape.cli.output import say, say_json
from codetape.text import html_page


@click.command("diff")
@click.argument("a")
@click.argument("b")
@click.option("--html", "file", metavar="F", help="Write a page that needs nothing else.")
@database
@as_json
def command(a: str, b: str, file: str | None, db: str, as_json: bool) -> int:
    """Compare two sessions or tape files: where they diverge and why, prompts, code, tests, packages, verdicts,
    tokens."""
    from codetape import api

    found = asdict(api.diff(a, b, store=db))
    if file:
        write_text(file, _page(found))
    if as_json:
        say_json(found)
    elif file:
        say(f"{file}: {found['a']} and {found['b']} compared")
    else:
        for heading, body in _sections(found):
            say(f"{heading}\n{body}\n" if body else heading)
    return 0


def _sections(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what there is to say, as headings and texts, for a terminal and for a page."""
    parting = found["parting"]
    if parting is None:
        return [(f"{found['a']} and {found['b']} are the same, event by event.", "")]
    at = f"event {parting['seq_a']} of {found['a']}, {parting['seq_b']} of {found['b']}"
    sections = [(f"They diverge at {at}: {parting['what']}.", f"  {parting['why']}")]
    for heading, rows in (
        ("configuration", found["config"]),
        ("verdict", found["verdicts"]),
        ("runs of the tests", found["runs"]),
    ):
        if rows:
            sections.append(
                (heading, "\n".join(f"  {name}: {old or 'none'} -> {new or 'none'}" for name, old, new in rows))
            )
    if found["tokens"]:
        sections.append(("tokens", "\n".join(f"  {name}: {old:,} -> {new:,}" for name, old, new in found["tokens"])))
    if found["packages"]:
        sections.append(("packages", "\n".join(f"  {name}: {where}" for name, where in found["packages"])))
    for what in ("prompts", "answers"):
        sections += [
            (f"{what[:-1]}: {change['where']} ({_where(change)})", change["diff"] or "  only one of them has it")
            for change in found[what]
        ]
    for what in ("code", "tests"):
        if found[what]:
            sections.append((f"{what}, at the end", found[what]))
    return sections


def _where(change: dict[str, Any]) -> str:
    sides = (("first", change["seq_a"]), ("second", change["seq_b"]))
    return ", ".join(f"{side} {seq}" for side, seq in sides if seq is not None)


def _page(found: dict[str, Any]) -> str:
    parts = [f"<h1>{html_page.html(found['a'])} and {html_page.html(found['b'])}</h1>"]
    for heading, body in _sections(found):
        lines = (f'<span class="{_class(line)}">{html_page.html(line)}</span>' for line in body.splitlines())
        parts.append(f"<h2>{html_page.html(heading)}</h2>" + (f"<pre>{chr(10).join(lines)}</pre>" if body else ""))
    return html_page.page(f"codetape diff: {found['a']} and {found['b']}", "\n".join(parts))


def _class(line: str) -> str:
    return {"+": "good", "-": "bad"}.get(line[:1], "")
