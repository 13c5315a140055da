"""The log in SQLite: append-only by triggers, one durable transaction an event, one writer a session.

What appends and reads events is loaded when it is first asked for: listing sessions needs none of it. Timestamps are
made by the caller. Nothing is changed or deleted in place, but for leases and the
`sessions` projection, which can be rebuilt from the events.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from codetape.errors import LeaseHeld, StoreError, UsageError
from codetape.ports import DEFAULT_STORE, Lease, RecoveredSession, SessionList, Store, Stream
from codetape_adapters.stores.sqlite import catalog, recovery
from codetape_adapters.stores.sqlite.connection import Transaction, one, open_database, translated
from codetape_adapters.stores.sqlite.open_file import OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from sqlite3 import Connection

    from codetape.domain.budget import Reservation
    from codetape.eventlog.envelope import Event
    from codetape.eventlog.kept_call import CallLabels, KeptCall
    from codetape.eventlog.stored_event import StoredEvent
    from codetape_adapters.stores.sqlite.log import Entry

T = TypeVar("T")
_LEASE = "SELECT token, held, host, boot, pid, process_start, since, heartbeat FROM leases WHERE session = ?"


class SqliteLease(Lease):
    """A lease in the `leases` table."""

    def __init__(self, store: SqliteStore, session: str, token: int) -> None:
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
        self._file: OpenFile | None = None

    @property
    def address(self) -> str:  # type: ignore[override]  # it does not change
        """What names this store to another process."""
        return str(self.path)

    def for_reading(self) -> SqliteStore:
        """Return a store of the same database that cannot change it. Raises UsageError where there is none."""
        if self._read_only:
            return self
        if not self.path.exists():
            raise UsageError(
                f"There is no database at {self.path}.", remedy="`codetape run` makes one; --db names another."
            )
        return SqliteStore(self.path, clock=self._clock, read_only=True)

    # ---- the port

    async def acquire(self, session: str) -> SqliteLease:
        """Take the session's lease: free, ours to take over because its process is gone, or silent for 60 s."""
        import asyncio

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
        from codetape_adapters.process_identity import identity

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
        from codetape_adapters.stores.sqlite.log import entry

        ready = [entry(event, texts) for event, texts in entries]
        await self._written(lambda: self._append(ready, lease, reserve))

    def _append(self, entries: Sequence[Entry], lease: Any, reserve: Reservation | None) -> None:
        from codetape_adapters.stores.sqlite.log import append

        append(self._db(whole=True), self.path, entries, lease.token, reserve)

    async def _written(self, work: Callable[[], T]) -> T:
        """Do something in the thread that writes; a cancelled caller waits for its end."""
        import asyncio

        waiting = asyncio.wrap_future(self._submit(work))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await asyncio.wait([waiting])
            raise

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if self._writer is None or self._owner != os.getpid():  # a fork has no thread of its parent's
            from concurrent.futures import ThreadPoolExecutor

            self._owner = os.getpid()
            self._writer = ThreadPoolExecutor(1, "codetape writer", lambda: setattr(self._local, "writes", True))
        return self._writer.submit(work)

    async def read(self, session: str) -> Stream:
        """Return a session's events and blobs; hashes and chain are checked. Raises StoreError for an unknown one."""
        from codetape_adapters.stores.sqlite import log

        return log.read(self._db(), self.path, session)

    def put(self, *streams: Stream) -> list[int]:
        """Add streams that were read from tapes, all of them or none; return how many events of each were new.

        Of two chains under one id the longer stands, where one begins with the other; missing blobs are put back.
        Raises StoreError where the chains diverge or the stored one is damaged, LeaseHeld where a process adds to one.
        """
        from codetape_adapters.stores.sqlite import log

        with self._transaction() as db:
            return [log.put(db, stream, lambda name: self._check_free(db, name)) for stream in streams]

    async def forget(self, session: str) -> int:
        """Erase a session's content for good, and say so in its log; return how many blobs went.

        Raises LeaseHeld and StoreError. One swap of files does all of it: a failure before the swap erases nothing.
        This store is closed afterwards.
        """
        from codetape_adapters.stores.sqlite import log
        from codetape_adapters.stores.sqlite.forgetting import rewrite

        lease = await self.acquire(session)
        try:
            db = self._db()
            chain = log.whole_chain(db, self.path, session)
            for (name,) in db.execute("SELECT session FROM leases WHERE held AND session <> ?", (session,)).fetchall():
                self._check_free(db, name)
            added = log.farewell(session, chain, self._clock())
            self.close()
            return rewrite(self.path, session, added)
        finally:
            lease.release()
            self.close()

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

    def kept_calls(self, sessions: Collection[str] | None = None) -> Iterator[tuple[CallLabels, Sequence[KeptCall]]]:
        """Yield the calls of these sessions, or of all, a session at a time, as they are kept."""
        return catalog.kept_calls(self._db(), self.path, sessions)

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
        from codetape_adapters.stores.sqlite.rebuilding import sums_differ

        problems = recovery.unsound(self._db(), self.path)
        with suppress(StoreError), translated(self.path):
            if sums_differ(self._db()):
                problems.append(
                    "What is kept of spending is not the sum of the sessions: `codetape verify --all --rebuild` makes it"
                    " again."
                )
        return problems

    def disagreeing(self, session: str, events: Sequence[Event], texts: Mapping[str, str]) -> list[str]:
        """Return what is kept of a session beside its events, and is not what they say."""
        from codetape_adapters.stores.sqlite.rebuilding import disagreeing

        with translated(self.path):
            return disagreeing(self._db(), session, events, texts)

    def rebuild(self) -> None:
        """Make what is kept beside the events again from them, in one transaction."""
        from codetape_adapters.stores.sqlite.rebuilding import rebuild

        with self._transaction() as db:
            rebuild(db)

    def beat(self, session: str, token: int, *, held: bool) -> None:
        """Renew or release a lease, if it is still the token's."""
        with self._transaction() as db:
            db.execute(
                "UPDATE leases SET heartbeat = ?, held = ? WHERE session = ? AND token = ?",
                (self._clock(), int(held), session, token),
            )

    # ---- inside

    def _db(self, *, whole: bool = False) -> Connection:
        """Return this thread's connection; ``whole`` raises StoreError where its file is not what lies at the path.

        Whoever writes asks for that, of the file that lay there when the first of the open connections was made: SQLite
        waits half a minute for a lock in one that was cut off.
        """
        if whole and self._file is not None:
            self._file.check()
        db: Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = open_database(self.path, read_only=self._read_only)
        if self._file is None:
            self._file = OpenFile(self.path)
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
            self._local.db = self._file = None

    def _transaction(self) -> Transaction:
        return Transaction(self._db(whole=True), self.path)

    def _check_free(self, db: Connection, session: str) -> int:
        """Return the session's last token, 0 for none. Raises LeaseHeld where a living process holds it."""
        from codetape_adapters.process_identity import alive

        row = one(db, _LEASE, session)
        if row and row[1] and alive(row, now := self._clock()):
            raise LeaseHeld(
                f"Session {session} is driven by process {row[4]} on {row[2]} since {int(now - row[6])} s.",
                remedy="Wait until it ends, or stop it.",
            )
        return row[0] if row else 0


def create(path: str = DEFAULT_STORE) -> SqliteStore:
    """Make the store that a name or path stands for."""
    return SqliteStore(path)
