"""A session's content erased: a new database is written without it, and takes the old one's place.

Nothing is deleted in place, for SQLite leaves deleted rows in free pages and in its log. What other sessions
need stays, forks of the forgotten one among them; so do tables and views that are not codetape's. A kill at any time
leaves either the old database or the new one whole; the next rewrite removes the copy that a killed one left behind.
"""

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from tempfile import NamedTemporaryFile
from typing import Any

from codetape.errors import StoreError
from codetape.eventlog.envelope import Event, stored
from codetape_adapters.stores.sqlite.connection import open_database, store_error
from codetape_adapters.stores.sqlite.projection import project

_TABLES = (
    "session_tags", "sessions", "events", "leases", "call_rows", "test_run_rows", "decision_rows", "build_rows",
)  # fmt: skip
"""Tables that are copied; labels come before the lines whose insertion sums up what each label has spent."""
_HASH = re.compile(r'"([0-9a-f]{64})"')
_COPY = ".codetape-forget-"


def rewrite(path: Path, session: str, added: Sequence[Event]) -> int:
    """Write a database without the blobs that only forgotten sessions refer to; return how many went.

    ``added`` are the events that end the session. Raises StoreError where another process has the database open.
    """
    path = path.resolve()  # a symbolic link keeps pointing to the database
    old = open_database(path, read_only=False)
    try:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if old.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
            raise sqlite3.OperationalError("database is locked")
        # The lock is held until the swap, so that no process commits to a file that is about to be replaced.
        old.execute("BEGIN EXCLUSIVE")
        for stale in path.parent.glob(f"{_COPY}*"):
            stale.unlink()
        needed = _needed(old, session)
        blobs_before = old.execute("SELECT count(*) FROM blobs").fetchone()[0]
        with NamedTemporaryFile("wb", dir=path.parent, prefix=_COPY, suffix=".db", delete=False) as file:
            copy = Path(file.name)
        try:
            blobs_left = _copy(old, copy, needed, session, added)
            copy.chmod(path.stat().st_mode & 0o777)
            copy.replace(path)
            _sync(path.parent)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        _retire(old)
        return int(blobs_before) - blobs_left
    except sqlite3.Error as error:
        with suppress(sqlite3.Error):
            old.execute("ROLLBACK")
        if "locked" in str(error):
            raise StoreError(
                f"Another process has {path} open: nothing was erased.", remedy="Try again when it has ended."
            ) from error
        raise store_error(path, error) from error
    finally:
        old.close()


def _needed(old: Connection, session: str) -> set[bytes]:
    """Return the blobs that sessions which are not forgotten refer to, what forks inherit among them.

    Payloads are searched for hashes, and not decoded: an edited row, or one of a newer codetape, keeps its blobs.
    """
    ends = "SELECT session FROM events e WHERE kind = 'ContentForgotten' AND seq = (SELECT max(seq) FROM events WHERE session = e.session)"
    forgotten = {session, *(row[0] for row in old.execute(ends))}
    parents: dict[str, tuple[str, int]] = {}
    for fork, payload in old.execute("SELECT session, payload FROM events WHERE kind = 'SessionForked'"):
        with suppress(ValueError, KeyError, TypeError):
            value = json.loads(payload)
            parents[fork] = str(value["parent"]), int(value["seq"])
    last_inherited: dict[str, int] = {}
    for fork in set(parents) - forgotten:
        name, seen = fork, set[str]()
        while name in parents and name not in seen:
            seen.add(name)
            parent, seq = parents[name]
            last_inherited[parent] = max(last_inherited.get(parent, -1), seq)
            name = parent
    needed: set[bytes] = set()
    for name, seq, payload in old.execute("SELECT session, seq, payload FROM events"):
        if name not in forgotten or seq <= last_inherited.get(name, -1):
            needed |= {bytes.fromhex(ref) for ref in _HASH.findall(str(payload))}
    return needed


def _copy(old: Connection, path: Path, needed: set[bytes], session: str, added: Sequence[Event]) -> int:
    """Fill the new file; return how many blobs it holds."""
    db = open_database(path, read_only=False)
    try:
        db.execute("BEGIN")
        for table in _TABLES:
            marks = ",".join("?" for _ in db.execute(f"PRAGMA table_info({table})"))
            rows = old.execute(f"SELECT * FROM {table} ORDER BY rowid")  # noqa: S608 - fixed names
            _insert_all(db, f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - fixed names
        blobs = (row for row in old.execute("SELECT hash, size, data FROM blobs ORDER BY rowid") if row[0] in needed)
        _insert_all(db, "INSERT INTO blobs VALUES (?, ?, ?)", blobs)
        _insert_all(db, "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(stored, added))
        for event in added:
            project(db, event, {})
        db.execute("UPDATE leases SET held = 0 WHERE session = ?", (session,))
        _copy_foreign_objects(old, db)
        blob_count = db.execute("SELECT count(*) FROM blobs").fetchone()[0]
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        db.execute("PRAGMA journal_mode = DELETE").fetchall()
    finally:
        db.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return int(blob_count)


def _copy_foreign_objects(old: Connection, db: Connection) -> None:
    """Copy the tables, views and triggers that others have put into the database."""
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type <> 'table', type <> 'view', rowid"
    existing = {name for _, name, _ in db.execute(query)}
    for kind, name, sql in old.execute(query).fetchall():
        if name in existing or name.startswith("sqlite_"):
            continue
        if kind == "table" and sql.upper().startswith("CREATE VIRTUAL"):
            raise StoreError(
                f"The database holds a virtual table, {name}, which cannot be copied: nothing was erased.",
                remedy="Drop it first.",
            )
        db.execute(sql)
        if kind == "table":
            quoted = '"' + name.replace('"', '""') + '"'
            marks = ",".join("?" for _ in db.execute(f"PRAGMA table_info({quoted})"))
            rows = old.execute(f"SELECT * FROM {quoted}")  # noqa: S608 - quoted
            _insert_all(db, f"INSERT INTO {quoted} VALUES ({marks})", rows)  # noqa: S608 - quoted


def _insert_all(db: Connection, statement: str, rows: Iterable[Any]) -> None:
    db.executemany(statement, rows)


def _retire(old: Connection) -> None:
    """Make the replaced file unusable: a process that has just opened it can begin no session in it."""
    with suppress(sqlite3.Error):
        old.execute("DROP TABLE leases")
        old.execute("COMMIT")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
