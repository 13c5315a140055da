"""codetape spend."""

import sys
from typing import Any

import click

from codetape.cli.options import as_json, database, own_prices, typed, with_checks, write_text
from codetape.cli.output import columns, say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import StoreError, UsageError

_BAR = 24


class SpendOptions(FilterOptions):
    """The options."""

    by: str
    as_of: str
    file: str | None
    with_checks: bool
    price_as: str | None


@click.command("spend")
@click.option(
    "--by",
    default="purpose",
    show_default=True,
    metavar="KEY,KEY...",
    help=(
        "What to tell calls apart by: model, provider, purpose, state, iteration, session, task, tag, day, prompts, "
        "disposition, lineage, call."
    ),
)
@click.option(
    "--prices-as-of",
    "as_of",
    default="",
    metavar="DATE",
    help="Price every call again, with the list's prices of a date.",
)
@click.option(
    "--price-as",
    metavar="MODEL",
    help="Price calls as if this model had answered, replayed ones too: what they would cost.",
)
@click.option("-o", "--csv", "file", metavar="F", help="Write the rows as CSV; - for standard output.")
@filters()
@with_checks
@database
@as_json
@typed(SpendOptions)
def command(options: SpendOptions) -> int:
    """Say what was spent: tokens in disjoint buckets, money, calls, and what of it was repaired, lost, or failed.

    Every session counts, forks among them, each with its own calls alone; with --tag the runs of that label, and not
    the checks that came later. Replayed calls cost nothing and are shown apart.
    """
    from dataclasses import replace
    from datetime import UTC, datetime

    from codetape.api.spending import spend
    from codetape.runtime.pricing import priced_as

    if options.as_json and options.file == "-":
        raise UsageError("--json and --csv - both print.", remedy="Give one of them, or --csv a file.")
    prices = priced_as(own_prices(), options.price_as) if options.price_as else own_prices()
    by = [word.strip() for word in options.by.split(",") if word.strip()]
    spent = spend(
        *options.sources,
        by=by,
        store=options.db,
        where=replace(options.where, checks=options.with_checks or not options.of_tag),
        prices=prices,
        as_of=_date(options.as_of) or (datetime.now(UTC).isoformat() if options.price_as else ""),
        replayed_too=bool(options.price_as),
    )
    if options.file:
        _write(options.file, spent)
        if options.file == "-":
            return 0
    if options.as_json:
        inherited = _inherited(options)
        say_json(
            {
                "by": by,
                "rows": spent.records(),
                "total": spent.total.record(()),
                "inherited": inherited,
                "prices_as_of": spent.prices_as_of,
            }
        )
        return 0
    _say(spent, by)
    if inherited := _inherited(options):
        say(f"inherited, and paid for by its parent: {inherited['calls']:,} calls, {inherited['tokens']:,} tokens, $0")
    return 0


def _inherited(options: SpendOptions) -> dict[str, Any] | None:
    """Return what a fork inherited, paid for by its parent; None unless a single fork is selected."""
    from codetape.api.spending import inherited
    from codetape.playback.tape_names import is_tape_or_folder

    if len(options.sources) != 1 or is_tape_or_folder(options.sources[0]):
        return None
    try:
        return inherited(options.sources[0], store=options.db)
    except StoreError:  # its content was forgotten, so no state can be derived; its own calls are counted all the same
        return None


def _date(text: str) -> str:
    from datetime import UTC, datetime

    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--prices-as-of {text!r} is no date.", remedy="Give one such as 2026-11-01.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _say(spent: Any, by: list[str]) -> None:
    from codetape.domain.money import dollars

    rows: list[tuple[str, ...]] = []
    total = spent.total
    paid = bool(total.cost)
    for row in (*spent.rows, total):
        part, whole = (row.cost, total.cost) if paid else (row.tokens, total.tokens)
        share = part / whole if whole else 0.0
        unpriced = f" + {row.unpriced} unpriced" if row.unpriced else ""
        cost = f"${dollars(row.cost)}{unpriced}" if row.cost or not row.unpriced else "unpriced"
        cost = "replayed" if row.replayed and not row.calls else cost
        cost = "no answer" if not (row.cost or row.unpriced or row.tokens) and row.lost else cost
        labels = (*row.key,) if row.key or not by else ("total", *("" for _ in by[1:]))
        bar = "" if row is total else "█" * round(_BAR * share)
        figures = (
            f"{row.calls:,}",
            f"{row.input:,}",
            f"{row.cache_read + row.cache_write:,}",
            f"{row.output:,}",
            f"{row.reasoning:,}",
            f"{row.tokens:,}",
        )
        rows.append((*labels, *figures, cost, f"{share:.0%}", bar))
    names = (*by, "calls", "input", "cached", "output", "reasoning", "tokens", "cost", "share", "")
    say(columns([names, *rows], right=range(len(by), len(by) + 8)))
    parts = [
        f"{total.retries:,} retries in transport" if total.retries else "",
        f"{total.repairs:,} repairs" if total.repairs else "",
        f"{total.failures:,} calls that gave nothing" if total.failures else "",
        f"{total.lost:,} calls with tries that were lost and may have been billed, up to {total.possibly_billed:,} tokens"
        if total.lost
        else "",
        f"{total.estimated:,} calls with estimated tokens" if total.estimated else "",
    ]
    if any(parts):
        say("; ".join(filter(None, parts)))
    if total.replayed:
        asked = "" if total.cost or total.calls else "; --price-as MODEL says what they would cost"
        say(f"replayed, at $0: {total.replayed:,} calls, {total.replayed_tokens:,} tokens{asked}")
    if spent.prices_as_of:
        say(f"priced again as of {spent.prices_as_of[:10]}")


def _write(file: str, spent: Any) -> None:
    from codetape.text.csv_table import csv_text

    text = csv_text(spent.records() or [spent.total.record(())])
    if file == "-":
        sys.stdout.write(text)
        return
    write_text(file, text)
