"""codetape backtest."""

from dataclasses import asdict

import click

from codetape.cli.options import as_json, database, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import UsageError
from codetape.text.escape import first_line


class RulesOptions(FilterOptions):
    """The options of `backtest rules`."""

    fail_on_change: bool


class LimitsOptions(FilterOptions):
    """The options of `backtest limits`."""

    max_iterations: str | None
    max_tokens: str | None


@click.group("backtest")
def command() -> None:
    """Run recorded sessions again under the present rules, or under tighter limits; or play rules on a bench.

    No model is called.
    """


@command.command("rules")
@click.option("--fail-on-change", is_flag=True, help="Exit 100 where anything is decided differently.")
@filters()
@database
@as_json
@typed(RulesOptions)
def rules(options: RulesOptions) -> int:
    """Derive the engine's own decisions (verdicts, packages, routing) again with the present code; list every one that
    changed."""
    import asyncio

    from codetape.api.opening import corpus
    from codetape.api.studies import abacktest_rules

    result = asyncio.run(abacktest_rules(*options.sources, store=options.db, where=options.where))
    if not result.sessions:
        raise corpus(options.sources, options.db, options.where).none_found()
    if options.as_json:
        say_json({"sessions": result.sessions, "changed": [asdict(decision) for decision in result.changed]})
    else:
        for decision in result.changed:
            say(
                f"{decision.session}:{decision.seq} {decision.task}: {decision.kind}, layer {decision.layer}\n"
                f"    {first_line(decision.message, 300)}"
            )
        changed = len({decision.session for decision in result.changed})
        say(f"{result.sessions} sessions: {len(result.changed)} decisions changed, in {changed} of them")
    return 100 if result.changed and options.fail_on_change else 0


@command.command("limits")
@click.option("--max-iterations", metavar="N,N...", help="Limits on runs of the tests.")
@click.option("--max-tokens", metavar="N,N...", help="Budgets of tokens, as `run --max-tokens` keeps them.")
@filters()
@database
@as_json
@typed(LimitsOptions)
def limits(options: LimitsOptions) -> int:
    """Say what tighter limits would have solved and spent.

    Exact: a limit only ends a session earlier. Where a prompt mentions it, or a session ended at its own limit, it is
    refused.
    """
    import asyncio

    from codetape.api.opening import corpus
    from codetape.api.studies import abacktest_limits
    from codetape.evals import backtest

    iterations, tokens = _numbers(options.max_iterations), _numbers(options.max_tokens)
    if not (iterations or tokens):
        raise UsageError("No limit is named.", remedy="Give --max-iterations 2,3,5 or --max-tokens 20000,50000.")
    backtesting = abacktest_limits(
        *options.sources, store=options.db, where=options.where, max_iterations=iterations, max_tokens=tokens
    )
    outcomes = asyncio.run(backtesting)
    if not outcomes:
        raise corpus(options.sources, options.db, options.where).none_found()
    rows = backtest.summed(outcomes)
    if options.as_json:
        say_json({"limits": [asdict(row) for row in rows], "sessions": [asdict(outcome) for outcome in outcomes]})
        return 0
    for row in rows:
        simulated = row.sessions - row.refused
        saved = 1 - row.tokens / row.was_tokens if row.was_tokens else 0
        say(
            f"{row.limit:<22} {row.solved} of {simulated} solved (were {row.was_solved}), {row.calls:,} calls,"
            f" {row.tokens:,} tokens ({saved:.0%} less), {row.money}"
            + (f"; {row.refused} refused" if row.refused else "")
        )
    for outcome in outcomes:
        if outcome.refused:
            say(f"  refused     {outcome.session} {outcome.task}, {outcome.limit}: {outcome.refused}")
    return 0


@command.command("loop", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def loop(words: tuple[str, ...]) -> int:
    """Play the present rules against simulated programmers, on tasks whose truth is known: for who changes a rule.

    WORDS go to the bench (--help lists them). It is part of the source alone, and run from the tree that this engine was
    loaded from, never from the present folder.
    """
    import subprocess
    import sys
    from pathlib import Path

    import codetape

    tree = Path(codetape.__file__).parents[2]
    if not (tree / "tests" / "bench" / "loop" / "__main__.py").is_file():
        raise UsageError("The bench is not installed: it is part of the source.", remedy="Run it in a clone.")
    bench = [sys.executable, "-m", "tests.bench.loop", *words]
    return subprocess.run(bench, cwd=tree, check=False).returncode  # noqa: S603 - our own tree, and no shell


def _numbers(text: str | None) -> list[int]:
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if wrong := [word for word in words if not word.isdecimal() or not 0 < int(word) < 10**12]:
        raise UsageError(
            f"{wrong[0]!r} is no limit.", remedy="Give whole numbers with commas between them, such as 2,3,5."
        )
    return [int(word) for word in words]
