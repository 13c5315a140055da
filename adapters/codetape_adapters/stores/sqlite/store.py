"""The log in SQLite: append-only by triggers, one durable transaction an event, one writer a session.

Timestamps are made by the caller. Nothing is changed or deleted in place, but for leases and the
`sessions` projection, which can be rebuilt from the events.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from sqlite3 import Connection
from time import time
from typing import Any, NoReturn, TypeVar

import zstandard

from codetape.domain.budget import Reservation
from codetape.errors import BudgetSpent, ContentGone, LeaseHeld, SessionNotFound, StaleLease, StoreError, UsageError
from codetape.eventlog.envelope import Event, decode, encode, stored
from codetape.eventlog.events import CallLost, ContentForgotten, Payload, SessionForked, refs
from codetape.eventlog.hash_chain import check_blobs, check_chain
from codetape.eventlog.stored_event import GENESIS, StoredEvent
from codetape.eventlog.structure import open_request
from codetape.ports import DEFAULT_STORE, Lease, RecoveredSession, SessionList, Store, Stream
from codetape_adapters.process_identity import alive, identity
from codetape_adapters.stores.sqlite import catalog, recovery, reservations
from codetape_adapters.stores.sqlite.connection import Transaction, one, open_database, translated
from codetape_adapters.stores.sqlite.forgetting import rewrite
from codetape_adapters.stores.sqlite.open_file import OpenFile
from codetape_adapters.stores.sqlite.projection import project
from codetape_adapters.stores.sqlite.recovery import MAX_TEXT, ROW, unpack

T = TypeVar("T")
_STANDING = (
    "SELECT l.token, l.held, e.seq FROM leases l LEFT JOIN"
    " (SELECT seq FROM events WHERE session = ? ORDER BY seq DESC LIMIT 1) e WHERE l.session = ?"
)
_LEASE = "SELECT token, held, host, boot, pid, process_start, since, heartbeat FROM leases WHERE session = ?"
_NEXT_EVENT = (
    "INSERT INTO events SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8"
    " WHERE EXISTS (SELECT 1 FROM leases WHERE session = ?1 AND token = ?9 AND held)"
    " AND CASE ?2 WHEN 0 THEN ?7 = ?10"
    " ELSE EXISTS (SELECT 1 FROM events WHERE session = ?11 AND seq = ?2 - 1 AND hash = ?7) END"
    " AND (?1 = ?11 OR NOT EXISTS (SELECT 1 FROM events WHERE session = ?1))"
    " AND NOT EXISTS (SELECT 1 FROM events WHERE session = ?1 AND seq = ?2)"
)
_NEW_BLOB = "INSERT INTO blobs SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE hash = ?)"


class SqliteLease(Lease):
    """A lease in the `leases` table."""

    def __init__(self, store: "SqliteStore", session: str, token: int) -> None:
        self.session, self.token, self._store = session, token, store

    def renew(self) -> None:
        """Set the heartbeat; a lost lease is found out by the next append."""
        with suppress(StoreError):
            self._store.beat(self.session, self.token, held=True)

    def release(self) -> None:
        """Release the lease."""
        with suppress(StoreError):
            self._store.beat(self.session, self.token, held=False)


class SqliteStore(Store):
    """An `EventStore` in one database file. Connections are opened on first use, one a thread."""

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time, read_only: bool = False) -> None:
        self.path = Path(path)
        self._clock = clock
        self._read_only = read_only
        self._local = threading.local()
        self._writer: ThreadPoolExecutor | None = None
        self._owner = 0

    @property
    def address(self) -> str:  # type: ignore[override]  # it does not change
        """What names this store to another process."""
        return str(self.path)

    def for_reading(self) -> "SqliteStore":
        """Return a store of the same database that cannot change it. Raises UsageError where there is none."""
        if not self.path.exists():
            raise UsageError(
                f"There is no database at {self.path}.", remedy="`codetape run` makes one; --db names another."
            )
        return SqliteStore(self.path, clock=self._clock, read_only=True)

    # ---- the port

    async def acquire(self, session: str) -> SqliteLease:
        """Take the session's lease: free, ours to take over because its process is gone, or silent for 60 s."""
        taken: list[SqliteLease] = []

        def take() -> SqliteLease:
            taken.append(SqliteLease(self, session, self._acquired(session)))
            return taken[0]

        try:
            return await self._written(take)
        except asyncio.CancelledError:
            for lease in taken:  # nobody is left who would
                lease.release()
            raise

    def _acquired(self, session: str) -> int:
        now, me = self._clock(), identity()
        with self._transaction() as db:
            token = self._check_free(db, session) + 1
            db.execute(
                "INSERT INTO leases VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?) ON CONFLICT (session) DO UPDATE SET"
                " token = excluded.token, held = 1, host = excluded.host, boot = excluded.boot, pid = excluded.pid,"
                " process_start = excluded.process_start, since = excluded.since, heartbeat = excluded.heartbeat",
                (session, token, *me, now, now),
            )
        return token

    async def append(
        self, event: Event, texts: Mapping[str, str], lease: Any, reserve: Reservation | None = None
    ) -> None:
        """Append one event, its blobs and its projection in one transaction that checks lease, order and budgets."""
        await self.append_all([(event, texts)], lease, reserve)

    async def append_all(
        self, entries: Sequence[tuple[Event, Mapping[str, str]]], lease: Any, reserve: Reservation | None = None
    ) -> None:
        """Append events of one session in one transaction, in the thread that writes: a disk's wait is nobody else's."""
        packed = [(event, _packed(event, texts)) for event, texts in entries]
        await self._written(lambda: self._append(packed, lease, reserve))

    def _append(
        self, entries: Sequence[tuple[Event, list[tuple[str, bytes]]]], lease: Any, reserve: Reservation | None
    ) -> None:
        db = self._db()
        file: OpenFile | None = getattr(self._local, "file", None)
        if file is None:
            file = self._local.file = OpenFile(self.path)
        file.check()
        refused: BudgetSpent | None = None
        with Transaction(db, self.path):
            for number, (event, packed) in enumerate(entries, 1):
                if reserve is not None and number == len(entries):
                    try:
                        reservations.reserve(db, event.session, reserve)
                    except BudgetSpent as error:
                        refused = error
                        break
                payload = event.payload
                predecessor = payload.parent if type(payload) is SessionForked else event.session
                insertion = db.execute(_NEXT_EVENT, (*stored(event), lease.token, GENESIS, predecessor))
                if not insertion.rowcount:
                    self._refuse(db, event, lease)
                self._put_blobs(db, packed)
                project(db, event)
        if refused is not None:
            raise refused

    async def _written(self, work: Callable[[], T]) -> T:
        """Do something in the thread that writes; a cancelled caller waits for its end."""
        waiting = asyncio.wrap_future(self._submit(work))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await asyncio.wait([waiting])
            raise

    def _submit(self, work: Callable[[], T]) -> "Future[T]":
        if self._writer is None or self._owner != os.getpid():  # a fork has no thread of its parent's
            self._owner = os.getpid()
            self._writer = ThreadPoolExecutor(1, "codetape writer", lambda: setattr(self._local, "writes", True))
        return self._writer.submit(work)

    async def read(self, session: str) -> Stream:
        """Return a session's events and blobs; hashes and chain are checked. Raises StoreError for an unknown one."""
        db = self._db()
        with translated(self.path):
            rows = recovery.chain_of(lambda name: self._rows(db, name), session)
        if not rows:
            raise SessionNotFound(
                f"There is no session {session} in {self.path}.", remedy="`codetape list` shows them."
            )
        events = tuple(map(decode, rows))
        check_chain(events)
        if isinstance(events[-1].payload, ContentForgotten):
            raise ContentGone(
                f"The content of session {session} was forgotten at {events[-1].at}.",
                remedy="`codetape verify` and `codetape spend` still tell what its hashes and figures say.",
            )
        texts = self._texts(db, {ref for event in events for ref in refs(event.payload)})
        check_blobs(events, texts)
        return Stream(events, texts)

    def put(self, *streams: Stream) -> list[int]:
        """Add streams that were read from tapes, all of them or none; return how many events of each were new.

        Of two chains under one id the longer stands, where one begins with the other; missing blobs are put back.
        Raises StoreError where the chains diverge or the stored one is damaged, LeaseHeld where a process adds to one.
        """
        with self._transaction() as db:
            return [self._put(db, stream) for stream in streams]

    def _put(self, db: Connection, stream: Stream) -> int:
        added = 0
        for session, events in groupby(stream.events, key=lambda event: event.session):
            chain = list(events)
            hashes = dict(db.execute("SELECT seq, hash FROM events WHERE session = ?", (session,)).fetchall())
            missing = [event for event in chain if _is_new(event, hashes)]
            if (
                missing
                and hashes
                and (missing[0].seq != max(hashes) + 1 or len(hashes) != max(hashes) + 1 - chain[0].seq)
            ):
                raise StoreError(
                    f"Session {session} is in the database already, and damaged there: `codetape verify {session}` "
                    "says how.",
                    remedy="Nothing was imported; use another database with --db.",
                )
            if missing:
                self._check_free(db, session)
            last = one(db, "SELECT kind FROM events WHERE session = ? ORDER BY seq DESC LIMIT 1", session)
            if last and last[0] == ContentForgotten.__name__:
                raise StoreError(f"The content of session {session} was forgotten here: it is not put back.")
            for event in chain:
                self._put_blobs(db, [(ref, stream.texts[ref].encode()) for ref in refs(event.payload)])
            for event in missing:
                db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", stored(event))
                project(db, event)
            added += len(missing)
        return added

    async def forget(self, session: str) -> int:
        """Erase a session's content for good, and say so in its log; return how many blobs went.

        Raises LeaseHeld and StoreError. One swap of files does all of it: a failure before the swap erases nothing.
        This store is closed afterwards.
        """
        lease = await self.acquire(session)
        try:
            db = self._db()
            rows = self._rows(db, session)
            if not rows:
                raise SessionNotFound(
                    f"There is no session {session} in {self.path}.", remedy="`codetape list` shows them."
                )
            chain = [decode(row) for row in recovery.chain_of(lambda name: self._rows(db, name), session)]
            check_chain(chain)
            for (name,) in db.execute("SELECT session FROM leases WHERE held AND session <> ?", (session,)).fetchall():
                self._check_free(db, name)
            added = self._farewell(session, chain)
            self.close()
            return rewrite(self.path, session, added)
        finally:
            lease.release()
            self.close()

    def _farewell(self, session: str, chain: list[Event]) -> list[Event]:
        """Return the events that end a forgotten session: an open call is lost, and its content forgotten."""
        if isinstance(chain[-1].payload, ContentForgotten):
            return []
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        own = {ref for event in chain if event.session == session for ref in refs(event.payload)}
        last, ending = chain[-1], list[Event]()
        payloads: list[Payload] = [ContentForgotten(texts=len(own))]
        if asked := open_request(chain):
            payloads.insert(0, CallLost(call=asked.call, input_estimate=asked.input_estimate))
        for payload in payloads:
            last = encode(session, last.seq + 1, at, payload, last.hash)
            ending.append(last)
        return ending

    # ---- the catalogue

    def sessions(self) -> SessionList:
        """List the sessions, as far as they can be read."""
        return recovery.sessions(self._db(), self.path)

    def find(self, name: str) -> str:
        """Return the id that an id, a unique prefix, or ``last`` names. Raises SessionNotFound."""
        return catalog.find(self._db(), self.path, name)

    def asked(self, sessions: Collection[str]) -> dict[str, str]:
        """Return the beginning of what each session was asked, of those where it can be read."""
        return recovery.asked(self._db(), self.path, sessions)

    def position(self) -> int:
        """Return the row of the newest event."""
        with translated(self.path):
            row = one(self._db(), "SELECT max(rowid) FROM events")
        return int(row[0] or 0) if row else 0

    def call_events(self, sessions: Collection[str] | None = None) -> Iterator[StoredEvent]:
        """Yield the events of calls, parents first: of all sessions, or of these and their ancestors."""
        return catalog.call_events(self._db(), self.path, sessions)

    def images_needed(self) -> dict[str, list[tuple[str, str]]]:
        """Return the sessions, with their states, that last built each image."""
        return catalog.images_needed(self._db(), self.path) if self.path.exists() else {}

    # ---- maintenance

    def stored_sessions(self) -> list[str]:
        """Return the ids of all sessions that the log or its list names, as far as they can be read."""
        return recovery.session_ids(self._db(), self.path)

    def recover(self, session: str) -> RecoveredSession:
        """Read a session's rows and blobs as far as they can be read; only the hashes of the blobs are checked."""
        return recovery.session(self._db(), self.path, session)

    def unsound(self) -> list[str]:
        """Return what SQLite itself finds wrong with the file, and sessions whose line disagrees with their events."""
        return recovery.unsound(self._db(), self.path)

    def beat(self, session: str, token: int, *, held: bool) -> None:
        """Renew or release a lease, if it is still the token's."""
        with self._transaction() as db:
            db.execute(
                "UPDATE leases SET heartbeat = ?, held = ? WHERE session = ? AND token = ?",
                (self._clock(), int(held), session, token),
            )

    # ---- inside

    def _rows(self, db: Connection, session: str) -> list[StoredEvent]:
        rows = db.execute(f"SELECT {ROW} FROM events WHERE session = ? ORDER BY seq", (session,))  # noqa: S608 - fixed names
        return [StoredEvent.of(values) for values in rows]

    def _db(self) -> Connection:
        db: Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = open_database(self.path, read_only=self._read_only)
        return db

    def close(self) -> None:
        """Close this thread's connection, and the one that writes."""
        writer, self._writer = (None, self._writer) if getattr(self._local, "writes", False) else (self._writer, None)
        if writer is not None and self._owner == os.getpid():
            writer.submit(self.close).result()
            writer.shutdown()
        db: Connection | None = getattr(self._local, "db", None)
        if db is not None:
            db.close()
            self._local.db = self._local.file = None

    def _transaction(self) -> Transaction:
        return Transaction(self._db(), self.path)

    def _check_free(self, db: Connection, session: str) -> int:
        """Return the session's last token, 0 for none. Raises LeaseHeld where a living process holds it."""
        row = one(db, _LEASE, session)
        if row and row[1] and alive(row, now := self._clock()):
            raise LeaseHeld(
                f"Session {session} is driven by process {row[4]} on {row[2]} since {int(now - row[6])} s.",
                remedy="Wait until it ends, or stop it.",
            )
        return row[0] if row else 0

    def _refuse(self, db: Connection, event: Event, lease: Any) -> NoReturn:
        """Raise the reason why an event was not appended."""
        row = one(db, _STANDING, event.session, event.session)
        if row is None or row[0] != lease.token or not row[1]:
            raise StaleLease(
                f"Session {event.session} was taken over by another process: event {event.seq} was not written."
            )
        due = row[2] + 1 if row[2] is not None else 0
        raise StoreError(f"Event {event.session}:{event.seq} does not follow the log, which is at {due}.")

    def _put_blobs(self, db: Connection, packed: list[tuple[str, bytes]]) -> None:
        compressor = self._compressor()
        for key, data in packed:
            name = bytes.fromhex(key)
            db.execute(_NEW_BLOB, (name, len(data), compressor.compress(data), name))

    def _compressor(self) -> zstandard.ZstdCompressor:
        compressor: zstandard.ZstdCompressor | None = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = zstandard.ZstdCompressor(level=3)
        return compressor

    def _texts(self, db: Connection, blob_refs: set[str]) -> dict[str, str]:
        texts: dict[str, str] = {}
        keys, unpacker = sorted(map(bytes.fromhex, blob_refs)), zstandard.ZstdDecompressor()
        with translated(self.path):
            for start in range(0, len(keys), 500):
                batch = keys[start : start + 500]
                marks = ",".join("?" * len(batch))
                query = f"SELECT hash, size, data FROM blobs WHERE hash IN ({marks})"  # noqa: S608 - only marks
                for name, size, data in db.execute(query, batch):
                    key = name.hex()
                    texts[key] = unpack(key, size, data, unpacker)
        return texts


def _packed(event: Event, texts: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """Return an event's texts as bytes. Raises StoreError for one that is too long."""
    packed = [(key, text.encode()) for key, text in texts.items()]
    if any(len(data) > MAX_TEXT for _, data in packed):
        raise StoreError(f"Event {event.session}:{event.seq} holds a text of more than {MAX_TEXT >> 20} MB.")
    return packed


def _is_new(event: Event, stored_hashes: Mapping[int, str]) -> bool:
    stored_hash = stored_hashes.get(event.seq)
    if stored_hash is not None and stored_hash != event.hash:
        raise StoreError(
            f"Session {event.session} is in the database already, with another event {event.seq} than the tape has.",
            remedy="Nothing was imported; use another database with --db to look at both.",
        )
    return stored_hash is None


def create(path: str = DEFAULT_STORE) -> SqliteStore:
    """Make the store that a name or path stands for."""
    return SqliteStore(path)
