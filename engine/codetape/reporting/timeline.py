"""A session as it is looked at: its visits of states in order, each with what was called, run and decided in it.

One pass over the events makes everything that a page of a session shows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Literal

from codetape.domain.report import Report, TestResult
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    Answered,
    CallClosed,
    CallLost,
    CallRefused,
    Decided,
    GaveUp,
    Requested,
    TestsFinished,
)
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.ports import Stream
from codetape.reporting.calls import CallRecord, stream_calls
from codetape.reporting.event_text import describe
from codetape.reporting.prompt_origins import Passage, PromptOrigins, RecordedText, passages
from codetape.rules.evidence import evidence_of
from codetape.rules.failing_tests import FailingTest, failing
from codetape.rules.pytest_source import function_id
from codetape.rules.session_view import all_files
from codetape.text.unified_diff import unified


@dataclass(frozen=True)
class SentMessage:
    """A message of a prompt, cut into passages by where they come from."""

    role: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class ModelCall:
    """A call to the model: its figures, what was sent, and what came back. ``record`` is None for a call without any.

    ``sent`` are roles and texts; `messages` looks where they come from, which takes time, and so is done when it is asked
    for. ``reply`` and ``thoughts`` are empty where none came; ``outcome`` names the event that closed the call, empty while
    it is open.
    """

    seq: int
    purpose: str
    record: CallRecord | None
    sent: tuple[tuple[str, str], ...]
    known: Callable[[], list[RecordedText]]
    outcome: str = ""
    reply: str = ""
    thoughts: str = ""
    refusal: str = ""
    answered_by: str = ""

    def messages(self) -> tuple[SentMessage, ...]:
        """Return the prompt's messages, cut into passages by where they come from."""
        known, room, found = self.known(), MAX_SENT, list[SentMessage]()
        for role, text in self.sent[:MAX_MESSAGES]:
            part = text[:room]
            room -= len(part)
            found.append(SentMessage(role, tuple(passages(part, known))))
        return tuple(found)


@dataclass(frozen=True)
class TestRun:
    """An execution of tests: ``number`` counts runs of the code from 1, and is 0 for other purposes."""

    seq: int
    purpose: str
    number: int
    report: Report
    failing: tuple[FailingTest, ...]

    __test__ = False


@dataclass(frozen=True)
class CodeChange:
    """A version of the script: its difference from the one before, and the diagnosis that caused it, a line each."""

    seq: int
    number: int
    code: str
    diff: str
    causes: tuple[str, ...]
    reverted: bool = False


@dataclass(frozen=True)
class LogLine:
    """An event in words."""

    seq: int
    at: str
    kind: str
    words: str


@dataclass
class Visit:
    """A stay in one state, from entering it to leaving it. ``tokens`` are those of the calls that were answered in it."""

    number: int
    state: str
    run: int
    first: int
    last: int
    started_at: str
    seconds: float = 0.0
    tokens: int = 0
    calls: list[ModelCall] = field(default_factory=list)
    runs: list[TestRun] = field(default_factory=list)
    changes: list[CodeChange] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)


MAX_MESSAGES, MAX_SENT = 40, 2_000_000
"""Messages of a call, and characters of them, that are shown."""

Cell = Literal["passed", "failed", "error", "unfinished", "skipped", "xfailed", "xpassed", "absent"]


@dataclass(frozen=True)
class TestRow:
    """A test over all runs. ``cells`` has an outcome and a sentence for each column of the grid.

    ``aside`` is why it was set aside, empty where it was not; ``blind`` says that its claims came out right where no
    expected value is.
    """

    test: str
    cells: tuple[tuple[Cell, str], ...]
    aside: str
    blind: bool

    __test__ = False


@dataclass(frozen=True)
class Timeline:
    """A session as a whole: its final state, its visits, its calls and its tests by runs."""

    state: SessionState
    visits: tuple[Visit, ...]
    columns: tuple[TestRun, ...]
    tests: tuple[TestRow, ...]

    @property
    def calls(self) -> tuple[ModelCall, ...]:
        """All calls to the model, in order."""
        return tuple(call for visit in self.visits for call in visit.calls)

    @property
    def changes(self) -> tuple[CodeChange, ...]:
        """All versions of the script, in order."""
        return tuple(change for visit in self.visits for change in visit.changes)


def timeline(stream: Stream) -> Timeline:
    """Read a session's events into a timeline. Raises CorruptTape for a log that cannot be folded."""
    reader = _Reader(stream)
    for event in stream.events:
        reader.read(event)
    state = reader.state
    return Timeline(state, tuple(reader.visits), tuple(reader.columns), tuple(_grid(reader.columns, state)))


class _Reader:
    """Reads one event after another into visits."""

    def __init__(self, stream: Stream) -> None:
        self.texts, self.state = stream.texts, SessionState()
        self.records = {call.seq: call for call in stream_calls(stream)}
        self.origins = PromptOrigins()
        self.visits: list[Visit] = []
        self.columns: list[TestRun] = []
        self.codes: list[str] = []
        self._asked: Requested | None = None
        self._room = MAX_COMPARED

    def read(self, event: Event) -> None:
        """Take in one event. What happens in a state belongs to it, the decision that leaves it included."""
        before, self.state = self.state, apply(self.state, event, self.texts)
        self.origins.learn(before, self.state)
        if not self.visits:
            self._enter(event)
        visit = self.visits[-1]
        visit.last, visit.seconds = event.seq, _seconds(visit.started_at, event.at)
        payload = event.payload
        if isinstance(payload, Requested):
            self._asked = payload
            self._open(visit, event, payload)
        elif isinstance(payload, CallClosed) and self._asked is not None:
            self._closed(visit, event, payload)
        if words := describe(event, self.state):
            visit.lines.append(LogLine(event.seq, event.at, event.kind, words))
        if isinstance(payload, Decided):
            self._decided(visit, event, before)
        if self.state.state != before.state and before.state != "new":
            self._enter(event)

    def _enter(self, event: Event) -> None:
        state = self.state
        self.visits.append(
            Visit(len(self.visits) + 1, state.state, state.ledger.iteration, event.seq, event.seq, event.at)
        )

    def _open(self, visit: Visit, event: Event, payload: Requested) -> None:
        if payload.effect != "ask":
            return
        known = partial(self.origins.texts, self.state, self.origins.mark())
        sent = tuple((role, self.texts[ref]) for role, ref in payload.messages)
        visit.calls.append(ModelCall(event.seq, payload.purpose, self.records.get(event.seq), sent, known))

    def _closed(self, visit: Visit, event: Event, payload: CallClosed) -> None:
        asked, self._asked = self._asked, None
        if isinstance(payload, TestsFinished):
            self._tested(visit, event, payload)
        elif asked is not None and asked.effect == "ask" and visit.calls:
            visit.calls[-1] = _answered(visit.calls[-1], payload, self.texts)
            if isinstance(payload, Answered):
                visit.tokens += payload.usage.total_input + payload.usage.total_output

    def _tested(self, visit: Visit, event: Event, payload: TestsFinished) -> None:
        report = Report.model_validate_json(self.texts[payload.report])
        gone = {q.test for q in self.state.work.quarantined}
        number = self.state.ledger.iteration + 1 if payload.purpose == "run" else 0
        bad = (
            failing(report, all_files(self.state), gone)
            if payload.purpose != "vet" and len(self.columns) < MAX_RUNS
            else ()
        )
        run = TestRun(event.seq, payload.purpose, number, report, bad)
        visit.runs.append(run)
        if payload.purpose in _SHOWN:
            self.columns.append(run)

    def _decided(self, visit: Visit, event: Event, before: SessionState) -> None:
        code = self.state.work.code
        if code == before.work.code or not code:
            return
        diagnosis = before.work.diagnosis
        causes = tuple(f"{f.test_name}: {f.root_cause}" for f in diagnosis.failures) if diagnosis else ()
        reverted = code in self.codes
        self.codes.append(code)
        change = CodeChange(
            event.seq, len(self.codes), code, self._difference(before.work.code, code), causes, reverted
        )
        visit.changes.append(change)

    def _difference(self, old: str, new: str) -> str:
        """Return the difference of two versions, as long as comparing them takes no longer than a page may."""
        size = (1 + old.count("\n")) * (1 + new.count("\n"))
        if size > self._room:
            return "(too much to compare line by line)"
        self._room -= size
        return unified(old, new)


_SHOWN = ("run", "confirm", "oracle")
MAX_COMPARED = 30_000_000  # pairs of lines, of all versions of the script together
MAX_RUNS = 200  # whose failing tests are told one by one


def _answered(call: ModelCall, payload: CallClosed, texts: Mapping[str, str]) -> ModelCall:
    reply = thoughts = refusal = model = ""
    if isinstance(payload, Answered):
        reply, thoughts = (
            texts[payload.text] if payload.text else "",
            texts[payload.reasoning] if payload.reasoning else "",
        )
        refusal, model = texts[payload.refusal] if payload.refusal else "", payload.model
    elif isinstance(payload, CallRefused | GaveUp):
        refusal = texts[payload.message]
    elif isinstance(payload, CallLost):
        refusal = "its outcome will never be known: the process ended while it was made"
    return replace(
        call, outcome=type(payload).__name__, reply=reply, thoughts=thoughts, refusal=refusal, answered_by=model
    )


def _grid(columns: list[TestRun], state: SessionState) -> list[TestRow]:
    """Return the tests by runs, in the order in which they were first seen."""
    aside = {q.test: q.words or q.reason for q in state.work.quarantined}
    flaky = {*evidence_of(state).flaky}
    aside |= dict.fromkeys(flaky, "flaky: it passes and fails by turns")
    blind = {*state.work.confirmation.tests} if state.work.confirmation else set[str]()
    results = [{t.id: t for t in column.report.tests} for column in columns]
    names = dict.fromkeys(test for column in results for test in column)
    return [
        TestRow(
            name, tuple(_cell(column.get(name)) for column in results), aside.get(name, ""), function_id(name) in blind
        )
        for name in names
    ]


def _cell(result: TestResult | None) -> tuple[Cell, str]:
    if result is None:
        return "absent", "it did not run"
    said = " ".join(f"{result.exception}: {result.message}".split()) if result.exception else ""
    return result.outcome, f"{result.outcome}{f': {said[:300]}' if said else ''}"


def _seconds(start: str, end: str) -> float:
    try:
        first, last = (datetime.fromisoformat(at.replace("Z", "+00:00")) for at in (start, end))
    except ValueError:  # a day that there is not, on a tape from elsewhere
        return 0.0
    return max(0.0, (last - first).total_seconds())
