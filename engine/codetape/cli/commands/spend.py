"""codetape spend."""

import sys
from pathlib import Path
from typing import Any

import click

from codetape.cli.call_selection import calls_of
from codetape.cli.options import as_json, database, own_prices, write_text
from codetape.cli.output import columns, say, say_json
from codetape.cli.session_filter import filters
from codetape.errors import StoreError, UsageError
from codetape.playback.tape_file import is_tape

_BAR = 24


@click.command("spend")
@click.option("--by", default="purpose", show_default=True, metavar="KEY,KEY...", help="What to tell calls apart by: model, provider, purpose, state, iteration, session, task, tag, day, prompts, fate, lineage.")  # fmt: skip
@click.option(
    "--prices-as-of",
    "as_of",
    default="",
    metavar="DATE",
    help="Price every call anew, with the list's prices of a date.",
)
@click.option("--csv", "file", metavar="F", help="Write the rows as CSV; - for standard output.")
@filters("--of-model")
@database
@as_json
def command(**given: Any) -> int:
    """Say what was spent: tokens in disjoint buckets, money, calls, and what of it was repaired, lost, or failed.

    Every session counts, forks among them, each with its own calls alone. Replayed calls cost nothing and are shown apart.
    """
    from codetape.reporting.spend import spend

    given["forks"] = True
    if given["as_json"] and given["file"] == "-":
        raise UsageError("--json and --csv - both print.", remedy="Give one of them, or --csv a file.")
    by = [word.strip() for word in given["by"].split(",") if word.strip()]
    found = spend(calls_of(given), by, prices=own_prices(), as_of=_date(given["as_of"]))
    if given["file"]:
        _write(given["file"], found)
        if given["file"] == "-":
            return 0
    if given["as_json"]:
        inherited = _inherited(given)
        say_json({"by": by, "rows": found.records(), "total": found.total.record(()), "inherited": inherited, "prices_as_of": found.prices_as_of})  # fmt: skip
        return 0
    _say(found, by)
    if inherited := _inherited(given):
        say(f"inherited, and paid for by its parent: {inherited['calls']:,} calls, {inherited['tokens']:,} tokens, $0")
    return 0


def _inherited(given: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a single fork inherited: paid for by its parent."""
    if len(given["sources"]) != 1 or is_tape(given["sources"][0]) or Path(given["sources"][0]).is_dir():
        return None
    from codetape.api import open_tape

    try:
        run = open_tape(given["sources"][0], store=given["db"]).run
    except StoreError:  # its content was forgotten; its figures were counted
        return None
    if not run.parent:
        return None
    tokens = run.inherited.total_input + run.inherited.total_output
    return {"parent": run.parent, "at": run.forked_at, "calls": run.inherited_calls, "tokens": tokens}


def _date(text: str) -> str:
    from datetime import UTC, datetime

    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--prices-as-of {text!r} is no date.", remedy="Give one such as 2026-11-01.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _say(found: Any, by: list[str]) -> None:
    from codetape.domain.money import dollars

    rows: list[tuple[str, ...]] = []
    total = found.total
    paid = bool(total.cost)
    for row in (*found.rows, total):
        part, whole = (row.cost, total.cost) if paid else (row.tokens, total.tokens)
        share = part / whole if whole else 0.0
        unpriced = f" + {row.unpriced} unpriced" if row.unpriced else ""
        cost = f"${dollars(row.cost)}{unpriced}" if row.cost or not row.unpriced else "unpriced"
        cost = "no answer" if not (row.cost or row.unpriced or row.tokens) and row.lost else cost
        words = (*row.key,) if row.key or not by else ("total", *("" for _ in by[1:]))
        bar = "" if row is total else "█" * round(_BAR * share)
        figures = (f"{row.calls:,}", f"{row.input:,}", f"{row.cache_read + row.cache_write:,}", f"{row.output:,}", f"{row.reasoning:,}", f"{row.tokens:,}")  # fmt: skip
        rows.append((*words, *figures, cost, f"{share:.0%}", bar))
    names = (*by, "calls", "input", "cached", "output", "reasoning", "tokens", "cost", "share", "")
    say(columns([names, *rows], right=range(len(by), len(by) + 8)))
    parts = [
        f"{total.retries:,} retries in transport" if total.retries else "",
        f"{total.repairs:,} repairs" if total.repairs else "",
        f"{total.failures:,} calls that gave nothing" if total.failures else "",
        f"{total.lost:,} lost calls that may have been billed, up to {total.possibly_billed:,} tokens"
        if total.lost
        else "",
        f"{total.estimated:,} calls with estimated tokens" if total.estimated else "",
    ]
    if any(parts):
        say("; ".join(filter(None, parts)))
    if total.replayed:
        say(f"replayed, at $0: {total.replayed:,} calls, {total.replayed_tokens:,} tokens")
    if found.prices_as_of:
        say(f"priced anew as of {found.prices_as_of[:10]}")


def _write(file: str, found: Any) -> None:
    from codetape.text.csv_table import csv_text

    text = csv_text(found.records() or [found.total.record(())])
    if file == "-":
        sys.stdout.write(text)
        return
    write_text(file, text)
