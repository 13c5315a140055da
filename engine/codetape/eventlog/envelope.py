"""Events as the log holds them: envelope and codec. Hashes cover stored bytes, and are checked before decoding."""

from __future__ import annotations

from dataclasses import dataclass

from codetape.domain.canonical import canonical, sha256
from codetape.errors import CorruptTape
from codetape.eventlog.events import Payload
from codetape.eventlog.stored_event import StoredEvent, envelope
from codetape.eventlog.upcasters import decode_payload


@dataclass(frozen=True, slots=True)
class Event:
    """A fact at (session, seq). ``hash`` covers the stored canonical JSON of everything else.

    ``stored_version`` and ``stored_payload`` are what the log holds; ``payload`` is that, upcast.
    """

    session: str
    seq: int
    kind: str
    stored_version: int
    at: str
    stored_payload: str
    prev_hash: str
    hash: str
    payload: Payload


def stored(event: Event) -> StoredEvent:
    """Return an event as it is stored."""
    e = event
    return StoredEvent(e.session, e.seq, e.kind, e.stored_version, e.at, e.stored_payload, e.prev_hash, e.hash)


def encode(session: str, seq: int, at: str, payload: Payload, prev_hash: str) -> Event:
    """Make the event that follows ``prev_hash`` in a session's chain."""
    kind, text = type(payload).__name__, canonical(payload.model_dump(mode="json"))
    digest = sha256(envelope(session, seq, kind, payload.version, at, text, prev_hash))
    return Event(session, seq, kind, payload.version, at, text, prev_hash, digest, payload)


def decode(row: StoredEvent) -> Event:
    """Read one stored event; its hash is checked over the stored bytes, before upcasting.

    Raises CorruptTape with the event's seq.
    """
    if not row.covered:
        where = f"{row.session}:{row.seq}"
        raise CorruptTape(f"{where} was edited: its hash does not cover what it says.", seq=row.seq)
    return decode_covered(row)


def decode_covered(row: StoredEvent) -> Event:
    """As `decode`, where the hash was checked already."""
    return Event(*row, decode_payload(row.kind, row.version, row.payload, row.seq))
