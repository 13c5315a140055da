"""Why a call was made: the causal chain back to the task, and where each part of the call's prompt is from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from codetape.domain.money import dollars, pico
from codetape.domain.reply_shapes import ErrorDiagnosis
from codetape.domain.report import Report
from codetape.errors import UsageError
from codetape.eventlog.events import (
    EXTERNAL_CAUSES,
    Answered,
    BuildFinished,
    BuildRefused,
    CallBatched,
    CallClosed,
    CallLost,
    CallRefused,
    Decided,
    GaveUp,
    Payload,
    Requested,
    SessionForked,
    SessionStarted,
    Suspended,
    TestsFinished,
)
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.ports import Stream
from codetape.reporting.prompt_origins import PromptOrigins, RecordedText, origin_of

_HEADING = re.compile(r"^#{1,3} .+$", re.MULTILINE)


@dataclass(frozen=True)
class CauseLink:
    """One step back: the event, and a description of it."""

    seq: int
    session: str
    kind: str
    words: str


@dataclass(frozen=True)
class PromptPart:
    """One part of a call's prompt: its heading, its estimated tokens, and the origin of its content."""

    message: int
    role: str
    heading: str
    tokens: int
    origin: str


@dataclass(frozen=True)
class Why:
    """The causal chain of a call, the call first and the task last, and the parts of its prompt."""

    call: str
    purpose: str
    chain: tuple[CauseLink, ...]
    parts: tuple[PromptPart, ...]


def why(stream: Stream, seq: int) -> Why:
    """Explain the last call at or before an event. Raises UsageError if there is none."""
    events = stream.events
    if not 0 <= seq < len(events):
        raise UsageError(f"The session has no event {seq}.", remedy=f"Its last is {len(events) - 1}.")
    at = next((n for n in range(seq, -1, -1) if isinstance(events[n].payload, Requested)), None)
    if at is None:
        raise UsageError(
            f"No call was made up to event {seq}.", remedy="`codetape show SESSION --events` shows where calls are."
        )
    request = events[at].payload
    if not isinstance(request, Requested):
        raise TypeError("a call is announced by Requested")
    chain = [CauseLink(at, events[at].session, "Requested", _call(stream, at, request)), *_back(stream, at)]
    return Why(request.call, request.purpose, tuple(chain), tuple(_parts(stream, at, request)))


def _call(stream: Stream, at: int, request: Requested) -> str:
    if request.effect != "ask":
        return (
            f"the sandbox was to {'build the environment' if request.effect == 'build' else 'run: ' + request.purpose}"
        )
    following = (event.payload for event in stream.events[at + 1 :])
    outcome = next((later for later in following if not isinstance(later, CallBatched)), None)
    if not isinstance(outcome, Answered):
        ending = type(outcome).__name__ if outcome else "no outcome is recorded"
        return f"the model was asked for {request.purpose}; {ending}"
    usage = outcome.usage
    spent = f"{usage.total_input:,} tokens in, {usage.total_output:,} out"
    cost = (
        ", answered from a recording"
        if outcome.matched_by
        else f", ${dollars(pico(outcome.price.cost))}"
        if outcome.price
        else ", unpriced"
    )
    return f"the model was asked for {request.purpose}: {spent}{cost}"


def _back(stream: Stream, at: int) -> Iterator[CauseLink]:
    """Yield what led to a call, the nearest first: the decision that made it, the outcome that decision was taken on,
    the call of that outcome, and so on.

    It ends at a run of the tests: from there the causes are the code that failed, the plan and the task.
    """
    events = stream.events
    for _ in range(200):  # decisions at most: people read the chain
        decided_at = next((n for n in range(at - 1, -1, -1) if _settles(events[n].payload)), None)
        if decided_at is None:
            break
        outcome_at = _outcome_before(stream, decided_at)
        yield _link(
            stream,
            decided_at,
            _decision(events[decided_at].payload, events[outcome_at].payload if outcome_at is not None else None)
            + _causes(stream, events[decided_at].payload),
        )
        if outcome_at is None:
            at = decided_at
            continue
        closing = events[outcome_at].payload
        request_at = next(
            n
            for n in range(outcome_at - 1, -1, -1)
            if isinstance(asked := events[n].payload, Requested) and asked.call == getattr(closing, "call", None)
        )
        if isinstance(closing, TestsFinished):
            yield _link(stream, outcome_at, _failed(closing, Report.model_validate_json(stream.texts[closing.report])))
            if closing.purpose != "vet":
                yield from _made(stream, request_at)
                return
        yield _link(stream, request_at, _asked(events[request_at].payload, closing))
        at = request_at
    yield from _begun(stream, at)


def _settles(payload: Payload) -> bool:
    """Whether an event is a decision of the rules; a halt from outside is not."""
    return isinstance(payload, Decided) and not (isinstance(payload, Suspended) and payload.cause in EXTERNAL_CAUSES)


def _outcome_before(stream: Stream, decided: int) -> int | None:
    """Return the position of the outcome that a decision was taken on; None if it needed none."""
    for n in range(decided - 1, -1, -1):
        payload = stream.events[n].payload
        if isinstance(payload, CallClosed):
            return n
        if _settles(payload):
            return None
    return None


def _made(stream: Stream, at: int) -> Iterator[CauseLink]:
    """Yield the origin of the code that a run tested, then the plan and the task."""
    events = stream.events
    code_at = next(
        (n for n in range(at, -1, -1) if isinstance(p := events[n].payload, Decided) and "code" in p.changes), None
    )
    if code_at is not None:
        yield _link(stream, code_at, "the code that it ran was taken from an answer here")
    yield from _begun(stream, code_at if code_at is not None else at)


def _begun(stream: Stream, at: int) -> Iterator[CauseLink]:
    """Yield the plan, forks and the task, backwards."""
    for n in range(at - 1, -1, -1):
        payload = stream.events[n].payload
        words = ""
        if isinstance(payload, Decided) and payload.about == "plan" and "plan" in payload.changes:
            words = "the plan was made"
        elif isinstance(payload, SessionForked):
            words = f"the session was forked from {payload.parent} at event {payload.seq}"
        elif isinstance(payload, SessionStarted):
            words = f"the task {payload.task_id} was given to {payload.model}"
        if words:
            yield _link(stream, n, words)


def _link(stream: Stream, at: int, words: str) -> CauseLink:
    event = stream.events[at]
    return CauseLink(event.seq, event.session, event.kind, words)


def _asked(payload: Payload, outcome: Payload) -> str:
    purpose = getattr(payload, "purpose", "")
    if isinstance(outcome, CallLost | GaveUp):
        return f"it was asked for {purpose}, and the call was {'lost' if isinstance(outcome, CallLost) else 'given up'}"
    return {"build": "the environment was wanted", "vet": "the tests were to run on a stub"}.get(
        purpose, f"it was asked for {purpose}"
    )


def _decision(payload: Any, outcome: Payload | None) -> str:
    """Describe a decision by the outcome that it was taken on."""
    moved = f" and went from {payload.source} to {payload.target}" if payload.source != payload.target else ""
    reason = f" ({payload.reason})" if payload.reason else ""
    if isinstance(outcome, Answered):
        return f"the answer to {payload.about} {'was used' if payload.usable else f'could not be used{reason}'}{moved}"
    if isinstance(outcome, CallRefused):
        return f"the server refused the request for {payload.about}: {outcome.what}"
    if isinstance(outcome, TestsFinished):
        return f"the rules read the report of the {outcome.purpose}{reason}{moved}"
    if isinstance(outcome, BuildFinished | BuildRefused):
        return f"the environment was {'ready' if isinstance(outcome, BuildFinished) else f'refused{reason}'}{moved}"
    return f"the rules had nothing to ask on {payload.about}{reason}{moved}"


def _causes(stream: Stream, payload: Payload) -> str:
    """Return the root causes that a decision took from a diagnosis."""
    ref = payload.changes.get("diagnosis") if isinstance(payload, Decided) else None
    if not ref:
        return ""
    failures = ErrorDiagnosis.model_validate_json(stream.texts[ref]).failures
    return ": " + "; ".join(f"{f.test_name}: {' '.join(f.root_cause.split())}" for f in failures)


def _failed(payload: TestsFinished, report: Report) -> str:
    bad = list(report.failing)
    shown = "; ".join(f"{t.id}: {t.exception} {' '.join(t.message.split())[:120]}".strip() for t in bad[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    counts = f"{payload.passed} passed, {payload.failed} failed, {payload.errors} errors"
    return f"the {payload.purpose} of the tests: {counts}" + (f". Failing: {shown}{more}" if shown else "")


def _parts(stream: Stream, at: int, request: Requested) -> Iterator[PromptPart]:
    known = _known(stream, at)
    for number, (role, ref) in enumerate(request.messages, 1):
        text = stream.texts[ref]
        bounds = [0, *(m.start() for m in _HEADING.finditer(text) if m.start()), len(text)]
        for start, end in pairwise(bounds):
            body = text[start:end]
            heading = _HEADING.match(body)
            title = heading[0].lstrip("# ") if heading else "the beginning"
            yield PromptPart(number, role, title, round(len(body) / 4), origin_of(body, known))


def _known(stream: Stream, at: int) -> list[RecordedText]:
    """Return the texts that a prompt at that event may contain, the latest first."""
    session, origins = SessionState(), PromptOrigins()
    for event in stream.events[:at]:
        before, session = session, apply(session, event, stream.texts)
        origins.learn(before, session)
    return origins.texts(session)
