"""codetape whatif."""

import asyncio
from collections import Counter
from typing import Any

import click

from codetape.cli.change_options import change, change_of
from codetape.cli.options import as_json, database, own_prices
from codetape.cli.output import first_line, say, say_json
from codetape.cli.session_filter import corpus_of, filters, none_found


@click.command("whatif")
@change
@filters("--of-model")
@database
@as_json
def command(**given: Any) -> int:
    """Say what a change of prompts, model or settings would do to recorded sessions. No call is made.

    Every session is run again from its log under the change, up to its first request that differs. Each recorded answer is
    reused, to be made anew (tokens estimated), or unknown: it rests on an answer that nobody has (tokens as recorded).
    """
    from codetape.evals.check import FATES
    from codetape.playback.whatif import simulate
    from codetape.runtime.clock import SystemClock

    wanted, corpus = change_of(given), corpus_of(given)
    rows: list[dict[str, Any]] = []
    firsts: Counter[str] = Counter()
    sums = {fate: Counter[str]() for fate in FATES}
    costs = {fate: Money(own_prices(), SystemClock().now()) for fate in ("made", "unknown")}

    async def look() -> None:
        async for member, stream in corpus.members():
            found = simulate(stream, wanted)
            record = {**found.record(), "name": member.name, "shown": found.first.shown if found.first else ""}
            for fate in FATES:
                sums[fate].update(calls=record[fate], input=record[f"{fate}_input"], output=record[f"{fate}_output"])
            for paid, money in costs.items():
                money.add(
                    str(wanted.config.get("model", member.model)), record[f"{paid}_input"], record[f"{paid}_output"]
                )
            firsts[found.first.purpose if found.first else ""] += 1
            if given["as_json"]:
                record["calls"] = found.records()
            elif found.first:
                _say(record)
            rows.append(record if given["as_json"] else {})

    asyncio.run(look())
    if not rows:
        raise none_found(given)
    spent = {fate: money.text for fate, money in costs.items()}
    if given["as_json"]:
        say_json({"sessions": rows, "first": {k: v for k, v in firsts.items() if k}, "calls": sums, "cost": spent})
        return 0
    say_sums(len(rows), firsts, sums, spent)
    return 0


class Money:
    """A sum of estimates; None as soon as one model has no price."""

    def __init__(self, prices: Any, at: str) -> None:
        self._prices, self._at = prices, at
        self._sum: Any = 0

    def add(self, model: str, tokens_in: int, tokens_out: int) -> None:
        """Add what so many tokens of a model cost."""
        from codetape.domain.usage import Usage

        if self._sum is None or not (tokens_in or tokens_out):
            return
        usage = Usage(input=tokens_in, output=tokens_out)
        provider = model.partition(":")[0]
        billing = (provider if provider == "openai" else "", "")
        rate = self._prices.rate((model,), billing, usage, self._at)
        self._sum = None if rate is None else self._sum + rate.cost(usage)

    @property
    def text(self) -> str:
        """The sum in dollars; empty where it is not known."""
        from codetape.runtime.pricing import plain

        return "" if self._sum is None else plain(self._sum) if self._sum else "0"


def say_sums(sessions: int, firsts: Counter[str], sums: dict[Any, Counter[str]], spent: dict[str, str]) -> None:
    """Print what the sessions come to."""
    same = firsts.pop("", 0)
    say(f"{sessions} sessions: {sessions - same} would come out otherwise, {same} not")
    if firsts:
        say(f"  first to differ  {', '.join(f'{purpose} {count}' for purpose, count in firsts.most_common())}")
    for fate, label in (
        ("reused", "reused"),
        ("made", "to be made, estimated"),
        ("unknown", "unknown, as recorded"),
        ("dropped", "no longer made"),
    ):
        found = sums[fate]
        if found["calls"]:
            money = f", about ${spent[fate]}" if spent.get(fate) not in (None, "", "0") else ""
            money = ", unpriced" if fate in spent and spent[fate] == "" else money
            say(f"  {label:<22} {found['calls']:,} calls, {found['input']:,} tokens in, {found['output']:,} out{money}")


def _say(record: dict[str, Any]) -> None:
    what = f"{record['first']} at event {record['first_seq']}"
    how = f"ends as {record['ends']}" if record["ends"] else f"{record['made']} to be made, {record['unknown']} unknown"
    say(f"{record['name']} {record['task']}: {what} ({record['first_what']}), {record['reused']} reused, {how}")
    for line in record["shown"].splitlines()[:6]:
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---")):
            say(f"    {first_line(line, 140)}")
