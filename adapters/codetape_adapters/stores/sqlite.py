"""The log in SQLite: append-only by triggers, one durable transaction an event, one writer a session.

Timestamps are made by the caller. Nothing is changed or deleted in place, but for leases and the
`sessions` projection, which can be rebuilt from the events.
"""

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import Any

import zstandard
from sqlite_utils import Database

from codetape.canonical import sha256
from codetape.errors import CorruptTape, LeaseHeld, StaleLease, StoreError
from codetape.events import Answered, Event, SessionStarted, Transition, check_chain, unseal
from codetape.ports import Stream

APPLICATION_ID = 0x63746170  # "ctap"
BUSY_SECONDS = 30
LEASE_SECONDS = 60
MAX_TEXT = 64 << 20  # bytes of one text, unpacked

_MIGRATIONS: list[Callable[[Database], None]] = []


def _migration(step: Callable[[Database], None]) -> Callable[[Database], None]:
    """Append a step. A step that was released is never changed."""
    _MIGRATIONS.append(step)
    return step


@_migration
def _first(db: Database) -> None:
    for statement in (
        "CREATE TABLE events (session TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL,"
        " at TEXT NOT NULL, payload TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (session, seq))",
        "CREATE TABLE blobs (hash TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, data BLOB NOT NULL)",
        "CREATE TABLE sessions (session TEXT NOT NULL UNIQUE, task TEXT NOT NULL, model TEXT NOT NULL, tags TEXT NOT NULL,"
        " state TEXT NOT NULL, reason TEXT NOT NULL, iteration INTEGER NOT NULL, events INTEGER NOT NULL,"
        " input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, started_at TEXT NOT NULL,"
        " updated_at TEXT NOT NULL, head TEXT NOT NULL)",
        "CREATE TABLE leases (session TEXT NOT NULL UNIQUE, token INTEGER NOT NULL, held INTEGER NOT NULL,"
        " host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL, process_start TEXT NOT NULL,"
        " since REAL NOT NULL, heartbeat REAL NOT NULL)",
        *(
            f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
            for table in ("events", "blobs")
            for verb in ("UPDATE", "DELETE")
        ),
        "CREATE TRIGGER events_over BEFORE INSERT ON events WHEN EXISTS"
        " (SELECT 1 FROM events WHERE session = NEW.session AND seq = NEW.seq)"
        " BEGIN SELECT RAISE(ABORT, 'this event is in the log already'); END",
        "CREATE TRIGGER blobs_over BEFORE INSERT ON blobs WHEN EXISTS (SELECT 1 FROM blobs WHERE hash = NEW.hash)"
        " BEGIN SELECT RAISE(ABORT, 'this blob is in the log already'); END",
        "CREATE VIEW llm_calls AS SELECT r.session, r.seq, r.at, json_extract(r.payload, '$.purpose') AS purpose,"
        " a.kind AS outcome, json_extract(a.payload, '$.model') AS model,"
        " json_extract(a.payload, '$.finish_reason') AS finish_reason,"
        " json_extract(a.payload, '$.usage.input') AS input, json_extract(a.payload, '$.usage.cache_read') AS cache_read,"
        " json_extract(a.payload, '$.usage.cache_write') AS cache_write,"
        " json_extract(a.payload, '$.usage.output') AS output, json_extract(a.payload, '$.usage.reasoning') AS reasoning,"
        " json_extract(a.payload, '$.duration_ms') AS duration_ms"
        " FROM events r LEFT JOIN events a ON a.session = r.session AND a.seq = r.seq + 1"
        " WHERE r.kind = 'Requested' AND json_extract(r.payload, '$.effect') = 'ask'",
        "CREATE VIEW test_runs AS SELECT session, seq, at, json_extract(payload, '$.purpose') AS purpose,"
        " json_extract(payload, '$.exit') AS exit, json_extract(payload, '$.passed') AS passed,"
        " json_extract(payload, '$.failed') AS failed, json_extract(payload, '$.errors') AS errors,"
        " json_extract(payload, '$.skipped') AS skipped, json_extract(payload, '$.duration_ms') AS duration_ms"
        " FROM events WHERE kind = 'TestsFinished'",
        "CREATE VIEW spend AS SELECT session, purpose, count(*) AS calls, sum(input) AS input,"
        " sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output) AS output,"
        " sum(reasoning) AS reasoning FROM llm_calls GROUP BY session, purpose",
    ):
        db.execute(statement)


class SqliteLease:
    """A lease in the `leases` table."""

    def __init__(self, store: "SqliteStore", session: str, token: int) -> None:
        self.session, self.token, self._store = session, token, store

    def renew(self) -> None:
        """Set the heartbeat; a lost lease is found out by the next append."""
        with suppress(StoreError):
            self._store.beat(self.session, self.token, held=True)

    def release(self) -> None:
        """Give the session free."""
        with suppress(StoreError):
            self._store.beat(self.session, self.token, held=False)


class SqliteStore:
    """An `EventStore` in one database file. Connections are opened on first use, one a thread."""

    def __init__(
        self, path: Path | str, *, clock: Callable[[], float] = time, read_only: bool = False
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._read_only = read_only
        self._local = threading.local()

    # ---- the port

    async def acquire(self, session: str) -> SqliteLease:
        """Take the session's lease: free, ours to take over because its process is gone, or silent for 60 s."""
        now, me = self._clock(), _identity()
        with self._transaction() as db:
            row = _one(db, "SELECT token, held, host, boot, pid, process_start, since, heartbeat FROM leases WHERE session = ?", session)  # fmt: skip
            if row and row[1] and _alive(row, now):
                since = int(now - row[6])
                raise LeaseHeld(
                    f"Session {session} is driven by process {row[4]} on {row[2]} since {since} s.",
                    remedy="Wait until it ends, or stop it.",
                )
            token = (row[0] if row else 0) + 1
            db.execute(
                "INSERT INTO leases VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?) ON CONFLICT (session) DO UPDATE SET"
                " token = excluded.token, held = 1, host = excluded.host, boot = excluded.boot, pid = excluded.pid,"
                " process_start = excluded.process_start, since = excluded.since, heartbeat = excluded.heartbeat",
                (session, token, *me, now, now),
            )
        return SqliteLease(self, session, token)

    async def append(self, event: Event, texts: Mapping[str, str], lease: Any) -> None:
        """Append one event, its texts and its projection in one transaction that checks lease and order."""
        packed = [(key, text.encode()) for key, text in texts.items()]
        with self._transaction() as db:
            self._check(db, event, lease)
            self._put_blobs(db, packed)
            db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    event.session,
                    event.seq,
                    event.kind,
                    event.stored_version,
                    event.at,
                    event.stored_payload,
                    event.prev_hash,
                    event.hash,
                ),
            )
            _project(db, event)

    async def read(self, session: str) -> Stream:
        """Return a session's events and texts; hashes and chain are checked. Raises StoreError for an unknown one."""
        db = self._db()
        with _translated(self.path):
            rows = db.execute(
                "SELECT session, seq, kind, version, at, payload, prev_hash, hash FROM events WHERE session = ?"
                " ORDER BY seq",
                (session,),
            ).fetchall()
        if not rows:
            raise StoreError(
                f"There is no session {session} in {self.path}.", remedy="`codetape list` shows them."
            )
        events = tuple(unseal(*row) for row in rows)
        check_chain(events)
        return Stream(events, self._texts(db, {ref for event in events for ref in refs_of(event)}))

    # ---- for the command line

    def sessions(self) -> list[dict[str, Any]]:
        """Return the projection of all sessions, newest first."""
        with _translated(self.path):
            rows = self._db().query("SELECT * FROM sessions ORDER BY started_at DESC, rowid DESC")
            return list(rows)

    def find(self, name: str) -> str:
        """Return the id that a unique prefix, or ``last``, names. Raises StoreError."""
        with _translated(self.path):
            if name == "last":
                query = "SELECT session FROM sessions ORDER BY started_at DESC, rowid DESC LIMIT 1"
                found = [row[0] for row in self._db().execute(query)]
            else:
                query = "SELECT session FROM sessions WHERE substr(session, 1, ?) = ? LIMIT 3"
                found = [row[0] for row in self._db().execute(query, (len(name), name))]
        if len(found) == 1:
            return str(found[0])
        what = "names more than one session" if found else "names no session"
        raise StoreError(f"{name!r} {what} in {self.path}.", remedy="`codetape list` shows them.")

    def beat(self, session: str, token: int, *, held: bool) -> None:
        """Renew or release a lease, if it is still the token's."""
        with self._transaction() as db:
            db.execute(
                "UPDATE leases SET heartbeat = ?, held = ? WHERE session = ? AND token = ?",
                (self._clock(), int(held), session, token),
            )

    # ---- inside

    def _db(self) -> Database:
        db: Database | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = _open(self.path, read_only=self._read_only)
        return db

    def close(self) -> None:
        """Close this thread's connection."""
        db: Database | None = getattr(self._local, "db", None)
        if db is not None:
            db.conn.close()
            self._local.db = None

    @contextmanager
    def _transaction(self) -> Iterator[Database]:
        db = self._db()
        with _translated(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    def _check(self, db: Database, event: Event, lease: Any) -> None:
        row = _one(db, "SELECT token, held FROM leases WHERE session = ?", event.session)
        if row is None or row[0] != lease.token or not row[1]:
            raise StaleLease(
                f"Session {event.session} was taken over by another process: event {event.seq} was not written."
            )
        last = _one(
            db, "SELECT seq, hash FROM events WHERE session = ? ORDER BY seq DESC LIMIT 1", event.session
        )
        due, previous = (last[0] + 1, last[1]) if last else (0, "0" * 64)
        if event.seq != due or event.prev_hash != previous:
            raise StoreError(f"Event {event.session}:{event.seq} does not follow the log, which is at {due}.")

    def _put_blobs(self, db: Database, packed: list[tuple[str, bytes]]) -> None:
        compressor = zstandard.ZstdCompressor(level=3)
        for key, data in packed:
            if _one(db, "SELECT 1 FROM blobs WHERE hash = ?", key) is None:
                db.execute("INSERT INTO blobs VALUES (?, ?, ?)", (key, len(data), compressor.compress(data)))

    def _texts(self, db: Database, wanted: set[str]) -> dict[str, str]:
        texts: dict[str, str] = {}
        keys = sorted(wanted)
        with _translated(self.path):
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT hash, size, data FROM blobs WHERE hash IN ({marks})"  # noqa: S608 - only marks
                for key, size, data in db.execute(query, part):
                    texts[key] = unpack(key, size, data)
        return texts


def unpack(key: str, size: int, data: bytes) -> str:
    """Return a blob's text; its hash is checked, and its size is bounded before it is unpacked."""
    try:
        if size > MAX_TEXT or zstandard.frame_content_size(data) != size:
            raise CorruptTape(f"blob {key} does not have the size it says.")
        text = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1)).decode()
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise CorruptTape(f"blob {key} cannot be unpacked.") from error
    if sha256(text) != key:
        raise CorruptTape(f"blob {key} was edited: its hash does not cover what it says.")
    return text


def refs_of(event: Event) -> Iterator[str]:
    """Yield the hashes of the texts that an event refers to."""
    found: list[Any] = [event.payload.model_dump(mode="json", exclude={"fingerprint"})]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            found.extend(value.values())
        elif isinstance(value, list):
            found.extend(value)
        elif isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef"):
            yield value


def _project(db: Database, event: Event) -> None:
    payload = event.payload
    if isinstance(payload, SessionStarted):
        db.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, '', 0, 1, 0, 0, ?, ?, ?)",
            (
                event.session,
                payload.task_id,
                payload.model,
                ",".join(payload.tags),
                payload.target,
                event.at,
                event.at,
                event.hash,
            ),  # fmt: skip
        )
        return
    sets: dict[str, Any] = {"events": event.seq + 1, "updated_at": event.at, "head": event.hash}
    if isinstance(payload, Transition):
        sets["state"] = payload.target
        sets["reason"] = getattr(payload, "reason", "")
        iteration = getattr(payload, "ledger", {}).get("iteration")
        if isinstance(iteration, int):
            sets["iteration"] = iteration
    added = ""
    values = list(sets.values())
    if isinstance(payload, Answered):
        added = ", input_tokens = input_tokens + ?, output_tokens = output_tokens + ?"
        values += [payload.usage.total_input, payload.usage.total_output]
    columns = ", ".join(f"{name} = ?" for name in sets)
    db.execute(f"UPDATE sessions SET {columns}{added} WHERE session = ?", [*values, event.session])  # noqa: S608 - fixed names


def _one(db: Database, query: str, *values: Any) -> Any:
    return db.execute(query, values).fetchone()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: one line, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "not a database" in text or "malformed" in text:
            raise StoreError(
                f"{path} is no database, or is damaged: {text}.", remedy="Give another with --db."
            ) from error
        if "readonly" in text or "unable to open" in text:
            raise StoreError(f"{path} cannot be written: {text}.", remedy="Check its permissions, or give another with --db.") from error  # fmt: skip
        if "full" in text or "I/O" in text:
            raise StoreError(f"{path} could not be written to disk: {text}.", remedy="Free some space; the session resumes.") from error  # fmt: skip
        if "locked" in text or "busy" in text:
            raise StoreError(f"{path} was locked by another process for {BUSY_SECONDS} s.", remedy="Try again.") from error  # fmt: skip
        raise StoreError(f"{path}: {text}.") from error


def _open(path: Path, *, read_only: bool) -> Database:
    if not path.exists():
        if read_only:
            raise StoreError(
                f"There is no database at {path}.", remedy="`codetape run` makes one; --db names another."
            )
        _make_folder(path.parent)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}.", remedy="Check its folder, or give another with --db.") from error  # fmt: skip
    try:
        with _translated(path):
            _prepare(Database(connection), path, read_only=read_only)
            return Database(connection)
    except BaseException:
        connection.close()
        raise


def _prepare(db: Database, path: Path, *, read_only: bool) -> None:
    version = _one(db, "PRAGMA user_version")[0]
    identity = _one(db, "PRAGMA application_id")[0]
    if identity != APPLICATION_ID and _one(db, "SELECT count(*) FROM sqlite_master")[0]:
        raise StoreError(
            f"{path} is a database, but not one of codetape's.", remedy="Give another with --db."
        )
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer codetape (schema {version}).", remedy="Upgrade codetape."
        )
    db.execute("PRAGMA recursive_triggers = ON")
    if read_only:
        db.execute("PRAGMA query_only = ON")
        return
    if not version:
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    if version < len(_MIGRATIONS):
        _migrate(db)


def _migrate(db: Database) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        done = _one(db, "PRAGMA user_version")[0]  # another process may have been first
        for number, step in enumerate(_MIGRATIONS, 1):
            if number > done:
                step(db)
        db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _make_folder(folder: Path) -> None:
    if folder.exists():
        return
    try:
        folder.mkdir(parents=True, mode=0o700)
        if folder.name == ".codetape":
            (folder / ".gitignore").write_text("*\n")
    except OSError as error:
        if not folder.is_dir():
            raise StoreError(f"{folder} cannot be made: {error.strerror}.", remedy="Give another place with --db.") from error  # fmt: skip


# ---- who holds a lease


def _identity() -> tuple[str, str, int, str]:
    return socket.gethostname(), _boot(), os.getpid(), _process_start(os.getpid())


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _process_start(pid: int) -> str:
    """Return the kernel's start time of a process, so that a reused pid is told apart; empty where it is gone."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _alive(row: Any, now: float) -> bool:
    _, _, host, boot, pid, process_start, _, heartbeat = row
    here = host == socket.gethostname() and boot == _boot() and boot != ""
    if here and _process_start(pid) != process_start:
        return False
    return bool(now - heartbeat < LEASE_SECONDS)


def create(path: str = ".codetape/tape.db") -> SqliteStore:
    """Make the store that a name or path stands for."""
    return SqliteStore(path)
