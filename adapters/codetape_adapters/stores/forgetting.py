"""A session's content erased: a new database is written without it, and takes the old one's place.

Nothing is deleted in place, for SQLite leaves what it deletes in free pages and in its log. What other sessions need, forks of the
forgotten one among them, stays. A kill at any time leaves the old database or the new one, whole.
"""

import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from codetape.chain import Row, unseal
from codetape.errors import StoreError
from codetape.events import refs
from codetape_adapters.stores.connection import open_database, store_error
from codetape_adapters.stores.database import Database
from codetape_adapters.stores.salvage import ROW

_TABLES = ("sessions", "events", "leases")


def rewrite(path: Path, forgotten: Iterable[str]) -> int:
    """Write a database without the texts that only the forgotten sessions refer to, and swap it in; return how many went.

    Raises StoreError where another process is at work in the database, or it cannot be written.
    """
    old = open_database(path, read_only=False)
    try:
        old.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if old.conn.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
            raise sqlite3.OperationalError("database is locked")
        old.conn.execute("BEGIN EXCLUSIVE")
        needed = _needed(old, {*forgotten})
        before = old.conn.execute("SELECT count(*) FROM blobs").fetchone()[0]
        with NamedTemporaryFile(dir=path.parent, prefix=".codetape-", suffix=".db", delete=False) as file:
            new = Path(file.name)
        try:
            _copy(old, new, needed)
            os.chmod(new, path.stat().st_mode & 0o777)  # noqa: PTH101 - beside the next line
            new.replace(path)
            _sync(path.parent)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        _retire(old)
        return int(before) - len(needed)
    except sqlite3.Error as error:
        with suppress(sqlite3.Error):
            old.conn.execute("ROLLBACK")
        if "locked" in str(error):
            raise StoreError(
                f"Another process has {path} open: nothing was erased.", remedy="Try again when it has ended."
            ) from error
        raise store_error(path, error) from error
    finally:
        old.conn.close()
        with suppress(OSError, StoreError):  # and back to the journal that is usual
            fresh = sqlite3.connect(path)
            fresh.execute("PRAGMA journal_mode = WAL")
            fresh.close()


def _needed(old: Database, forgotten: set[str]) -> set[bytes]:
    """Return the texts that a session which is not forgotten refers to, what forks inherit among them."""
    last: dict[str, int] = {}
    query = "SELECT session, payload FROM events WHERE kind = 'SessionForked'"
    parents = {row[0]: json.loads(row[1]) for row in old.conn.execute(query)}
    for fork in parents:
        name, seen = fork, set[str]()
        while name in parents and name not in seen and fork not in forgotten:
            seen.add(name)
            value = parents[name]
            last[value["parent"]] = max(last.get(value["parent"], -1), int(value["seq"]))
            name = value["parent"]
    needed: set[bytes] = set()
    for values in old.conn.execute(f"SELECT {ROW} FROM events"):  # noqa: S608 - fixed names
        row = Row.of(values)
        if row.session not in forgotten or row.seq <= last.get(row.session, -1):
            needed |= {bytes.fromhex(ref) for ref in refs(unseal(row).payload)}
    return needed


def _copy(old: Database, new: Path, needed: set[bytes]) -> None:
    new.unlink()
    made = open_database(new, read_only=False)
    try:
        made.conn.execute("BEGIN")
        for table in _TABLES:
            marks = ",".join("?" for _ in made.conn.execute(f"PRAGMA table_info({table})"))
            found = old.conn.execute(f"SELECT * FROM {table} ORDER BY rowid")  # noqa: S608 - fixed names
            _all(made, f"INSERT INTO {table} VALUES ({marks})", found)  # noqa: S608 - fixed names
        kept = (
            row for row in old.conn.execute("SELECT hash, size, data FROM blobs ORDER BY rowid") if row[0] in needed
        )
        _all(made, "INSERT INTO blobs VALUES (?, ?, ?)", kept)
        made.conn.execute("COMMIT")
        made.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        made.conn.execute("PRAGMA journal_mode = DELETE").fetchall()
    finally:
        made.conn.close()
    with new.open("rb") as file:
        os.fsync(file.fileno())


def _all(made: Database, statement: str, rows: Iterable[Any]) -> None:
    made.conn.executemany(statement, rows)


def _retire(old: Database) -> None:
    """Make the old file, which another process may have open still, one that nobody can begin a session in."""
    with suppress(sqlite3.Error):
        old.conn.execute("DROP TABLE leases")
        old.conn.execute("COMMIT")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
