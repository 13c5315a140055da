"""Why a call was made: back from it, through what asked for it, to the prompt; and what its own prompt was made of."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from codetape.artefacts import Report
from codetape.budgets import dollars, pico
from codetape.errors import UsageError
from codetape.events import (
    Answered,
    CodeReverted,
    Decided,
    Requested,
    SessionForked,
    SessionStarted,
    TestQuarantined,
    TestsFinished,
)
from codetape.fold import apply
from codetape.ports import Stream
from codetape.run import Run

_HEADING = re.compile(r"^#{1,3} .+$", re.MULTILINE)
_SHORT = 12  # characters: a text that is found in a prompt must be longer than that to say where it is from


@dataclass(frozen=True)
class Link:
    """One step back: the event, and in plain words what it was."""

    seq: int
    session: str
    kind: str
    words: str


@dataclass(frozen=True)
class Part:
    """One part of a call's prompt: its heading, about how many tokens it has, and where its content is from."""

    message: int
    role: str
    heading: str
    tokens: int
    origin: str


@dataclass(frozen=True)
class Why:
    """The causal chain of a call, itself first and the prompt last, and the parts of what it asked."""

    call: str
    purpose: str
    chain: tuple[Link, ...]
    parts: tuple[Part, ...]


def why(stream: Stream, seq: int) -> Why:
    """Explain the call at an event, or the last one at or before it. Raises UsageError where there is none."""
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
    chain = [Link(at, events[at].session, "Requested", _call(stream, at, request)), *_back(stream, at)]
    return Why(request.call, request.purpose, tuple(chain), tuple(_parts(stream, at, request)))


def _call(stream: Stream, at: int, request: Requested) -> str:
    if request.effect != "ask":
        return (
            f"the sandbox was to {'build the environment' if request.effect == 'build' else 'run: ' + request.purpose}"
        )
    after = stream.events[at + 1].payload if at + 1 < len(stream.events) else None
    if not isinstance(after, Answered):
        return (
            f"the model was asked for {request.purpose}; {type(after).__name__ if after else 'no outcome is recorded'}"
        )
    usage = after.usage
    spent = f"{usage.total_input:,} tokens in, {usage.total_output:,} out"
    cost = (
        ", answered from a recording"
        if after.matched_by
        else f", ${dollars(pico(after.price.cost))}"
        if after.price
        else ", unpriced"
    )
    return f"the model was asked for {request.purpose}: {spent}{cost}"


def _back(stream: Stream, at: int) -> Iterator[Link]:
    """Yield what led to a call, the nearest first: decisions that brought the machine here, and what they rest on."""
    events, wanted = stream.events, _Wanted()
    for event in reversed(events[:at]):
        payload = event.payload
        words = ""
        if isinstance(payload, Decided):
            words = _decision(payload, wanted)
        elif isinstance(payload, TestsFinished) and wanted.report:
            wanted.report = False
            wanted.code = True
            words = _failed(payload, Report.model_validate_json(stream.texts[payload.report]))
        elif isinstance(payload, Requested) and wanted.call == payload.purpose:
            wanted.call = ""
            words = f"it was asked for {payload.purpose}"
        elif isinstance(payload, TestQuarantined | CodeReverted) and wanted.report:
            words = _note(payload)
        elif isinstance(payload, SessionForked):
            words = f"the session was forked from {payload.parent} at event {payload.seq}"
        elif isinstance(payload, SessionStarted):
            words = f"the task {payload.task_id} was given to {payload.model}"
        if words:
            yield Link(event.seq, event.session, event.kind, words)


class _Wanted:
    """What the next links are to explain, going back."""

    def __init__(self) -> None:
        self.first, self.report, self.code, self.plan = True, False, False, False
        self.call = ""


def _decision(payload: Decided, wanted: _Wanted) -> str:
    """Return a decision in words, if it explains what comes after it."""
    moved = f" and went from {payload.source} to {payload.target}" if payload.source != payload.target else ""
    about, reason = payload.about, f" ({payload.reason})" if payload.reason else ""
    if about in ("run", "standing", "vet", "oracle") and (wanted.first or wanted.report):
        wanted.first, wanted.report = False, True
        return f"the rules read the report of the {about}{reason}{moved}"
    if about == "code" and "code" in payload.changes and wanted.code:
        wanted.code, wanted.first, wanted.plan = False, False, True
        return f"the code that failed was taken from an answer here{reason}"
    if wanted.first:
        wanted.first = False
        wanted.report = about not in ("plan", "code", "tests", "packages")
        wanted.plan = not wanted.report
        wanted.code = False
        wanted.call = about if about in ("diagnose", "second_opinion", "code", "tests", "plan") else ""
        used = "was used" if payload.usable else f"could not be used{reason}"
        return f"the answer to {about} {used}{moved}"
    if about == "diagnose" and not wanted.plan and not wanted.code:
        wanted.report = True
        return f"a diagnosis was taken{moved}"
    if about == "plan" and wanted.plan:
        wanted.plan = False
        return "the plan was made"
    return ""


def _failed(payload: TestsFinished, report: Report) -> str:
    bad = [t for t in report.tests if t.outcome not in ("passed", "skipped")]
    shown = "; ".join(f"{t.id}: {t.exception} {' '.join(t.message.split())[:120]}".strip() for t in bad[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    counts = f"{payload.passed} passed, {payload.failed} failed, {payload.errors} errors"
    return f"the {payload.purpose} of the tests: {counts}" + (f". Failing: {shown}{more}" if shown else "")


def _note(payload: TestQuarantined | CodeReverted) -> str:
    if isinstance(payload, TestQuarantined):
        return f"{payload.test} was quarantined ({payload.reason})"
    return f"a change was taken back: it broke {', '.join(payload.broken[:3])}"


def _parts(stream: Stream, at: int, request: Requested) -> Iterator[Part]:
    known = _origins(stream, at)
    for number, (role, ref) in enumerate(request.messages, 1):
        text = stream.texts[ref]
        marks = [0, *(m.start() for m in _HEADING.finditer(text) if m.start()), len(text)]
        for start, end in pairwise(marks):
            body = text[start:end]
            heading = _HEADING.match(body)
            named = heading[0].lstrip("# ") if heading else "the beginning"
            yield Part(number, role, named, round(len(body) / 4), _origin(body, known))


def _origins(stream: Stream, at: int) -> list[tuple[str, str]]:
    """Return what a prompt may hold, the latest first: texts with where they are from."""
    run, found = Run(), list[tuple[str, str]]()
    for event in stream.events[:at]:
        before = run.work
        run = apply(run, event, stream.texts)
        where = f"event {event.seq}"
        changed = [name for name in ("code", "tests") if getattr(run.work, name) != getattr(before, name)]
        found += [(getattr(run.work, name), f"{name} of {where}") for name in changed]
        if run.work.plan is not before.plan and run.work.plan:
            found.append((run.work.plan.description, f"the plan of {where}"))
        if run.work.diagnosis is not before.diagnosis and run.work.diagnosis:
            found += [(f.root_cause, f"the diagnosis of {where}") for f in run.work.diagnosis.failures]
        if run.work.report is not before.report and run.work.report:
            found += [(t.message, f"the report of {where}") for t in run.work.report.tests if t.outcome != "passed"]
    task = run.the_task
    found += [(task.prompt, "the task"), (task.tests, "the user's tests"), (task.data_schema, "the task's schema")]
    found += [(i.sample.head, f"the sample of {i.name}") for i in task.inputs if i.sample]
    found += [(constraint, "a constraint") for constraint in task.constraints]
    return list(reversed(found))


def _origin(body: str, known: list[tuple[str, str]]) -> str:
    """Return where a part's content is from, as far as a recorded text stands in it; else it is the prompt pack's."""
    found = [where for text, where in known if len(text.strip()) >= _SHORT and text.strip()[:2000] in body]
    return ", ".join(dict.fromkeys(found)) or "the prompt pack"
