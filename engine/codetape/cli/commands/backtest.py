"""codetape backtest."""

import asyncio
from dataclasses import asdict
from typing import Any

import click

from codetape.cli.options import as_json, database
from codetape.cli.output import first_line, say, say_json
from codetape.cli.session_filter import corpus_of, filters, none_found
from codetape.errors import UsageError


@click.group("backtest")
def command() -> None:
    """Run recorded sessions again under the present rules, or under tighter limits. No call is made, and nothing is executed."""


@command.command("rules")
@click.option("--fail-on-change", is_flag=True, help="Exit 100 where anything is decided otherwise.")
@filters("--of-model")
@database
@as_json
def rules(**given: Any) -> int:
    """Derive the engine's own decisions (verdicts, packages, routing) anew with the present code; list every one that changed."""
    from codetape.evals import backtest

    corpus, found, count = corpus_of(given), [], 0

    async def look() -> None:
        nonlocal count
        async for member, stream in corpus.members():
            count += 1
            found.extend(backtest.rules(member, stream))

    asyncio.run(look())
    if not count:
        raise none_found(given)
    if given["as_json"]:
        say_json({"sessions": count, "changed": [asdict(one) for one in found]})
    else:
        for one in found:
            say(
                f"{one.session}:{one.seq} {one.task}: {one.kind}, layer {one.layer}\n    {first_line(one.message, 300)}"
            )
        changed = len({one.session for one in found})
        say(f"{count} sessions: {len(found)} decisions changed, in {changed} of them")
    return 100 if found and given["fail_on_change"] else 0


@command.command("limits")
@click.option("--max-iterations", metavar="N,N...", help="Limits on runs of the tests.")
@click.option("--max-tokens", metavar="N,N...", help="Budgets of tokens, as `run --max-tokens` keeps them.")
@filters("--of-model")
@database
@as_json
def limits(**given: Any) -> int:
    """Say what tighter limits would have solved and spent.

    Exact: a limit only ends a session earlier. Where a prompt mentions it, or a session ended at its own limit, it is refused.
    """
    from codetape.evals import backtest

    wanted: list[tuple[Any, int]] = [("max_iterations", n) for n in _numbers(given["max_iterations"])]
    wanted += [("max_tokens", n) for n in _numbers(given["max_tokens"])]
    if not wanted:
        raise UsageError("No limit is named.", remedy="Give --max-iterations 2,3,5 or --max-tokens 20000,50000.")
    corpus = corpus_of(given)
    found: list[backtest.LimitOutcome] = []

    async def look() -> None:
        async for _, stream in corpus.members():
            found.extend(backtest.under(stream, name, limit) for name, limit in wanted)

    asyncio.run(look())
    if not found:
        raise none_found(given)
    rows = backtest.summed(found)
    if given["as_json"]:
        say_json({"limits": [asdict(row) for row in rows], "sessions": [asdict(one) for one in found]})
        return 0
    for row in rows:
        told = row.sessions - row.refused
        saved = 1 - row.tokens / row.was_tokens if row.was_tokens else 0
        say(
            f"{row.limit:<22} {row.solved} of {told} solved (were {row.was_solved}), {row.calls:,} calls,"
            f" {row.tokens:,} tokens ({saved:.0%} less), ${row.cost}"
            + (f"; {row.refused} refused" if row.refused else "")
        )
    for one in found:
        if one.refused:
            say(f"  refused     {one.session} {one.task}, {one.limit}: {one.refused}")
    return 0


def _numbers(text: str | None) -> list[int]:
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if wrong := [word for word in words if not word.isdecimal() or not 0 < int(word) < 10**12]:
        raise UsageError(
            f"{wrong[0]!r} is no limit.", remedy="Give whole numbers with commas between them, such as 2,3,5."
        )
    return [int(word) for word in words]
