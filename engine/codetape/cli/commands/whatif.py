"""codetape whatif."""

from collections import Counter
from typing import Any

import click

from codetape.cli.change_options import ChangeOptions, change, settings_of
from codetape.cli.options import as_json, database, jobs, own_prices, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.text.escape import first_line


class WhatIfOptions(ChangeOptions, FilterOptions):
    """The options."""

    jobs: int


@click.command("whatif")
@change
@filters()
@jobs
@database
@as_json
@typed(WhatIfOptions)
def command(options: WhatIfOptions) -> int:
    """Say what a change of prompts, model or settings would do to recorded sessions. No call is made.

    Every session is run again from its log under the change, up to its first request that differs. Each recorded reply
    is reused, to be made again (tokens estimated), or unknown: it rests on a reply that nobody has (tokens as
    recorded).
    """
    import asyncio

    from codetape.api.opening import corpus
    from codetape.api.studies import awhatif_members, change_of
    from codetape.evals.check import REUSE_KINDS
    from codetape.runtime.clock import SystemClock
    from codetape.runtime.estimate import CostEstimate

    change = change_of(options.prompts, options.model, settings_of(options.settings))
    rows: list[dict[str, Any]] = []
    firsts: Counter[str] = Counter()
    differences: dict[tuple[str, ...], list[str]] = {}
    sums = {reuse: Counter[str]() for reuse in REUSE_KINDS}
    costs = {reuse: CostEstimate(own_prices(), SystemClock().now()) for reuse in ("made", "unknown")}

    async def look() -> None:
        members = awhatif_members(
            *options.sources, change=change, store=options.db, where=options.where, jobs=options.jobs
        )
        async for member, simulation in members:
            record = {
                **simulation.record(),
                "name": member.name,
                "shown": simulation.first.shown if simulation.first else "",
            }
            for reuse in REUSE_KINDS:
                sums[reuse].update(
                    calls=record[reuse], input=record[f"{reuse}_input"], output=record[f"{reuse}_output"]
                )
            for paid, estimate in costs.items():
                model = str(change.config.get("model", member.model))
                estimate.add(model, record[f"{paid}_input"], record[f"{paid}_output"])
            firsts[simulation.first.purpose if simulation.first else ""] += 1
            if options.as_json:
                record["calls"] = simulation.records()
            elif simulation.first:
                _say(record)
                differences.setdefault(_changed_lines(record["shown"]), []).append(member.name)
            rows.append(record if options.as_json else {})

    asyncio.run(look())
    if not rows:
        raise corpus(options.sources, options.db, options.where).none_found()
    spent = {reuse: estimate.text for reuse, estimate in costs.items()}
    if options.as_json:
        say_json({"sessions": rows, "first": {k: v for k, v in firsts.items() if k}, "calls": sums, "cost": spent})
        return 0
    _say_differences(differences)
    say_sums(len(rows), firsts, sums, spent)
    return 0


def say_sums(sessions: int, firsts: Counter[str], sums: dict[Any, Counter[str]], spent: dict[str, str]) -> None:
    """Print the totals over the sessions."""
    same = firsts.pop("", 0)
    say(f"{sessions} sessions: {sessions - same} would come out differently, {same} not")
    if firsts:
        say(f"  first to differ  {', '.join(f'{purpose} {count}' for purpose, count in firsts.most_common())}")
    for reuse, label in (
        ("reused", "reused"),
        ("made", "to be made, estimated"),
        ("unknown", "unknown, as recorded"),
        ("dropped", "no longer made"),
    ):
        count = sums[reuse]
        if count["calls"]:
            money = f", about ${spent[reuse]}" if spent.get(reuse) not in (None, "", "0") else ""
            money = ", unpriced" if reuse in spent and spent[reuse] == "" else money
            say(f"  {label:<22} {count['calls']:,} calls, {count['input']:,} tokens in, {count['output']:,} out{money}")


def _say(record: dict[str, Any]) -> None:
    point = f"{record['first']} at event {record['first_seq']}"
    how = f"ends as {record['ends']}" if record["ends"] else f"{record['made']} to be made, {record['unknown']} unknown"
    say(f"{record['name']} {record['task']}: {point} ({record['first_what']}), {record['reused']} reused, {how}")


_LINES = 8  # of a difference that is shown


def _changed_lines(shown: str) -> tuple[str, ...]:
    lines = [line for line in shown.splitlines() if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))]
    return tuple(first_line(line, 140) for line in lines[: _LINES + 1])


def _say_differences(differences: dict[tuple[str, ...], list[str]]) -> None:
    """Print each first difference once, with the sessions that it is in."""
    for lines, names in differences.items():
        if not lines:
            continue
        whose = names[0] if len(names) == 1 else f"{len(names)} sessions, {names[0]} among them"
        say(f"\nthe first difference of {whose}:")
        for line in lines[:_LINES]:
            say(f"    {line}")
        if len(lines) > _LINES:
            say("    ...")
    if any(differences):
        say()
