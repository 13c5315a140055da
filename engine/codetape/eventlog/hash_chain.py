"""Checks that events follow each other, and that the blobs they refer to are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codetape.errors import CorruptTape
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import refs
from codetape.eventlog.stored_event import GENESIS


def check_chain(events: Iterable[Event]) -> None:
    """Raise CorruptTape at the first gap, or the first event that does not follow its predecessor."""
    expected, previous, session = 0, GENESIS, ""
    for event in events:
        if session and event.session != session and event.kind != "SessionForked":
            raise CorruptTape(
                f"{event.session}:{event.seq} follows an event of session {session}, and is no fork.", seq=event.seq
            )
        if event.seq != expected:
            raise CorruptTape(f"{event.session}:{expected} is missing: {event.seq} follows.", seq=expected)
        if event.prev_hash != previous:
            raise CorruptTape(f"{event.session}:{event.seq} does not follow its predecessor.", seq=event.seq)
        expected, previous, session = expected + 1, event.hash, event.session


def check_blobs(events: Iterable[Event], texts: Mapping[str, str]) -> None:
    """Raise CorruptTape at the first event that refers to a missing blob."""
    for event in events:
        for ref in refs(event.payload):
            if ref not in texts:
                message = f"{event.session}:{event.seq} {event.kind} refers to the text {ref}, which is missing."
                raise CorruptTape(message, seq=event.seq)
