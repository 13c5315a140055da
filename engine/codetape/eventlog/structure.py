"""What can be checked of a session whose blobs are left out or forgotten."""

from collections.abc import Iterable, Iterator, Sequence

from codetape.errors import CorruptTape
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    EXTERNAL_CAUSES,
    CallClosed,
    CallLost,
    ContentForgotten,
    Decided,
    GaveUp,
    Requested,
    SessionForked,
    SessionStarted,
    Suspended,
    TestsFinished,
)
from codetape.eventlog.fold import check_call, move
from codetape.eventlog.session_state import OpenCall, SessionState


def open_request(events: Sequence[Event]) -> Requested | None:
    """Return the request of the call that is open after the events; None where none is."""
    for event in reversed(events):
        if isinstance(event.payload, CallClosed):
            return None
        if isinstance(event.payload, Requested):
            return event.payload
    return None


def closed_calls(events: Iterable[Event]) -> Iterator[tuple[Event, Event]]:
    """Yield each request with the event that closed its call, in order; an open call has none."""
    asked: Event | None = None
    for event in events:
        if isinstance(event.payload, Requested):
            asked = event
        elif isinstance(event.payload, CallClosed) and asked is not None:
            yield asked, event
            asked = None


def legal(events: Iterable[Event]) -> None:
    """Check what can be checked without blobs. Raises CorruptTape.

    Checked are the order, sessions and forks, and the machine's moves; that every call has its name, is made where
    calls are made and is closed; that a decision on an outcome follows one; and that a success passed a test.
    """
    session, waiting, passed = SessionState(), False, None
    for event in events:
        payload = event.payload
        try:
            if event.seq != session.seq:
                raise CorruptTape(f"event {event.seq} where {session.seq} was due.")
            _belongs(session, event)
            session = move(session, payload)
            if isinstance(payload, Requested):
                check_call(session, payload, waiting=waiting)
                call = OpenCall(
                    payload.call, payload.effect, payload.purpose, payload.fingerprint, payload.input_estimate
                )
                session = session.evolve(call=call)
            elif isinstance(payload, CallClosed):
                session, waiting = session.evolve(call=None), not isinstance(payload, CallLost | GaveUp)
                passed = (
                    payload.passed
                    if isinstance(payload, TestsFinished) and payload.purpose in ("run", "oracle")
                    else passed
                )
            elif isinstance(payload, Decided) and not (
                isinstance(payload, Suspended) and payload.cause in EXTERNAL_CAUSES
            ):
                if payload.about in _EFFECTS and not waiting:
                    raise CorruptTape(f"{payload.about} is decided on, and nothing came of one.")
                waiting = False
                if payload.target == "succeeded" and getattr(payload, "confidence", "") != "untested" and not passed:
                    raise CorruptTape("it succeeded, and no test passed.")
            elif isinstance(payload, ContentForgotten):
                session = session.evolve(forgotten=True)
        except CorruptTape as error:
            raise CorruptTape(f"{event.session}:{event.seq} {event.kind}: {error}", seq=event.seq) from error
        session = session.evolve(session=event.session, seq=session.seq + 1, head=event.hash)


_EFFECTS = (
    "plan",
    "code",
    "tests",
    "diagnose",
    "verify_code",
    "verify_tests",
    "replace_package",
    "build",
    "run",
    "oracle",
)
"""What is decided only on the outcome of a call; the others may be decided without a call."""


def _belongs(session: SessionState, event: Event) -> None:
    """Check that an event belongs to the session that continues here, or forks it."""
    if isinstance(event.payload, SessionForked):
        if (event.payload.parent, event.payload.seq, event.payload.hash) != (
            session.session,
            session.seq - 1,
            session.head,
        ):
            raise CorruptTape("it continues from another event than the one before it.")
    elif session.seq and event.session != session.session:
        raise CorruptTape(f"it belongs to session {event.session}, and no fork was made.")
    elif (session.seq == 0) != isinstance(event.payload, SessionStarted):
        raise CorruptTape("a session begins with its start, and once.")
