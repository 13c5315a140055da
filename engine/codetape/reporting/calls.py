"""Every call to a model, with its cost and what became of its output, derived from the log alone.

It reads payloads and no blobs, so that a thousand sessions take about a second.

Dispositions: *accepted*, its output is part of the result, or led to it; *superseded*, later output replaced it;
*rejected*, the change was reverted, or the server refused the request's form; *repair*, it could not be used and was
requested again; *unusable*, it could not be used and nothing came of it; *transport retry*, it was lost or given up,
and made again; *abandoned*, it was lost, given up, or never decided on.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from codetape.domain.canonical import canonical, sha256
from codetape.domain.money import dollars, picodollars
from codetape.errors import CorruptTape
from codetape.eventlog.envelope import stored
from codetape.eventlog.events import (
    EXTERNAL_CAUSES,
    Answered,
    CallClosed,
    CodeReverted,
    Decided,
    GaveUp,
    Requested,
    SessionForked,
    SessionStarted,
    Suspended,
    Transition,
    unanswered,
)
from codetape.eventlog.stored_event import StoredEvent
from codetape.eventlog.upcasters import decode_payload
from codetape.ports import CALL_EVENT_KINDS, Stream

Disposition = Literal["accepted", "superseded", "rejected", "repair", "unusable", "transport retry", "abandoned"]
DISPOSITIONS: tuple[Disposition, ...] = (
    "accepted",
    "superseded",
    "rejected",
    "repair",
    "unusable",
    "transport retry",
    "abandoned",
)


@dataclass(frozen=True)
class CallRecord:
    """One call. Token buckets are disjoint. ``cost`` is in picodollars: None without a price or a reply, 0 if replayed.

    ``lineage`` is the session at the root of the forks, ``prompts`` the first digits of the prompt pack's hash.
    ``reserved`` tokens, of a lost call or of tries without an answer, may have been billed. ``tries`` failed in
    transport before the reply came.
    """

    session: str
    seq: int
    task: str
    tags: tuple[str, ...]
    lineage: str
    model: str
    provider: str
    prompts: str
    purpose: str
    state: str
    iteration: int
    at: str
    disposition: Disposition
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False
    cost: int | None = None
    source: str = ""
    price_model: str = ""
    replayed: bool = False
    reserved: int = 0
    tries: int = 0
    duration_ms: int = 0

    @property
    def name(self) -> str:
        """The call's name: session and seq."""
        return f"{self.session}:{self.seq}"

    @property
    def paid(self) -> str:
        """What it cost, in a word for a table."""
        if self.replayed:
            return "replayed"
        return f"${dollars(self.cost)}" if self.cost is not None else self.source or "no answer"

    @property
    def total_input(self) -> int:
        """All input tokens."""
        return self.input + self.cache_read + self.cache_write

    @property
    def total_output(self) -> int:
        """All output tokens."""
        return self.output + self.reasoning


@dataclass
class _Open:
    """A call while its session is read: the draft of its record, and what was decided on it."""

    record: CallRecord
    fingerprint: str
    outcome: str = ""
    usable: bool | None = None
    repaired: bool = False
    changes: frozenset[str] = frozenset()
    reverted: bool = False


@dataclass
class _Session:
    """The state of a session while its events are read."""

    task: str = ""
    tags: tuple[str, ...] = ()
    lineage: str = ""
    model: str = ""
    prompts: str = ""
    state: str = ""
    iteration: int = 0
    calls: list[_Open] = field(default_factory=list)


class CallReader:
    """Reads calls, session by session, and keeps of each session only what its forks need.

    ``parents`` are the sessions that have forks, if that is known: nothing is kept of the others.
    """

    def __init__(self, parents: Collection[str] | None = None) -> None:
        self._parents = parents
        self._sessions: dict[str, _Session] = {}
        self._points: dict[str, list[tuple[int, str, int]]] = {}  # by session: seq, state, iteration

    def calls(self, events: Iterable[StoredEvent]) -> Iterator[CallRecord]:
        """Yield the calls of sessions whose events come in the order of session and seq, parents before their forks."""
        for name, own in groupby(events, key=lambda event: event.session):
            try:
                yield from self._session(name, own)
            except CorruptTape as error:
                raise CorruptTape(
                    f"Session {name} holds an invalid event: {error.message}",
                    remedy=error.remedy or "`codetape verify` says which.",
                    seq=error.seq,
                ) from error

    def _session(self, name: str, events: Iterable[StoredEvent]) -> Iterator[CallRecord]:
        state = _Session(lineage=name)
        points: list[tuple[int, str, int]] = []
        open_: _Open | None = None
        for event in events:
            payload = decode_payload(event.kind, event.version, event.payload, event.seq)
            if isinstance(payload, SessionStarted):
                pack = _pack(payload.pack)
                state = _Session(payload.task_id, payload.tags, name, payload.model, pack, payload.target)
                continue
            if isinstance(payload, SessionForked):
                state = self._forked(payload)
                continue
            if isinstance(payload, Requested):
                open_ = None
                if payload.effect == "ask":
                    open_ = _Open(_record(event, payload, state), payload.fingerprint)
                    state.calls.append(open_)
            elif isinstance(payload, CallClosed):
                if open_ is not None and not open_.outcome and payload.call == open_.record.name:
                    open_.outcome = event.kind
                    open_.record = _closed(open_.record, payload)
            elif isinstance(payload, CodeReverted):
                code_call = next((o for o in reversed(state.calls) if "code" in o.changes), None)
                if code_call is not None:
                    code_call.reverted = True
            elif isinstance(payload, Transition):
                if isinstance(payload, Decided):
                    _decide(open_, payload)
                    state.iteration = _iteration(payload, state.iteration)
                state.state = payload.target or state.state
                points.append((event.seq, state.state, state.iteration))
        if self._parents is None or name in self._parents:
            self._points[name] = points
            self._sessions[name] = replace(state, calls=[])
        yield from _with_dispositions(state.calls)

    def _forked(self, payload: SessionForked) -> _Session:
        parent = self._sessions.get(payload.parent, _Session(lineage=payload.parent))
        before = [p for p in self._points.get(payload.parent, []) if p[0] <= payload.seq]
        state, iteration = before[-1][1:] if before else (parent.state, 0)
        tags = (*parent.tags, *payload.tags)
        pack = _pack(payload.pack) if payload.pack else parent.prompts
        return _Session(parent.task, tags, parent.lineage, payload.model or parent.model, pack, state, iteration)


def _decide(open_: _Open | None, payload: Decided) -> None:
    """Record the decision on the open call. A halt from outside is none: the reply is still to be decided on."""
    halt = isinstance(payload, Suspended) and payload.cause in EXTERNAL_CAUSES
    if open_ is None or open_.outcome != "Answered" or open_.usable is not None or halt:
        return
    open_.usable = payload.usable
    open_.repaired = not payload.usable and payload.ledger.get("repairs") == 1
    open_.changes = frozenset(payload.changes)


def _iteration(payload: Decided, before: int) -> int:
    count = payload.ledger.get("iteration", before)  # a ledger holds only what the decision changed
    return count if isinstance(count, int) else before


def _record(event: StoredEvent, payload: Requested, state: _Session) -> CallRecord:
    provider, sign, _ = state.model.partition(":")
    return CallRecord(
        session=event.session,
        seq=event.seq,
        task=state.task,
        tags=state.tags,
        lineage=state.lineage,
        model=state.model,
        provider=provider if sign else "",
        prompts=state.prompts,
        purpose=payload.purpose,
        state=state.state,
        iteration=state.iteration,
        at=event.at,
        disposition="abandoned",
        reserved=payload.input_estimate + payload.max_output_tokens,
    )


def _pack(files: Mapping[str, str]) -> str:
    return sha256(canonical(dict(files)))[:8]


def _closed(call: CallRecord, payload: CallClosed) -> CallRecord:
    reserved = call.reserved * unanswered(payload)
    if not isinstance(payload, Answered):
        tries = len(payload.tries) if isinstance(payload, GaveUp) else 0
        return replace(call, reserved=reserved, tries=tries)
    usage, price, replayed = payload.usage, payload.price, bool(payload.matched_by)
    cost = 0 if replayed else picodollars(price.cost) if price else None
    return replace(
        call,
        input=usage.input,
        cache_read=usage.cache_read,
        cache_write=usage.cache_write,
        output=usage.output,
        reasoning=usage.reasoning,
        estimated=usage.source == "estimated",
        cost=cost,
        source="replayed" if replayed else price.source if price else "unpriced",
        price_model=price.model if price else "",
        replayed=replayed,
        reserved=reserved,
        tries=len(payload.tries),
        duration_ms=payload.duration_ms,
    )


def _with_dispositions(calls: list[_Open]) -> Iterator[CallRecord]:
    """Yield a session's calls with their dispositions."""
    # calls with output of their own come first: what a diagnosis or a check led to decides on its disposition
    last_code = max((i for i, o in enumerate(calls) if "code" in o.changes and not o.reverted), default=-1)
    last_tests = max(
        (i for i, o in enumerate(calls) if o.record.purpose == "tests" and "tests" in o.changes), default=-1
    )
    dispositions: dict[int, Disposition] = {}
    for i, entry in enumerate(calls):
        if (disposition := _unusual(entry, calls[i + 1 : i + 2])) is not None:
            dispositions[i] = disposition
        elif entry.record.purpose == "code":
            dispositions[i] = "rejected" if entry.reverted else "accepted" if i == last_code else "superseded"
        elif entry.record.purpose in ("tests", "fix_tests"):
            dispositions[i] = "accepted" if i >= last_tests and "tests" in entry.changes else "superseded"
        elif entry.record.purpose in ("plan", "second_opinion", "packages", "replace_package"):
            dispositions[i] = "accepted"
    for i, entry in enumerate(calls):
        if i not in dispositions:
            dispositions[i] = _served(i, entry, calls, dispositions)
    for i, entry in enumerate(calls):
        yield replace(entry.record, disposition=dispositions[i])


def _unusual(entry: _Open, following: list[_Open]) -> Disposition | None:
    """Return the disposition of a call without usable output; None for the others."""
    if entry.outcome == "CallRefused":
        return "rejected"
    if entry.outcome != "Answered":
        return "transport retry" if following and following[0].fingerprint == entry.fingerprint else "abandoned"
    if entry.usable is None:
        return "abandoned"
    if not entry.usable:
        return "repair" if entry.repaired else "unusable"
    return None


def _served(i: int, entry: _Open, calls: list[_Open], dispositions: Mapping[int, Disposition]) -> Disposition:
    """Return the disposition of a call without output of its own: a diagnosis shares that of what it led to, a check
    that of what it checked."""
    outputs = ("code", "tests", "fix_tests")
    if entry.record.purpose == "diagnose":
        next_diagnosis = next(
            (j for j in range(i + 1, len(calls)) if calls[j].record.purpose == "diagnose"), len(calls)
        )
        served = [
            dispositions[j]
            for j in range(i + 1, next_diagnosis)
            if j in dispositions and calls[j].record.purpose in outputs
        ]
    else:
        served = [
            dispositions[j] for j in range(i - 1, -1, -1) if j in dispositions and calls[j].record.purpose in outputs
        ][:1]
    return "accepted" if "accepted" in served else "superseded"


def call_row(call: CallRecord) -> dict[str, Any]:
    """Return a call as a flat record, for tables; money in dollars, empty without a price."""
    cost = "" if call.cost is None else dollars(call.cost)
    return {
        **vars(call),
        "tags": ",".join(call.tags),
        "cost": cost,
        "total_input": call.total_input,
        "total_output": call.total_output,
    }


def call_events(stream: Stream) -> Iterator[StoredEvent]:
    """Yield a stream's stored events of calls, for sessions that come from a tape."""
    return (stored(event) for event in stream.events if event.kind in CALL_EVENT_KINDS)
