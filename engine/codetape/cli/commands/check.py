"""codetape check."""

import asyncio
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from codetape.cli.change_options import change, change_of
from codetape.cli.options import (
    as_json,
    database,
    own_patterns,
    own_prices,
    redacting,
    server,
    server_settings,
    several,
    write_text,
)
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import corpus_of, filters, none_found
from codetape.errors import UsageError
from codetape.text.escape import safe


@click.command("check")
@change
@filters("--of-model")
@several
@click.option("--control", is_flag=True, help="Run the old prompts afresh from the same states as well.")
@click.option("--baseline", metavar="F.json", help="A former report, whose candidate is the control.")
@click.option(
    "--margin",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0.01, 0.9),
    help="The drop in solve rate that matters.",
)
@click.option("--max-cost", metavar="USD", help="The budget of the whole check.")
@click.option("--max-tokens", type=click.IntRange(1), help="The budget of the whole check, in tokens.")
@click.option("--yes", is_flag=True, help="Do not ask before calls are made.")
@click.option("--dry-run", is_flag=True, help="Stop after the estimate.")
@click.option(
    "--round",
    "number",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Another number draws fresh attempts at the same change.",
)
@click.option("--accept-self-graded", is_flag=True, help="Let tasks without an oracle pass by their own tests.")
@click.option("-o", "files", multiple=True, metavar="F", help="Write a report: .json, .md, .html, .junit.xml or .csv.")
@click.option("--base-url", metavar="URL", help="Where the model's server is.")
@click.option("--control-base-url", metavar="URL", help="Where the recorded model's server is, if elsewhere.")
@click.option("--sandbox", default="auto", show_default=True, metavar="NAME", help="Where code runs.")
@redacting
@server
@database
@as_json
def command(**given: Any) -> int:
    """Test a change of prompts, model or settings on recorded sessions, and say whether it solves less.

    Each session is gone on with, live, from its first request that differs; what stays is reused. The outcomes are compared
    task by task with a control. Exit codes: 0 no regression, 100 a regression, 103 not settled, 101 budget, 1 errors.
    """
    from codetape.domain.money import pico
    from codetape.evals import check
    from codetape.evals.judge import read_baseline, refuse_own, report
    from codetape.evals.report_formats import form_of
    from codetape.runtime import plugins

    for file in given["files"]:
        form_of(file)
        if not Path(file).absolute().parent.is_dir():
            raise UsageError(f"{file} cannot be written: there is no such folder.")
    if given["control"] and given["baseline"]:
        raise UsageError("--control and --baseline are two controls.", remedy="Give one.")
    baseline = read_baseline(given["baseline"]) if given["baseline"] else None
    wanted, corpus = change_of(given), corpus_of(given)
    sandbox = plugins.sandbox(given["sandbox"])
    wanted = replace(wanted, facts=sandbox.facts())
    servers = tuple(given[name] or os.environ.get("OPENAI_BASE_URL") or "" for name in ("base_url", "control_base_url"))
    plan = asyncio.run(check.planned(corpus, wanted, number=given["number"], where=servers))
    if not (plan.changed or plan.same):
        if plan.skipped:
            raise UsageError(
                f"No session can be checked: {plan.skipped[0]}"
                + (f", and {len(plan.skipped) - 1} more." if plan.skipped[1:] else ".")
            )
        raise none_found(given)
    refuse_own(baseline, plan)
    _estimate(plan, given)
    if given["dry_run"]:
        if given["as_json"]:
            say_json(_estimated(plan, given))
        return 0
    cost = pico(given["max_cost"]) if given["max_cost"] else None
    if cost is not None and _money(plan, 1, control=given["control"]).startswith("unpriced"):
        raise UsageError(
            "--max-cost cannot be kept: a model has no price.",
            remedy="Name it in [tool.codetape.prices], or give --max-tokens.",
        )
    if plan.changed:
        _agree(given)
        _imported(plan, given["db"])
    live = _live(plan, given, sandbox, cost)
    try:
        checked = _run(plan, live, quiet=given["as_json"]) if plan.changed else check.Checked(plan, ())
    except KeyboardInterrupt:
        say("Interrupted. The same command goes on where it stopped.", err=True)
        return 130
    found = report(checked, control=given["control"], baseline=baseline, margin=given["margin"])
    for file in given["files"]:
        write_text(file, form_of(file)(found))
    if given["as_json"]:
        say_json(found.as_dict())
    else:
        _say(found, given["files"])
    return found.exit_code(accept_self_graded=given["accept_self_graded"])


def _agree(given: dict[str, Any]) -> None:
    """Have a person agree to the estimate; where none sits there, a budget or --yes must say so."""
    if given["yes"] or given["max_cost"] or given["max_tokens"]:
        return
    if given["as_json"] or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "Calls would be made, and nobody is here to agree.",
            remedy="Give --yes, --max-tokens or --max-cost; or --dry-run.",
        )
    click.confirm("Make these calls?", abort=True, err=True)


def _imported(plan: Any, db: str) -> None:
    """Put sessions of tape files into the database, for their forks refer to them."""
    from codetape.playback import tape_file
    from codetape.runtime import plugins

    files = [one.file for one in plan.changed if one.file]
    if files:
        store: Any = plugins.store(db)
        for file in files:
            store.put(tape_file.load(file).stream)


def _live(plan: Any, given: dict[str, Any], sandbox: Any, cost: int | None) -> Any:
    from codetape.evals.check import CheckSetup
    from codetape.runtime.agent import AutoCoderAgent

    model = given["model"] or (plan.changed[0].model if plan.changed else "tape:none")
    common = {
        **server_settings(given),
        "sandbox": sandbox,
        "store": given["db"],
        "prices": own_prices(),
        "redact": own_patterns(given),
    }
    agent = AutoCoderAgent(model=model, base_url=given["base_url"], **common)
    other = AutoCoderAgent(model=model, base_url=given["control_base_url"] or given["base_url"], **common)
    return CheckSetup(
        candidate=agent,
        control=other if given["control"] else None,
        attempts=given["attempts"],
        concurrent=given["concurrent"],
        max_tokens=given["max_tokens"],
        max_cost=cost,
    )


def _run(plan: Any, live: Any, *, quiet: bool) -> Any:
    from dataclasses import replace

    from codetape.cli.run_batch import Shown
    from codetape.evals.check import run

    shown = Shown(quiet=quiet)
    with shown:
        return asyncio.run(run(plan, replace(live, on_progress=lambda p, o: shown.progress(p, o.made if o else None))))


def _estimated(plan: Any, given: dict[str, Any]) -> dict[str, Any]:
    arms = 2 if given["control"] else 1
    return {
        "id": plan.id,
        "sessions_changed": len(plan.changed),
        "sessions_same": len(plan.same),
        "skipped": list(plan.skipped),
        "attempts": len(plan.changed) * given["attempts"] * arms,
        "first": dict(Counter(one.first for one in plan.changed)),
        "once": plan.sums(),
        "worst": {
            "calls": sum(one.worst_calls for one in plan.changed) * given["attempts"] * arms,
            "tokens": _worst_tokens(plan, given, arms),
        },
        "control_once": {
            "calls": sum(one.control_calls for one in plan.changed) if given["control"] else 0,
            "input": sum(one.control_input for one in plan.changed) if given["control"] else 0,
            "output": sum(one.control_output for one in plan.changed) if given["control"] else 0,
        },
    }


def _worst_tokens(plan: Any, given: dict[str, Any], arms: int) -> int:
    most: int = sum(one.worst_tokens for one in plan.changed) * given["attempts"] * arms
    return min(most, given["max_tokens"]) if given["max_tokens"] else most


def _estimate(plan: Any, given: dict[str, Any]) -> None:
    """Print what the check may come to, before anything is spent."""
    found = _estimated(plan, given)
    once, times = found["once"], given["attempts"]
    made, unknown = once["made"], once["unknown"]
    lines = [
        f"check {plan.id}: {len(plan.changed)} sessions would come out otherwise, {len(plan.same)} not, {len(plan.skipped)} have no end",
        f"  first to differ  {', '.join(f'{name} {count}' for name, count in found['first'].items()) or 'none'}",
        f"  attempts         {found['attempts']}" + (", the control's among them" if given["control"] else ""),
        f"  calls            up to {made['calls'] * times:,} to be made, and about {unknown['calls'] * times:,} that rest on them",
        f"  tokens           about {made['input'] * times:,} in, {made['output'] * times:,} out to be made;"
        f" {unknown['input'] * times:,} in, {unknown['output'] * times:,} out as recorded for the rest",
    ]
    control = found["control_once"]
    if control["calls"]:
        lines.append(
            f"  control          {control['calls'] * times:,} calls, {control['input'] * times:,} tokens in, {control['output'] * times:,} out, as recorded"
        )
    if worst := found["worst"]["calls"]:
        bound = "" if given["max_tokens"] else "; --max-tokens and --max-cost bound it"
        lines.append(
            f"  at worst         {worst:,} calls, {found['worst']['tokens']:,} tokens: every run and attempt used{bound}"
        )
    about = _money(plan, times, control=given["control"])
    lines += [f"  money            {about}"] if about else []
    for line in lines:
        say(line, err=given["as_json"])


def _money(plan: Any, times: int, *, control: bool) -> str:
    """Return what the estimate comes to in dollars; empty where a model has no price."""
    from codetape.cli.commands.whatif import Money
    from codetape.runtime.clock import SystemClock

    sums = {fate: Money(own_prices(), SystemClock().now()) for fate in ("made", "unknown")}
    for one in plan.changed:
        for fate, money in sums.items():
            model = str(plan.change.config.get("model", one.model))
            money.add(model, one.input_tokens[fate] * times, one.output_tokens[fate] * times)
        if control:
            sums["unknown"].add(one.model, one.control_input * times, one.control_output * times)
    if not all(money.text for money in sums.values()):
        return "" if not plan.changed else "unpriced: a model has no price"
    return f"about ${sums['made'].text} to be made, ${sums['unknown'].text} as recorded for the rest"


def _say(found: Any, files: tuple[str, ...]) -> None:
    from codetape.evals.report_formats import facts

    say(f"\n{found.verdict}: {found.why}")
    for name, value in facts(found):
        say(f"  {name:<16} {safe(str(value))}")
    for row in found.rows:
        if row.change in ("worse", "better"):
            old, new = (
                f"{row.control_solved}/{row.control_attempts}",
                f"{row.candidate_solved}/{row.candidate_attempts}",
            )
            say(f"  {row.change:<16} {row.task}: {old} -> {new}")
    for outcome in found.outcomes:
        if outcome.made.solved is None:
            say(f"  no outcome       {outcome.made.task} ({outcome.made.session}): {outcome.made.reason}")
    if found.self_graded:
        say(
            "  careful          tasks without an oracle are judged by tests that the sessions wrote themselves; exit 0 needs --accept-self-graded"
        )
    for file in files:
        say(f"  report           {file}")
