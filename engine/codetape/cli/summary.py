"""The outcome of a session: JSON object, files, summary for a person, and exit code."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codetape.cli.output import say, say_json
from codetape.cli.script_folder import ScriptFolder
from codetape.domain.findings import EXAMPLE
from codetape.domain.money import dollars, pico
from codetape.eventlog import machine
from codetape.eventlog.session_state import SessionState
from codetape.reporting.event_text import server_line
from codetape.reporting.verdict import SHOWN, verdict_of
from codetape.rules.build_approval import unapproved
from codetape.rules.evidence import in_words
from codetape.rules.packages import spec_of
from codetape.runtime.redaction import find_keys
from codetape.runtime.result import GenerateResult
from codetape.text.escape import first_line


@dataclass(frozen=True)
class Again:
    """The options that later commands must repeat, as words: database, sandbox, model server.

    ``totals`` are the budgets that several sessions share, as they were given.
    """

    db: tuple[str, ...] = ()
    sandbox: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()

    def resume(self, session: str, *more: str) -> str:
        """Return the command that resumes a session."""
        totals = (
            [w for total in self.totals for w in ("--max-total-cost", total)] if "--max-total-cost" not in more else []
        )
        return shlex.join(["codetape", "resume", session, *self.db, *self.sandbox, *self.model, *totals, *more])

    def command(self, verb: str, session: str, *more: str, sandbox: bool = False) -> str:
        """Return a command on a recorded session."""
        return shlex.join(["codetape", verb, session, *self.db, *(self.sandbox if sandbox else ()), *more])


def exit_code(session: SessionState) -> int:
    """Return the process's exit code for a session's state."""
    if session.state == "succeeded":
        return 0
    if session.state == "failed":
        return 100
    return {"question": 104, "budget": 101, "person": 130}.get(session.cause, 1)


def as_object(result: GenerateResult, duration_s: float, solution_path: Path | None = None) -> dict[str, Any]:
    """Return what `run --json` prints."""
    usage = result.usage
    return {
        "session": result.session,
        "task": result.task,
        "status": result.status,
        "confidence": result.confidence,
        "reason": result.reason,
        "iterations": result.iterations,
        "image": result.image,
        "packages": list(result.packages),
        "tests": result.counts.model_dump(),
        "evidence": result.evidence.model_dump(mode="json"),
        "failing": [failure.model_dump() for failure in result.failing],
        "diagnosis": [{"test": test, "root_cause": cause} for test, cause in result.diagnosis],
        "diagnosed_run": result.diagnosed_run,
        "examples": {"tests": result.examples, "left_out": [list(example) for example in result.left_out]},
        "usage": {
            "input": usage.total_input,
            "cached_input": usage.cache_read,
            "output": usage.total_output,
            "reasoning": usage.reasoning,
            "total": usage.total_input + usage.total_output,
            "calls": result.calls,
            "estimated": result.usage_estimated,
            "cost": result.cost,
            "unpriced": result.unpriced,
            "replayed": result.replayed,
        },
        "inherited": {
            "parent": result.parent,
            "at": result.forked_at,
            "input": result.inherited.total_input,
            "output": result.inherited.total_output,
            "calls": result.inherited_calls,
        }
        if result.parent
        else None,
        "question": result.question,
        "server": {"address": result.config.server, "api": result.config.api, "adapter": result.config.adapter},
        "unbound": list(result.config.sandbox.unbound),
        "keys_seen": list(keys_in(result)),
        "solution": result.solution.code if result.solution else None,
        "solution_path": str(solution_path) if solution_path else None,
        "head": result.head,
        "duration_s": round(duration_s, 3),
    }


def example_of(question: str) -> str:
    """Return the name of the test that a question is about; empty if it is about something else."""
    return question.partition("::")[2] if question.startswith(EXAMPLE) else ""


def keys_in(result: GenerateResult) -> tuple[str, ...]:
    """Return the kinds of keys that script and tests seem to hold: reported, not redacted, as they may be intended."""
    return find_keys(f"{result.solution.code if result.solution else ''}\n{result.tests}")


def summarise(
    result: GenerateResult, session: SessionState, duration_s: float, path: Path | None, again: Again
) -> None:
    """Print the summary for a person: verdict, figures, the script's path, next steps."""
    counts, usage = result.counts, result.usage
    say()
    verdict = verdict_of(result, session)
    say(verdict.sentence, tone=verdict.tone)
    for name, words in verdict.lines():
        say(f"  {name:<11} {words}")
    quarantined = f", {counts.quarantined} quarantined" if counts.quarantined else ""
    say(f"  tests       {counts.passed} passed, {counts.failed} failed, {counts.errors} errors{quarantined}")
    if result.succeeded:
        for name, words in in_words(result.evidence):
            say(f"  {name:<11} {first_line(words, 300)}")
        for change in result.evidence.strength.survivors[:SHOWN] if result.evidence.strength else ():
            say(f"  unnoticed   {first_line(change, 200)}")
        left_open = result.plan.edge_cases if result.plan else ()
        for text in left_open[:SHOWN]:
            say(f"  left open   {first_line(text, 200)}")
        if len(left_open) > SHOWN:
            say(f"  left open   and {len(left_open) - SHOWN} more; --json has them all")
    say(f"  runs        {result.iterations}")
    about = "about " if result.usage_estimated else ""
    say(f"  tokens      {about}{usage.total_input:,} in, {usage.total_output:,} out, {result.calls} calls")
    if result.parent:
        own = usage.total_input - result.inherited.total_input, usage.total_output - result.inherited.total_output
        calls = result.calls - result.inherited_calls
        say(f"  inherited   {result.inherited_calls} of the calls, from {result.parent} up to event {result.forked_at}")
        say(f"  spent here  {about}{own[0]:,} in, {own[1]:,} out, {calls} calls")
    say(f"  money       {result.paid}")
    if reached := server_line(session.the_config):
        say(f"  server      {reached}")
    say(f"  packages    {', '.join(result.packages) or 'none beyond the standard library'}")
    say(f"  time        {duration_s:.1f} s")
    if unbound := session.the_config.sandbox.unbound:
        say(f"  limits      not on {', nor on '.join(unbound)}; `codetape doctor` says more")
    if path:
        say(f"  script      {path}")
    say(f"  session     {result.session}")
    for kind in keys_in(result):
        say(f"  careful     the script or its tests seem to hold a key: {kind}")
    for test in result.quarantined:
        say(f"  quarantined {test.test}: {first_line(test.words) or test.reason}")
    for line in next_steps(result, session, path, again):
        say(f"  next        {line}")


def next_steps(result: GenerateResult, session: SessionState, path: Path | None, again: Again) -> list[str]:
    """Return the next steps as complete commands."""
    name, server = result.session, session.the_config.server
    if server and "--base-url" not in again.model:
        again = replace(again, model=(*again.model, "--base-url", server))
    if result.status in machine.ACTIVE:  # its process ended, or its call waits in a batch
        return [again.resume(name, *_approval(session))]
    if result.status == "suspended":
        return _resumes(result, session, again)
    if result.status == "failed":
        goes_on = {
            "iterations": [again.resume(name, "--max-iterations", str(result.iterations + 5), *_approval(session))],
            "unusable": [again.resume(name, *_approval(session))],  # another sample may be usable
        }
        return [again.command("show", name, "--prompts"), *goes_on.get(session.cause, [])]
    if result.outputs and all(i.value is not None or i.sample for i in result.inputs):
        return [again.command("exec", name, *_approval(session), sandbox=True)]
    if path:
        return [shlex.join(["uv", "run", str(path)])]
    return [again.command("show", name, "--code")]


def _resumes(result: GenerateResult, session: SessionState, again: Again) -> list[str]:
    """Return the commands that resume a suspended session: with an answer, a higher budget, or unchanged."""
    name = result.session
    if session.cause == "question" and (test := example_of(result.question)):
        return [again.resume(name, f"--{verb}-test", test, *_approval(session)) for verb in ("drop", "keep")]
    if session.cause == "question":
        more = _approval(session, result.question)
        return [again.resume(name, f"--{verb}-package", result.question, *more) for verb in ("allow", "deny")]
    if session.cause != "budget":
        return [again.resume(name, *_approval(session))]
    config, used = session.the_config, result.total_input_tokens + result.total_output_tokens
    # a call reserves its whole output beforehand: a limit without room for that would suspend the session at once
    budgets = [*_approval(session)]
    if config.max_tokens is not None:
        budgets += ["--max-tokens", str(max(2 * config.max_tokens, used + 2 * config.max_output_tokens + 40_000))]
    if config.max_cost:
        budgets += ["--max-cost", _more(config.max_cost, session.spent.cost)]
    if config.max_seconds is not None:
        budgets += ["--max-time", f"{max(2 * config.max_seconds, session.spent.ms // 1000 + 300)}s"]
    for total in again.totals:
        label, sign, amount = total.rpartition("=")
        budgets += ["--max-total-cost", f"{label}{sign}{_more(amount, 0)}"]
    return [again.resume(name, *budgets)]


def _approval(session: SessionState, besides: str = "") -> tuple[str, ...]:
    """Return --allow-build where a later command would ask for what this session was allowed; ``besides`` one subject
    that the command answers."""
    config = session.the_config
    wanted = {*unapproved(spec_of(session), config.sandbox, config.resources)} - {besides}
    return ("--allow-build",) if wanted else ()


def _more(amount: str, spent: int) -> str:
    """Return a higher budget of money: twice as much, and at least half a dollar more than was spent."""
    return dollars(max(2 * pico(amount), spent + pico("0.50")))


def end(
    result: GenerateResult,
    session: SessionState,
    seconds: float,
    folder: ScriptFolder | None,
    *,
    as_json: bool,
    again: Again,
) -> int:
    """Write a session's files, print its summary, and return its exit code."""
    path = folder.write(result) if folder else None
    if as_json:
        say_json(as_object(result, seconds, path))
    else:
        summarise(result, session, seconds, path, again)
    return exit_code(session)
