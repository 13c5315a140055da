"""What is shown while a session runs: where it is and what it waits for, and a line for each thing that happened."""

import sys
import time
from types import TracebackType
from typing import Any

from codetape.cli.output import first_line
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    AnchorsExtracted,
    Answered,
    BuildFinished,
    BuildRefused,
    CodeReverted,
    Decided,
    FailureReclassified,
    GaveUp,
    Requested,
    SessionForked,
    SessionStarted,
    TestQuarantined,
    TestsFinished,
)
from codetape.eventlog.session_state import SessionState
from codetape.rules.prompt_examples.example import in_words
from codetape.text.escape import safe

WAITING = {
    "plan": "the model to plan",
    "code": "the model to write the code",
    "tests": "the model to write the tests",
    "diagnose": "the model to diagnose",
    "second_opinion": "a second opinion on tests in doubt",
    "fix_tests": "the model to mend tests",
    "verify_code": "a check that the fixes were made",
    "verify_tests": "a check that the tests were mended",
    "packages": "the model to name packages",
    "replace_package": "the model to replace a package",
    "build": "the environment",
    "vet": "the tests on a stub",
    "run": "the tests",
    "oracle": "the oracle",
    "script": "the script",
}


class Progress:
    """Lines on standard error; in a terminal a live status below them. A context manager, and an event hook."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._begun = time.monotonic()
        self._live: Any = None
        self._console: Any = None
        self._waiting = "the start"
        self._run: SessionState | None = None

    def __enter__(self) -> "Progress":
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._console = Console(stderr=True, highlight=False)
            self._live = Live(get_renderable=self._status, console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event, run: SessionState) -> None:
        """Show one event."""
        self._run = run
        if isinstance(event.payload, Requested):
            self._waiting = WAITING.get(event.payload.purpose, event.payload.purpose)
        if not self._quiet and (line := describe(event, run)):
            self._print(f"{time.monotonic() - self._begun:6.1f} s  {safe(line)}")

    def _print(self, line: str) -> None:
        if self._console:
            self._console.print(line, markup=False, soft_wrap=True)
        else:
            sys.stderr.write(line + "\n")

    def _status(self) -> Any:
        from rich.spinner import Spinner

        run, spent = self._run, time.monotonic() - self._begun
        if run is None or run.config is None:
            return Spinner("dots", text=" starting")
        tokens = run.usage.total_input + run.usage.total_output
        where = f" {run.state}, run {run.ledger.iteration + 1} of at most {run.config.max_iterations}"
        return Spinner("dots", text=f"{where}: waiting for {self._waiting}   {tokens:,} tokens, {spent:.0f} s")


def describe(event: Event, run: SessionState) -> str:
    """Return one line on what an event means to a person; empty for those that mean nothing by themselves."""
    payload = event.payload
    if isinstance(payload, SessionStarted):
        facts = run.the_config.sandbox
        return f"sandbox {facts.name}{f' on {facts.base}' if facts.base else ''}: {facts.why}" if facts.why else ""
    if isinstance(payload, SessionForked):
        return f"forked from {payload.parent} at event {payload.seq}"
    if isinstance(payload, BuildFinished):
        how = "found" if payload.cached else f"built in {payload.duration_ms / 1000:.1f} s"
        return f"environment {payload.image} {how}"
    if isinstance(payload, BuildRefused):
        return f"environment refused: {payload.reason} {', '.join(payload.packages)}"
    if isinstance(payload, TestsFinished):
        return _tests(payload, run)
    if isinstance(payload, FailureReclassified):
        return f"{payload.test}: failed {payload.times} times; {payload.before} becomes {payload.after}"
    if isinstance(payload, AnchorsExtracted):
        return in_words(payload.count, run.left_out) if payload.count or run.left_out else ""
    if isinstance(payload, TestQuarantined):
        return f"{payload.test}: quarantined ({payload.reason})"
    if isinstance(payload, CodeReverted):
        return f"change taken back: it broke {', '.join(payload.broken[:3])}"
    if isinstance(payload, Answered) and payload.tries:
        return f"the model answered after {len(payload.tries)} failed tries"
    if isinstance(payload, GaveUp):
        return f"gave up: {first_line(run.reason)}"
    return _decided(payload, run) if isinstance(payload, Decided) else ""


def _tests(payload: TestsFinished, run: SessionState) -> str:
    what = {"vet": "on a stub", "run": f"run {run.ledger.iteration + 1}", "oracle": "oracle", "script": "script"}
    counts = [f"{payload.passed} passed", f"{payload.failed} failed"]
    counts += [f"{payload.errors} errors"] if payload.errors else []
    counts += [f"{payload.skipped} skipped"] if payload.skipped else []
    how = "" if payload.exit in ("ok", "tests_failed") else f" ({payload.exit})"
    if payload.purpose == "script":
        return f"script: {payload.exit}"
    return f"{what[payload.purpose]}: {', '.join(counts)}{how}"


def _decided(payload: Decided, run: SessionState) -> str:
    if payload.reason == "special_case":
        return "change not taken: it answers a failing test's call by its arguments"
    if payload.reason == "fresh":
        return "a fresh sample is drawn from the plan"
    if not payload.usable:
        asked = payload.about not in ("build", "oracle", "vet", "run", "standing")
        return f"{payload.about}: unusable answer ({payload.reason})" if asked else ""
    if payload.about == "plan" and run.work.plan:
        return f"plan: {first_line(run.work.plan.description)}"
    if payload.about == "code" and "code" in payload.changes:
        return f"code: {len(run.work.code.splitlines())} lines"
    if payload.about == "tests" and run.work.tests:
        return f"tests: {run.work.tests.count('def test')} of them"
    if payload.about == "diagnose" and run.work.diagnosis:
        causes = [first_line(f.root_cause, 160) for f in run.work.findings if f.root_cause][:3]
        return "diagnosis: " + " | ".join(dict.fromkeys(causes))
    if payload.about == "second_opinion":
        told = ("upheld", "refuted", "third", "cannot_hold")
        rules = [f"{f.test}: {f.rule.replace('_', ' ')}" for f in run.work.findings if f.rule in told]
        return "second opinion: " + ("; ".join(rules) or "not settled")
    if payload.about == "fix_tests" and "tests" in payload.changes:
        return "tests mended"
    return ""
