"""The log itself: events appended, read and added from tapes, each with its hashes and its chain checked."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple, NoReturn

from codetape.domain.budget import Reservation
from codetape.errors import BudgetSpent, ContentGone, SessionNotFound, StaleLease, StoreError
from codetape.eventlog.envelope import Event, decode, encode, stored
from codetape.eventlog.events import CallLost, ContentForgotten, Payload, SessionForked, refs
from codetape.eventlog.hash_chain import check_blobs, check_chain
from codetape.eventlog.stored_event import GENESIS
from codetape.eventlog.structure import open_request
from codetape.ports import Stream
from codetape_adapters.stores.sqlite import blobs, recovery, reservations
from codetape_adapters.stores.sqlite.blobs import MAX_TEXT
from codetape_adapters.stores.sqlite.connection import Transaction, one, translated
from codetape_adapters.stores.sqlite.projection import project

_STANDING = (
    "SELECT l.token, l.held, e.seq FROM leases l LEFT JOIN"
    " (SELECT seq FROM events WHERE session = ? ORDER BY seq DESC LIMIT 1) e WHERE l.session = ?"
)
_NEXT_EVENT = (
    "INSERT INTO events SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8"
    " WHERE EXISTS (SELECT 1 FROM leases WHERE session = ?1 AND token = ?9 AND held)"
    " AND CASE ?2 WHEN 0 THEN ?7 = ?10"
    " ELSE EXISTS (SELECT 1 FROM events WHERE session = ?11 AND seq = ?2 - 1 AND hash = ?7) END"
    " AND (?1 = ?11 OR NOT EXISTS (SELECT 1 FROM events WHERE session = ?1))"
    " AND NOT EXISTS (SELECT 1 FROM events WHERE session = ?1 AND seq = ?2)"
)


class Entry(NamedTuple):
    """An event to append, with its texts, and their bytes."""

    event: Event
    texts: Mapping[str, str]
    packed: list[tuple[str, bytes]]


def entry(event: Event, texts: Mapping[str, str]) -> Entry:
    """Make an event ready to append. Raises StoreError for a text that is too long."""
    packed = [(key, text.encode()) for key, text in texts.items()]
    if any(len(data) > MAX_TEXT for _, data in packed):
        raise StoreError(f"Event {event.session}:{event.seq} holds a text of more than {MAX_TEXT >> 20} MB.")
    return Entry(event, texts, packed)


def append(db: Connection, path: Path, entries: Sequence[Entry], token: int, reserve: Reservation | None) -> None:
    """Append events of one session in one transaction that checks lease, order and budgets.

    Raises BudgetSpent, where what comes before the last event stands, StaleLease and StoreError.
    """
    refused: BudgetSpent | None = None
    with Transaction(db, path):
        for number, (event, texts, packed) in enumerate(entries, 1):
            if reserve is not None and number == len(entries):
                try:
                    reservations.reserve(db, event.session, reserve)
                except BudgetSpent as error:
                    refused = error
                    break
            payload = event.payload
            predecessor = payload.parent if type(payload) is SessionForked else event.session
            insertion = db.execute(_NEXT_EVENT, (*stored(event), token, GENESIS, predecessor))
            if not insertion.rowcount:
                _refuse(db, event, token)
            blobs.put(db, packed)
            project(db, event, texts)
    if refused is not None:
        raise refused


def _refuse(db: Connection, event: Event, token: int) -> NoReturn:
    """Raise the reason why an event was not appended."""
    row = one(db, _STANDING, event.session, event.session)
    if row is None or row[0] != token or not row[1]:
        raise StaleLease(
            f"Session {event.session} was taken over by another process: event {event.seq} was not written."
        )
    due = row[2] + 1 if row[2] is not None else 0
    raise StoreError(f"Event {event.session}:{event.seq} does not follow the log, which is at {due}.")


def read(db: Connection, path: Path, session: str) -> Stream:
    """Return a session's events and blobs; hashes and chain are checked. Raises SessionNotFound, ContentGone,
    CorruptTape."""
    events = whole_chain(db, path, session)
    if isinstance(events[-1].payload, ContentForgotten):
        raise ContentGone(
            f"The content of session {session} was forgotten at {events[-1].at}.",
            remedy="`codetape verify` and `codetape spend` still tell what its hashes and figures say.",
        )
    with translated(path):
        texts = blobs.texts(db, {ref for event in events for ref in refs(event.payload)})
    check_blobs(events, texts)
    return Stream(tuple(events), texts)


def put(db: Connection, stream: Stream, check_free: Callable[[str], object]) -> int:
    """Add a stream that was read from a tape; return how many of its events were new.

    ``check_free`` raises LeaseHeld for a session that somebody drives. Raises StoreError where the chains diverge.
    """
    added = 0
    for session, events in groupby(stream.events, key=lambda event: event.session):
        chain = list(events)
        hashes = dict(db.execute("SELECT seq, hash FROM events WHERE session = ?", (session,)).fetchall())
        missing = [event for event in chain if _is_new(event, hashes)]
        if missing and hashes and (missing[0].seq != max(hashes) + 1 or len(hashes) != max(hashes) + 1 - chain[0].seq):
            raise StoreError(
                f"Session {session} is in the database already, and damaged there: `codetape verify {session}` says how.",
                remedy="Nothing was imported; use another database with --db.",
            )
        if missing:
            check_free(session)
        last = one(db, "SELECT kind FROM events WHERE session = ? ORDER BY seq DESC LIMIT 1", session)
        if last and last[0] == ContentForgotten.__name__:
            raise StoreError(f"The content of session {session} was forgotten here: it is not put back.")
        for event in chain:
            blobs.put(db, [(ref, stream.texts[ref].encode()) for ref in refs(event.payload)])
        for event in missing:
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", stored(event))
            project(db, event, stream.texts)
        added += len(missing)
    return added


def _is_new(event: Event, stored_hashes: Mapping[int, str]) -> bool:
    stored_hash = stored_hashes.get(event.seq)
    if stored_hash is not None and stored_hash != event.hash:
        raise StoreError(
            f"Session {event.session} is in the database already, with another event {event.seq} than the tape has.",
            remedy="Nothing was imported; use another database with --db to look at both.",
        )
    return stored_hash is None


def whole_chain(db: Connection, path: Path, session: str) -> list[Event]:
    """Return a session's events, those that it inherits before them. Raises SessionNotFound, CorruptTape."""
    with translated(path):
        rows = recovery.chain_of(lambda name: recovery.stored_rows(db, name), session)
    if not rows:
        raise SessionNotFound(f"There is no session {session} in {path}.", remedy="`codetape list` shows them.")
    chain = [decode(row) for row in rows]
    check_chain(chain)
    return chain


def farewell(session: str, chain: Sequence[Event], now: float) -> list[Event]:
    """Return the events that end a forgotten session: an open call is lost, and its content forgotten."""
    if isinstance(chain[-1].payload, ContentForgotten):
        return []
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    own = {ref for event in chain if event.session == session for ref in refs(event.payload)}
    last, ending = chain[-1], list[Event]()
    payloads: list[Payload] = [ContentForgotten(texts=len(own))]
    if asked := open_request(chain):
        payloads.insert(0, CallLost(call=asked.call, input_estimate=asked.input_estimate))
    for payload in payloads:
        last = encode(session, last.seq + 1, at, payload, last.hash)
        ending.append(last)
    return ending
