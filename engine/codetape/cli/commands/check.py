"""codetape check."""

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from codetape.cli.change_options import ChangeOptions, change, settings_of
from codetape.cli.options import (
    ManyOptions,
    RedactOptions,
    ServerOptions,
    allow_build,
    as_json,
    database,
    jobs,
    own_patterns,
    own_prices,
    redacting,
    server,
    server_settings,
    several,
    typed,
    write_text,
)
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import UsageError
from codetape.text.escape import safe

if TYPE_CHECKING:
    from codetape.api.opening import AgentSettings
    from codetape.api.studies import PreparedCheck
    from codetape.evals.check import CheckPlan


class CheckOptions(ChangeOptions, FilterOptions, ManyOptions, ServerOptions, RedactOptions):
    """The options."""

    control: bool
    baseline: str | None
    margin: float
    max_cost: str | None
    max_tokens: int | None
    yes: bool
    dry_run: bool
    number: int
    accept_self_graded: bool
    files: tuple[str, ...]
    control_base_url: str | None
    sandbox: str
    allow_build: bool
    jobs: int


@click.command("check")
@change
@filters()
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
@allow_build
@redacting
@server
@jobs
@database
@as_json
@typed(CheckOptions)
def command(options: CheckOptions) -> int:
    """Test a change of prompts, model or settings on recorded sessions, and say whether it solves less.

    Each session is resumed live from its first request that differs; what stays is reused. The outcomes are compared
    task by task with a control. Exit codes: 0 no regression, 100 a regression, 103 not settled, 101 budget, 1 errors.
    """
    import asyncio

    from codetape.api.studies import prepare_check
    from codetape.inspector.report_files import CHECK_FORMS, extension_of

    for file in options.files:
        extension_of(file, CHECK_FORMS)
        from pathlib import Path

        if not Path(file).absolute().parent.is_dir():
            raise UsageError(f"{file} cannot be written: there is no such folder.")
    if options.control and options.baseline:
        raise UsageError("--control and --baseline are two controls.", remedy="Give one.")
    settings: AgentSettings = {
        **server_settings(options),
        "prices": own_prices(),
        "redact": own_patterns(options),
        "allow_build": options.allow_build,
    }
    preparation = prepare_check(
        *options.sources,
        store=options.db,
        where=options.where,
        prompts=options.prompts,
        model=options.model,
        changes=settings_of(options.settings),
        attempts=options.attempts,
        concurrent=options.concurrent,
        control=options.control,
        control_base_url=options.control_base_url,
        baseline=options.baseline,
        margin=options.margin,
        max_tokens=options.max_tokens,
        max_cost=options.max_cost,
        number=options.number,
        sandbox=options.sandbox,
        in_batches=options.in_batches,
        jobs=options.jobs,
        **settings,
    )
    prepared = asyncio.run(preparation)
    _refuse_nothing(prepared.plan, options)
    estimate = _estimated(prepared, options)
    _say_estimate(prepared.plan, estimate, options)
    if options.dry_run:
        if options.as_json:
            say_json(estimate)
        return 0
    prepared.refuse_unpriced()
    if prepared.plan.changed:
        _agree(estimate, options)
    from codetape.cli.run_series import SeriesProgress

    display = SeriesProgress(quiet=options.as_json)
    try:
        with display:
            checking = prepared.arun(
                lambda progress, outcome: display.progress(
                    progress, outcome.made if outcome else None, outcome.arm if outcome else ""
                ),
                on_batch=display.line,
            )
            report = asyncio.run(checking)
    except KeyboardInterrupt:
        say("Interrupted. The same command continues where it stopped.", err=True)
        return 130
    for file in options.files:
        write_text(file, CHECK_FORMS[extension_of(file, CHECK_FORMS)](report))
    if options.as_json:
        say_json(report.as_dict())
    else:
        _say(report, options.files)
    return report.exit_code(accept_self_graded=options.accept_self_graded)


def _refuse_nothing(plan: "CheckPlan", options: CheckOptions) -> None:
    """Raise UsageError where no session can be checked."""
    if plan.changed or plan.same:
        return
    if plan.skipped:
        more = f", and {len(plan.skipped) - 1} more" if plan.skipped[1:] else ""
        raise UsageError(f"No session can be checked: {plan.skipped[0]}{more}.")
    from codetape.api.opening import corpus

    raise corpus(options.sources, options.db, options.where).none_found()


def _worst(estimate: dict[str, Any]) -> str:
    worst = estimate["worst"]
    cost = f", ${worst['dollars']}" if worst["dollars"] else ", unpriced"
    return f"{worst['calls']:,} calls, {worst['tokens']:,} tokens{cost}"


def _agree(estimate: dict[str, Any], options: CheckOptions) -> None:
    """Ask a person to accept the worst case; non-interactive use needs a budget or --yes."""
    if options.yes or options.max_cost or options.max_tokens:
        return
    if options.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "Refusing to make paid calls without confirmation.",
            remedy="Give --yes, --max-tokens or --max-cost; or --dry-run.",
        )
    click.confirm(f"Make these calls, at worst {_worst(estimate)}?", abort=True, err=True)


def _estimated(prepared: "PreparedCheck", options: CheckOptions) -> dict[str, Any]:
    plan, arms = prepared.plan, prepared.arms
    attempts = plan.attempts(options.attempts)
    worst_calls, worst_tokens, worst_cost = prepared.worst()
    return {
        "id": plan.id,
        "sessions_changed": len(plan.changed),
        "sessions_same": len(plan.same),
        "skipped": list(plan.skipped),
        "attempts": len(attempts) * arms,
        "first": dict(Counter(session.first for session in plan.changed)),
        "once": plan.sums(),
        "expected": plan.sums(options.attempts),
        "worst": {
            "calls": worst_calls,
            "tokens": worst_tokens,
            "dollars": worst_cost or None,
        },
        "dollars": prepared.costs(),
        "control_expected": {
            name: sum(getattr(session, f"control_{name}") for session, _ in attempts) if options.control else 0
            for name in ("calls", "input", "output")
        },
    }


def _say_estimate(plan: "CheckPlan", estimate: dict[str, Any], options: CheckOptions) -> None:
    """Print what the check may cost, before anything is spent."""
    to_make, unknown = estimate["expected"]["made"], estimate["expected"]["unknown"]
    lines = [
        f"check {plan.id}: {len(plan.changed)} sessions would come out differently, {len(plan.same)} not, "
        f"{len(plan.skipped)} have no end",
        f"  first to differ  {', '.join(f'{name} {count}' for name, count in estimate['first'].items()) or 'none'}",
        f"  attempts         {estimate['attempts']}" + (", the control's among them" if options.control else ""),
        f"  calls            up to {to_make['calls']:,} to be made, and about {unknown['calls']:,} that rest on them",
        f"  tokens           about {to_make['input']:,} in, {to_make['output']:,} out to be made;"
        f" {unknown['input']:,} in, {unknown['output']:,} out as recorded for the rest",
    ]
    control = estimate["control_expected"]
    if control["calls"]:
        lines.append(
            f"  control          {control['calls']:,} calls, {control['input']:,} tokens in, "
            f"{control['output']:,} out, as recorded"
        )
    if estimate["worst"]["calls"]:
        bound = "" if options.max_tokens or options.max_cost else "; --max-tokens and --max-cost bound it"
        lines.append(f"  at worst         {_worst(estimate)}: every run of each attempt used{bound}")
    if plan.changed:
        costs = estimate["dollars"]
        if not costs:
            lines.append("  money            unpriced: a model has no price")
        for way, (made, rest) in costs.items():
            name, how = ("money", "") if way == "each" else ("", " in batches (--batch)")
            lines.append(f"  {name:<16} about ${made} to be made, ${rest} as recorded for the rest{how}")
    for line in lines:
        say(line, err=options.as_json)


def _say(report: Any, files: tuple[str, ...]) -> None:
    from codetape.evals.report_formats import facts

    say(f"\n{report.verdict}: {report.why}")
    for name, value in facts(report):
        say(f"  {name:<16} {safe(str(value))}")
    for row in report.rows:
        if row.change in ("worse", "better"):
            old, new = (
                f"{row.control_solved}/{row.control_attempts}",
                f"{row.candidate_solved}/{row.candidate_attempts}",
            )
            say(f"  {row.change:<16} {row.task}: {old} -> {new}")
    for outcome in report.outcomes:
        if outcome.made.solved is None:
            say(f"  no outcome       {outcome.made.task} ({outcome.made.session}): {outcome.made.reason}")
    if report.self_graded:
        say(
            "  careful          tasks without an oracle are judged by tests that the sessions wrote themselves; exit "
            "0 needs --accept-self-graded"
        )
    for file in files:
        say(f"  report           {file}")
