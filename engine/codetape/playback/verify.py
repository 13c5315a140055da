"""Whether a log says what happened: every hash, the chain, the blobs, the machine's moves, the decisions derived again.

Every defect is reported, not only the first. A forgery in a chain that was hashed again shows where decisions no longer
follow from what was recorded. A consistent forgery, or a tail that was cut, shows only against a head hash that was
kept elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

from codetape.domain.canonical import sha256
from codetape.errors import CodetapeError, CorruptTape, Divergence
from codetape.eventlog.envelope import Event, decode, decode_covered
from codetape.eventlog.events import ContentForgotten, refs
from codetape.eventlog.fold import apply
from codetape.eventlog.hash_chain import check_blobs
from codetape.eventlog.session_state import SessionState
from codetape.eventlog.stored_event import GENESIS, StoredEvent, envelope
from codetape.eventlog.structure import legal
from codetape.playback.strict_replay import DriftedEvent, Replayed, replay
from codetape.ports import Stream

What = Literal[
    "form", "edited", "moved", "missing", "inserted", "unreadable", "text", "illegal", "decision", "head", "list"
]
CORRUPT = ("form", "edited", "moved", "missing", "inserted", "unreadable", "text", "illegal", "head")


@dataclass(frozen=True)
class Defect:
    """One defect: its event, its kind, and a message."""

    seq: int | None
    what: What
    message: str


Judgement = Literal["sound", "not settled", "not sound"]


@dataclass(frozen=True)
class Verified:
    """The result of verifying one session. ``derived`` counts the requests and decisions that were derived again.

    Without ``content`` none was: blobs were left out or forgotten, and only hashes, chain and the machine's moves were
    checked. ``decoded`` are the events, of a log in which nothing was edited or is missing.
    """

    session: str
    events: int
    head: str
    findings: tuple[Defect, ...]
    derived: int = 0
    drift: tuple[DriftedEvent, ...] = ()
    run: SessionState | None = None
    content: bool = True
    decoded: tuple[Event, ...] = ()

    @property
    def judgement(self) -> Judgement:
        """What was found, in the words of every command. With drift nothing is settled: a difference may be another
        version's doing, or a forgery."""
        return "not sound" if self.findings else "not settled" if self.drift else "sound"

    @property
    def sound(self) -> bool:
        """Whether no defect was found, and all was derived as it stands."""
        return self.judgement == "sound"

    @property
    def exit_code(self) -> int:
        """The exit code of every command that judges: 1 where something was edited or is missing, 102 where decisions do
        not follow, 103 where these versions cannot settle it."""
        if any(finding.what in CORRUPT for finding in self.findings):
            return 1
        return {"not sound": 102, "not settled": 103, "sound": 0}[self.judgement]


def verify(rows: Sequence[StoredEvent], texts: Mapping[str, str], *, head: str = "", content: bool = True) -> Verified:
    """Examine a session's stored rows, in the order of their seq, and the blobs that could be read.

    ``head`` is the hash that the last event must have, or its first digits, as kept elsewhere. Blobs may be missing
    without ``content``, or where the session says that its content was forgotten.
    """
    covered = [row.covered for row in rows]
    findings, events = _links(rows, covered), []
    for row in compress(rows, covered):  # an edited one is reported by its hash already
        try:
            events.append(decode_covered(row))
        except CorruptTape as error:
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
        return Verified(session, len(rows), last, _in_order(findings), content=False, decoded=tuple(events))
    replayed: Replayed | None = None
    try:
        # a replay folds as it goes; not `whole`, for an interrupted session is no forgery
        replayed = replay(Stream(tuple(events), texts))
    except Divergence as error:
        findings.append(Defect(error.seq, "decision", error.message))
    except CodetapeError as error:
        findings.append(Defect(getattr(error, "seq", None), "illegal", str(error)))
    derived, drift = (replayed.derived, replayed.drift) if replayed else (0, ())
    run = replayed.run if replayed else None
    return Verified(session, len(rows), last, _in_order(findings), derived, drift, run, decoded=tuple(events))


def readable(rows: Sequence[StoredEvent], texts: Mapping[str, str]) -> tuple[Stream, str]:
    """Return the longest prefix of events that can be read and folded, and what ended it; empty where all could."""
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


def _links(rows: Sequence[StoredEvent], covered: Sequence[bool]) -> list[Defect]:
    """Return what is wrong with hashes, order and gaps; ``covered`` says of each row whether its hash covers it."""
    defects: list[Defect] = []
    expected, previous = 0, GENESIS
    seq_by_hash = {row.hash: row.seq for row in rows}
    for row, whole in zip(rows, covered, strict=True):
        where = f"{row.session}:{row.seq}"
        if row.seq > expected:
            gap = f"{expected}" if row.seq == expected + 1 else f"{expected} to {row.seq - 1}"
            defects.append(Defect(expected, "missing", f"{row.session}: event {gap} is missing."))
        elif row.seq < expected:
            defects.append(Defect(row.seq, "inserted", f"{where} is there twice, or out of order."))
        broken = row.prev_hash != previous and row.seq == expected
        if not whole:
            defects.append(_edited(row, seq_by_hash))
        elif broken and row.prev_hash in seq_by_hash:
            order = f"{where} follows event {seq_by_hash[row.prev_hash]}, and not the one before it"
            defects.append(
                Defect(row.seq, "inserted", f"{order}: what lies between was inserted, or the order was changed.")
            )
        elif broken:
            defects.append(
                Defect(
                    row.seq,
                    "inserted",
                    f"{where} does not follow its predecessor: it was put there, or the one before it was replaced.",
                )
            )
        expected, previous = row.seq + 1, row.hash
    return defects


def _edited(row: StoredEvent, seq_by_hash: Mapping[str, int]) -> Defect:
    """Return the defect of an event whose hash does not match: it was moved, or its content was edited."""
    where = f"{row.session}:{row.seq}"
    own = seq_by_hash.get(row.prev_hash, -1) + 1
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
    defects = []
    for event in events:
        if missing := [ref for ref in refs(event.payload) if ref not in texts]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            message = (
                f"{event.session}:{event.seq} {event.kind}: its text {missing[0][:12]}{more} is missing, or was edited."
            )
            defects.append(Defect(event.seq, "text", message))
    return defects


def _other_head(rows: Sequence[StoredEvent], head: str) -> Defect:
    at = next((row.seq for row in rows if row.hash.startswith(head)), None)
    if at is not None:
        return Defect(at, "head", f"The given head is that of event {at}: {len(rows) - at - 1} events came after it.")
    return Defect(None, "head", "No event has the given head: the tail was cut off, or the chain is another one.")


def _in_order(findings: Sequence[Defect]) -> tuple[Defect, ...]:
    return tuple(sorted(findings, key=lambda finding: -1 if finding.seq is None else finding.seq))
