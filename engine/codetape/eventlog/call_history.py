"""Events to what is kept of calls. A store keeps it as events are added; everybody else derives it here.

It reads payloads and no blobs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

from codetape.domain.canonical import canonical, sha256
from codetape.domain.money import picodollars
from codetape.errors import CorruptTape
from codetape.eventlog.events import (
    EXTERNAL_CAUSES,
    Answered,
    CallClosed,
    CodeReverted,
    Decided,
    GaveUp,
    Payload,
    Requested,
    SessionForked,
    SessionStarted,
    Suspended,
    Transition,
    unanswered,
)
from codetape.eventlog.kept_call import CallLabels, KeptCall
from codetape.eventlog.stored_event import StoredEvent
from codetape.eventlog.upcasters import decode_payload


def begun(session: str, seq: int, at: str, asked: Requested, state: str, iteration: int) -> KeptCall:
    """Return a call that is about to be made, in a state and after a number of runs of the tests."""
    reserved = asked.input_estimate + asked.max_output_tokens
    return KeptCall(session, seq, at, asked.purpose, asked.fingerprint, state, iteration, reserved)


def after(call: KeptCall, payload: Payload) -> KeptCall:
    """Return a session's last call after one more event of its session."""
    if isinstance(payload, CallClosed):
        return _closed(call, payload) if not call.outcome and payload.call == call.name else call
    if isinstance(payload, Decided) and call.outcome == Answered.__name__ and call.usable is None:
        if isinstance(payload, Suspended) and payload.cause in EXTERNAL_CAUSES:
            return call  # a halt from outside is no decision: the reply is still to be decided on
        repaired = not payload.usable and payload.ledger.get("repairs") == 1
        code, tests = "code" in payload.changes, "tests" in payload.changes
        return call._replace(usable=int(payload.usable), repaired=int(repaired), code=int(code), tests=int(tests))
    return call


def _closed(call: KeptCall, payload: CallClosed) -> KeptCall:
    outcome, reserved = type(payload).__name__, call.reserved * unanswered(payload)
    if not isinstance(payload, Answered):
        tries = len(payload.tries) if isinstance(payload, GaveUp) else 0
        return call._replace(outcome=outcome, reserved=reserved, tries=tries)
    usage, price, replayed = payload.usage, payload.price, bool(payload.matched_by)
    return call._replace(
        outcome=outcome,
        reserved=reserved,
        input=usage.input,
        cache_read=usage.cache_read,
        cache_write=usage.cache_write,
        output=usage.output,
        reasoning=usage.reasoning,
        estimated=int(usage.source == "estimated"),
        cost=0 if replayed else picodollars(price.cost) if price else None,
        source="replayed" if replayed else price.source if price else "unpriced",
        price_model=price.model if price else "",
        replayed=int(replayed),
        tries=len(payload.tries),
        duration_ms=payload.duration_ms,
    )


def iteration_after(payload: Transition, before: int) -> int:
    """Return the number of runs of the tests after a transition: a decision holds only what it changed."""
    count = payload.ledger.get("iteration", before) if isinstance(payload, Decided) else before
    return count if isinstance(count, int) else before


def pack_digits(files: Mapping[str, str]) -> str:
    """Return the first digits of a prompt pack's hash, by the hashes of its files."""
    return sha256(canonical(dict(files)))[:8]


@dataclass
class _Session:
    """A session while its events are read."""

    labels: CallLabels
    state: str = ""
    iteration: int = 0
    calls: list[KeptCall] = field(default_factory=list)


class CallHistory:
    """Reads calls, session by session, and keeps of each session only what its forks need."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._points: dict[str, list[tuple[int, str, int]]] = {}  # by session: seq, state, iteration

    def sessions(self, events: Iterable[StoredEvent]) -> Iterator[tuple[CallLabels, list[KeptCall]]]:
        """Yield the calls of each session; events come by session and seq, parents before their forks.

        Raises CorruptTape for an invalid event.
        """
        for name, own in groupby(events, key=lambda event: event.session):
            try:
                session = self._read(name, own)
            except CorruptTape as error:
                raise CorruptTape(
                    f"Session {name} holds an invalid event: {error.message}",
                    remedy=error.remedy or "`codetape verify` says which.",
                    seq=error.seq,
                ) from error
            yield session.labels, session.calls

    def _read(self, name: str, events: Iterable[StoredEvent]) -> _Session:
        session, points = _Session(CallLabels(name, "", (), name, "", "")), list[tuple[int, str, int]]()
        for event in events:
            payload = decode_payload(event.kind, event.version, event.payload, event.seq)
            if isinstance(payload, SessionStarted):
                pack = pack_digits(payload.pack)
                labels = CallLabels(name, payload.task_id, _words(payload.tags), name, payload.model, pack)
                session = _Session(labels, payload.target)
                points.append((event.seq, session.state, 0))
            elif isinstance(payload, SessionForked):
                session = self._forked(name, payload)
                points.append((event.seq, session.state, session.iteration))
            elif isinstance(payload, Requested):
                if payload.effect == "ask":
                    call = begun(name, event.seq, event.at, payload, session.state, session.iteration)
                    session.calls.append(call)
            elif isinstance(payload, CodeReverted):
                self._reverted(session.calls)
            else:
                if session.calls:
                    session.calls[-1] = after(session.calls[-1], payload)
                if isinstance(payload, Transition):
                    session.iteration = iteration_after(payload, session.iteration)
                    session.state = payload.target or session.state
                    points.append((event.seq, session.state, session.iteration))
        self._points[name] = points
        self._sessions[name] = replace(session, calls=[])
        return session

    @staticmethod
    def _reverted(calls: list[KeptCall]) -> None:
        number = next((n for n in range(len(calls) - 1, -1, -1) if calls[n].code), None)
        if number is not None:
            calls[number] = calls[number]._replace(reverted=1)

    def _forked(self, name: str, payload: SessionForked) -> _Session:
        parent = self._sessions.get(payload.parent)
        labels = parent.labels if parent else CallLabels(name, "", (), payload.parent, "", "")
        before = [p for p in self._points.get(payload.parent, []) if p[0] <= payload.seq]
        state, iteration = before[-1][1:] if before else ("", 0)
        labels = labels._replace(
            session=name,
            tags=(*labels.tags, *_words(payload.tags)),
            model=payload.model or labels.model,
            prompts=pack_digits(payload.pack) if payload.pack else labels.prompts,
        )
        return _Session(labels, state, iteration)


def _words(tags: Iterable[str]) -> tuple[str, ...]:
    """Return labels as lists show them, which put a comma between two: one from elsewhere may hold some."""
    return tuple(filter(None, ",".join(tags).split(",")))
