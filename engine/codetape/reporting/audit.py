"""The audit of one session: the task, each call with its disposition and cost, each decision with its reason, the
result."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codetape.domain.money import dollars, money
from codetape.domain.report import Report
from codetape.eventlog.envelope import Event, stored
from codetape.eventlog.events import (
    Answered,
    ConfigChanged,
    Decided,
    GaveUp,
    Requested,
    Resumed,
    SessionForked,
    SessionStarted,
    TestsFinished,
)
from codetape.eventlog.fold import apply, fold
from codetape.eventlog.session_state import SessionState
from codetape.playback.verify import Judgement, verify
from codetape.ports import Stream
from codetape.reporting.calls import CallRecord, call_row, stream_calls
from codetape.reporting.event_text import describe, server_line
from codetape.reporting.spend import Spend, spend
from codetape.reporting.verdict import Verdict, verdict_of
from codetape.rules.evidence import in_words
from codetape.runtime.result import GenerateResult
from codetape.text import escape, markdown_text


@dataclass(frozen=True)
class AuditStep:
    """One thing that happened or was decided, and why."""

    seq: int
    at: str
    kind: str
    words: str


@dataclass(frozen=True)
class Audit:
    """The whole audit. A fork's ``inherited`` calls are its parent's, and cost it nothing; ``judgement`` and
    ``exit_code`` are those of `codetape verify`."""

    result: GenerateResult
    verdict: Verdict
    calls: tuple[CallRecord, ...]
    inherited: tuple[CallRecord, ...]
    spent: Spend
    steps: tuple[AuditStep, ...]
    versions: dict[str, Any]
    pack: dict[str, str]
    judgement: Judgement
    exit_code: int
    findings: tuple[str, ...]
    derived: int
    drift: int

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, and all was derived as it stands."""
        return self.judgement == "sound"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        result = self.result.model_dump(mode="json", exclude={"conversation"})
        return {
            "session": self.result.session,
            "result": result,
            "calls": [call_row(call) for call in self.calls],
            "inherited": [call_row(call) for call in self.inherited],
            "spend": {"rows": self.spent.records(), "total": self.spent.total.record(())},
            "steps": [vars(step) for step in self.steps],
            "versions": self.versions,
            "prompts": self.pack,
            "verified": {
                "sound": self.sound,
                "judgement": self.judgement,
                "findings": list(self.findings),
                "derived": self.derived,
                "drift": self.drift,
            },
        }


def audit(stream: Stream) -> Audit:
    """Audit a session. Raises CorruptTape for a log that cannot be folded."""
    session = fold(stream.events, stream.texts)
    calls = list(stream_calls(stream))
    own = tuple(call for call in calls if call.session == session.session)
    verification = verify([stored(event) for event in stream.events], stream.texts)
    started = next(e.payload for e in stream.events if isinstance(e.payload, SessionStarted))
    result = GenerateResult.of(session, stream)
    return Audit(
        result=result,
        verdict=verdict_of(result, session),
        calls=own,
        inherited=tuple(call for call in calls if call.session != session.session),
        spent=spend(own, ("state", "iteration")),
        steps=tuple(_steps(stream)),
        versions=(session.versions or started.versions).model_dump(mode="json"),
        pack=dict(started.pack),
        judgement=verification.judgement,
        exit_code=verification.exit_code,
        findings=tuple(finding.message for finding in verification.findings),
        derived=verification.derived,
        drift=len(verification.drift),
    )


def _steps(stream: Stream) -> Iterator[AuditStep]:
    state = SessionState()
    for event in stream.events:
        state = apply(state, event, stream.texts)
        if words := _words(event, state, stream):
            yield AuditStep(event.seq, event.at, event.kind, words)


def _words(event: Event, state: SessionState, stream: Stream) -> str:
    """Describe an event in more detail than `describe`; empty for requests and replies, which are listed as calls."""
    payload = event.payload
    if isinstance(payload, Requested | Answered | GaveUp):
        return ""
    if isinstance(payload, SessionStarted):
        return f"task {payload.task_id}, model {payload.model}"
    if isinstance(payload, SessionForked):
        return f"{describe(event, state)}; changed: {stream.texts[payload.config][:300]}"
    if isinstance(payload, TestsFinished):
        return _tests(payload, Report.model_validate_json(stream.texts[payload.report]))
    if isinstance(payload, ConfigChanged):
        return f"the configuration was changed: {stream.texts[payload.changes][:300]}"
    if isinstance(payload, Resumed):
        return f"resumed to {payload.target}"
    return _decision(payload, stream) if isinstance(payload, Decided) else describe(event, state)


def _tests(payload: TestsFinished, report: Report) -> str:
    bad = [t.id for t in report.failing]
    failing = f": {', '.join(bad[:5])}" if bad and payload.purpose != "vet" else ""
    return f"{payload.purpose}: {payload.passed} passed, {payload.failed} failed, {payload.errors} errors ({payload.exit}){failing}"


def _decision(payload: Decided, stream: Stream) -> str:
    parts = [payload.about if payload.usable else f"{payload.about} could not be used"]
    parts += [payload.reason] if payload.reason else []
    parts += [f"{payload.source} to {payload.target}"] if payload.source != payload.target else []
    parts += [f"changed {', '.join(sorted(payload.changes))}"] if payload.changes else []
    message = getattr(payload, "message", None)
    parts += [stream.texts[message][:300]] if message else []
    confidence = getattr(payload, "confidence", "")
    return "; ".join([*parts, *([f"confidence {confidence}"] if confidence else [])])


# ---- as a report


def facts(found: Audit) -> list[tuple[str, str]]:
    """Return the facts of an audit, as names and values."""
    result, total = found.result, found.spent.total
    checked = (
        f"sound: every hash, the chain, and {found.derived} requests and decisions derived again"
        if found.sound
        else f"not settled: {found.drift} of {found.derived} were derived by other versions than these, and otherwise"
        if found.judgement == "not settled"
        else "not sound: " + "; ".join(found.findings[:3])
    )
    return [
        ("session", result.session),
        ("task", result.task),
        ("model", result.config.model),
        *(("server", line) for line in filter(None, [server_line(result.config)])),
        ("status", found.verdict.sentence),
        ("runs of the tests", str(result.iterations)),
        ("tests at the end", f"{result.counts.passed} passed, {result.counts.failed} failed, {result.counts.quarantined} quarantined"),
        *in_words(result.evidence),
        *found.verdict.lines(),
        ("calls", f"{total.calls} made, {total.replayed} replayed, {len(found.inherited)} inherited" + (f" from {result.parent}" if result.parent else "")),
        ("tokens", f"{total.tokens:,}" + (f"; {total.possibly_billed:,} more of lost calls may have been billed" if total.lost else "")),
        ("money", money(total.cost, total.unpriced)),
        ("sandbox", f"{result.config.sandbox.name}, Python {result.config.python_version}"),
        ("environment", result.image or "none"),
        ("verified", checked + (f"; {found.drift} derived differently by these versions" if found.drift else "")),
        ("versions", ", ".join(f"{name} {value}" for name, value in found.versions.items())),
        ("head", result.head),
    ]  # fmt: skip


_CALLS = ("event", "purpose", "state", "run", "disposition", "input", "output", "cost", "source", "seconds")


def _call_rows(account: Audit) -> list[tuple[object, ...]]:
    return [
        (c.seq, c.purpose, c.state, c.iteration + 1, c.disposition, f"{c.total_input:,}", f"{c.total_output:,}",
         f"${dollars(c.cost)}" if c.cost is not None else c.source, c.source or "no answer", f"{c.duration_ms / 1000:.1f}")
        for c in account.calls
    ]  # fmt: skip


def as_json(found: Audit) -> str:
    """Return the audit as JSON."""
    return json.dumps(found.as_dict(), indent=1, sort_keys=True, default=list) + "\n"


def as_markdown(found: Audit) -> str:
    """Return the audit as Markdown."""
    result = found.result
    parts = [
        f"# codetape audit: {markdown_text.markdown(result.task)}",
        markdown_text.markdown_table(("", ""), facts(found)),
        "## What was asked",
        _fenced(result.prompt),
        "## Calls",
        markdown_text.markdown_table(_CALLS, _call_rows(found)),
        "## What happened, and why",
        markdown_text.markdown_table(
            ("event", "at", "kind", "what"), [(s.seq, s.at, s.kind, s.words) for s in found.steps]
        ),
        "## The script",
        _fenced(result.solution.code if result.solution else "none"),
        "## The environment",
        _fenced(result.lock or "none"),
    ]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    shown = escape.shown(text)
    # longer than any run of backticks in the text, which would close the block early
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"
