"""Whether a log says what happened: every hash, the chain, the texts, the machine's legality, the decisions derived
again.

Everything that is wrong is found and named, and not only the first. What was forged in a chain that was hashed again is
found where decisions no longer follow from what was recorded; what was forged consistently, and a tail that was cut, by
a head hash that was kept elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codetape.domain.canonical import sha256
from codetape.errors import CodetapeError, CorruptTape, Divergence
from codetape.eventlog.envelope import GENESIS, Event, StoredEvent, decode, envelope
from codetape.eventlog.events import ContentForgotten, refs
from codetape.eventlog.fold import apply
from codetape.eventlog.hash_chain import check_blobs
from codetape.eventlog.session_state import SessionState
from codetape.eventlog.structure import legal
from codetape.playback.strict_replay import DriftedEvent, Replayed, replay
from codetape.ports import Stream

What = Literal[
    "form", "edited", "moved", "missing", "inserted", "unreadable", "text", "illegal", "decision", "head", "list"
]
CORRUPT = ("form", "edited", "moved", "missing", "inserted", "unreadable", "text", "illegal", "head")


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong: at which event, what kind of thing, and in words."""

    seq: int | None
    what: What
    message: str


@dataclass(frozen=True)
class Verified:
    """What came of verifying one session. ``derived`` counts the requests and decisions that were derived again.

    Without ``content`` none was: texts were left out or forgotten, and hashes, chain and the machine's moves are what
    was checked.
    """

    session: str
    events: int
    head: str
    findings: tuple[Defect, ...]
    derived: int = 0
    drift: tuple[DriftedEvent, ...] = ()
    run: SessionState | None = None
    content: bool = True

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, as far as could be told."""
        return not self.findings

    @property
    def settled(self) -> bool:
        """Whether these versions could tell: what they derive differently than the tape's may be drift, or a
        forgery."""
        return not self.drift


def verify(rows: Sequence[StoredEvent], texts: Mapping[str, str], *, head: str = "", content: bool = True) -> Verified:
    """Examine a session's stored rows, in the order of their seq, and the texts that could be read.

    ``head`` is the hash that the last event is to have, or its first digits, as kept elsewhere. Without ``content``
    texts may be
    missing; so they may where the session says that it was forgotten.
    """
    findings, events = _links(rows), []
    for row in rows:
        try:
            events.append(decode(row))
        except CorruptTape as error:
            if row.covered:
                findings.append(Defect(row.seq, "unreadable", str(error)))
    missing = _missing_texts(events, texts)
    content = content and not (missing and events and isinstance(events[-1].payload, ContentForgotten))
    findings += missing if content else []
    if not rows:
        findings.append(Defect(None, "missing", "There are no events."))
    session, last = (rows[-1].session, rows[-1].hash) if rows else ("", "")
    if head and not last.startswith(head):
        findings.append(_other_head(rows, head))
    if any(finding.what in CORRUPT and finding.what != "head" for finding in findings) or not rows:
        return Verified(session, len(rows), last, _in_order(findings))
    if not content:
        try:
            legal(events)
        except CorruptTape as error:
            findings.append(Defect(error.seq, "illegal", str(error)))
        return Verified(session, len(rows), last, _in_order(findings), content=False)
    done: Replayed | None = None
    try:
        # a replay folds as it goes; one that was interrupted is no forgery
        done = replay(Stream(tuple(events), texts), whole=False)
    except Divergence as error:
        findings.append(Defect(error.seq, "decision", error.message))
    except CodetapeError as error:
        findings.append(Defect(getattr(error, "seq", None), "illegal", str(error)))
    derived, drift = (done.derived, done.drift) if done else (0, ())
    return Verified(session, len(rows), last, _in_order(findings), derived, drift, done.run if done else None)


def readable(rows: Sequence[StoredEvent], texts: Mapping[str, str]) -> tuple[Stream, str]:
    """Return the events from the first on that can be read and followed, and what ended them; empty where all could."""
    events: list[Event] = []
    session, previous = SessionState(), GENESIS
    for row in rows:
        try:
            event = decode(row)
            if (row.seq, row.prev_hash) != (len(events), previous):
                raise CorruptTape(f"{row.session}:{row.seq} does not follow event {len(events) - 1}.", seq=row.seq)
            check_blobs([event], texts)
            session = apply(session, event, texts)
        except CorruptTape as error:
            return Stream(tuple(events), texts), str(error)
        events.append(event)
        previous = event.hash
    return Stream(tuple(events), texts), ""


def _links(rows: Sequence[StoredEvent]) -> list[Defect]:
    """Return what is wrong with hashes, order and gaps."""
    found: list[Defect] = []
    expected, previous = 0, GENESIS
    place = {row.hash: row.seq for row in rows}
    for row in rows:
        where = f"{row.session}:{row.seq}"
        if row.seq > expected:
            gone = f"{expected}" if row.seq == expected + 1 else f"{expected} to {row.seq - 1}"
            found.append(Defect(expected, "missing", f"{row.session}: event {gone} is missing."))
        elif row.seq < expected:
            found.append(Defect(row.seq, "inserted", f"{where} is there twice, or out of order."))
        broken = row.prev_hash != previous and row.seq == expected
        if not row.covered:
            found.append(_edited(row, place))
        elif broken and row.prev_hash in place:
            here = f"{where} follows event {place[row.prev_hash]}, and not the one before it"
            found.append(
                Defect(row.seq, "inserted", f"{here}: what lies between was inserted, or the order was changed.")
            )
        elif broken:
            found.append(
                Defect(
                    row.seq,
                    "inserted",
                    f"{where} does not follow its predecessor: it was put there, or the one before it was replaced.",
                )
            )
        expected, previous = row.seq + 1, row.hash
    return found


def _edited(row: StoredEvent, place: Mapping[str, int]) -> Defect:
    """Tell an event that was given another number from one whose content was changed."""
    where = f"{row.session}:{row.seq}"
    own = place.get(row.prev_hash, -1) + 1
    for seq in {own, row.seq - 1, row.seq + 1}:
        if seq >= 0 and sha256(envelope(row.session, seq, *row[2:7])) == row.hash:
            return Defect(
                row.seq,
                "moved",
                f"{where} was event {seq} when it was written: an event was deleted or inserted, or the order was "
                "changed.",
            )
    return Defect(row.seq, "edited", f"{where} ({row.kind}) was edited: its hash does not cover what it says.")


def _missing_texts(events: Sequence[Event], texts: Mapping[str, str]) -> list[Defect]:
    found = []
    for event in events:
        if gone := [ref for ref in refs(event.payload) if ref not in texts]:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            what = f"{event.session}:{event.seq} {event.kind}: its text {gone[0][:12]}{more} is missing, or was edited."
            found.append(Defect(event.seq, "text", what))
    return found


def _other_head(rows: Sequence[StoredEvent], head: str) -> Defect:
    at = next((row.seq for row in rows if row.hash.startswith(head)), None)
    if at is not None:
        return Defect(at, "head", f"The given head is that of event {at}: {len(rows) - at - 1} events came after it.")
    return Defect(None, "head", "No event has the given head: the tail was cut off, or the chain is another one.")


def _in_order(findings: Sequence[Defect]) -> tuple[Defect, ...]:
    return tuple(sorted(findings, key=lambda finding: -1 if finding.seq is None else finding.seq))
