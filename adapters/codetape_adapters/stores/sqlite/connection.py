"""Opening a database: whose it is, how new it is, and what its errors mean to a person."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from time import monotonic, sleep
from types import TracebackType
from typing import Any
from urllib.parse import quote

from codetape.errors import StoreError
from codetape_adapters.stores.sqlite.open_file import holder
from codetape_adapters.stores.sqlite.schema import differences

APPLICATION_ID = 0x63746170  # "ctap"
BUSY_SECONDS = 30
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; the second where the words of its error name something that is not UTF-8."""
SCHEMA = 8
"""The number of migrations, kept in user_version too: reading a database must not load the code that migrates one."""


def one(db: Connection, query: str, *values: Any) -> Any:
    """Return a query's first row, or None."""
    return db.execute(query, values).fetchone()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: one line, and what to do."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise store_error(path, error) from error


def store_error(path: Path, error: Exception) -> StoreError:
    """Return what an error of SQLite's means to a person."""
    text = "malformed: its schema is no text" if isinstance(error, UnicodeDecodeError) else str(error)
    if "not a database" in text or "malformed" in text:
        return StoreError(f"{path} is no database, or is damaged: {text}.", remedy="Give another with --db.")
    if "readonly" in text or "unable to open" in text:
        return StoreError(
            f"{path} cannot be written: {text}.", remedy="Check its permissions, or give another with --db."
        )
    if "full" in text or "I/O" in text:
        return StoreError(
            f"{path} could not be written to disk: {text}.", remedy="Free some space; the session resumes."
        )
    if "locked" in text or "busy" in text:
        who = holder(path)
        return StoreError(
            f"{path} was locked by {who or 'another process'} for {BUSY_SECONDS} s.",
            remedy="Let it go on, or end it; then try again." if who else "Try again.",
        )
    return StoreError(f"{path}: {text}.")


class Transaction:
    """One transaction that holds the write lock from its start; errors come out as ours. A context manager.

    A class and not a generator: it is entered for every event, and a generator's entry costs as much as an insert.
    """

    __slots__ = ("db", "path")

    def __init__(self, db: Connection, path: Path) -> None:
        self.db, self.path = db, path

    def __enter__(self) -> Connection:
        try:
            self.db.execute("BEGIN IMMEDIATE")
        except DATABASE_ERRORS as error:
            raise store_error(self.path, error) from error
        return self.db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self.db.execute("COMMIT")
            except DATABASE_ERRORS as refused:
                self._roll_back()
                raise store_error(self.path, refused) from refused
            return
        self._roll_back()
        if isinstance(error, DATABASE_ERRORS):
            raise store_error(self.path, error) from error

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self.db.execute("ROLLBACK")


def open_database(path: Path, *, read_only: bool) -> Connection:
    """Open a database, or make it; bring its schema up to date. Raises StoreError with what to do."""
    if not path.exists():
        if read_only:
            raise StoreError(f"There is no database at {path}.", remedy="`codetape run` makes one; --db names another.")
        _make_folder(path.parent)
        _make_whole(path)
    elif not path.is_file():  # SQLite waits for ever for somebody at the other end of a pipe
        raise StoreError(f"{path} cannot be a database: it is no file.", remedy="Give another with --db.")
    if read_only:
        return _for_reading(path)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except DATABASE_ERRORS as error:
        raise StoreError(
            f"{path} cannot be opened: {error}.", remedy="Check its folder, or give another with --db."
        ) from error
    return _prepared(connection, path, read_only=False)


def _for_reading(path: Path) -> Connection:
    """Open a database that is only read; an older one is first brought up to date, where it can be."""
    address = quote(str(path.absolute()))
    for mode in ("mode=ro", "immutable=1"):  # the log's shared memory needs a writable folder
        try:
            connection = sqlite3.connect(f"file:{address}?{mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        except DATABASE_ERRORS as error:
            raise store_error(path, error) from error
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.OperationalError as error:
            connection.close()
            if mode == "immutable=1" or not ("readonly" in str(error) or "unable to open" in str(error)):
                raise store_error(path, error) from error
            continue
        except DATABASE_ERRORS as error:
            connection.close()
            raise store_error(path, error) from error
        if 0 < version < SCHEMA:
            connection.close()
            return open_database(path, read_only=False)
        return _prepared(connection, path, read_only=True)
    raise StoreError(f"{path} cannot be read.")


def _prepared(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> Connection:
    try:
        with translated(path):
            _prepare(connection, path, read_only=read_only)
            return connection
    except BaseException:
        connection.close()
        raise


def _prepare(db: Connection, path: Path, *, read_only: bool) -> None:
    db.execute("PRAGMA trusted_schema = OFF")
    if sys.version_info >= (3, 12):
        db.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    # Counted before the id is read: the transaction that makes the tables sets it, so tables without it are foreign.
    tables = one(db, "SELECT count(*) FROM sqlite_master")[0]
    version = one(db, "PRAGMA user_version")[0]
    if read_only and not tables:
        raise StoreError(f"{path} is no database of codetape's: it is empty.", remedy="Give another with --db.")
    if tables and one(db, "PRAGMA application_id")[0] != APPLICATION_ID:
        raise StoreError(f"{path} is a database, but not one of codetape's.", remedy="Give another with --db.")
    if version > SCHEMA:
        raise StoreError(f"{path} was written by a newer codetape (schema {version}).", remedy="Upgrade codetape.")
    if tables and (wrong := [d.message for d in differences(db, version) if d.tables or not read_only]):
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise StoreError(
            f"{path} is not as codetape made it: {', '.join(wrong[:3])}{more}.",
            remedy="Use another with --db, or what `codetape export` can still read of it: nothing was changed.",
        )
    db.execute("PRAGMA recursive_triggers = ON")
    if read_only:
        db.execute("PRAGMA query_only = ON")
        return
    if not version or one(db, "PRAGMA journal_mode")[0] != "wal":
        _write_ahead(db)
    db.execute("PRAGMA synchronous = FULL")
    if version < SCHEMA:
        _migrate(db)


def _write_ahead(db: Connection) -> None:
    """Switch the journal to WAL. SQLite ignores its busy timeout here, so the wait for other processes is our own."""
    deadline = monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > deadline:
                raise
            sleep(0.01)
        else:
            return


def _migrate(db: Connection) -> None:
    import sqlite_utils

    from codetape_adapters.stores.sqlite.migrations import MIGRATIONS, mark_applied

    db.execute("BEGIN IMMEDIATE")
    try:
        database = sqlite_utils.Database(db)
        mark_applied(database, one(db, "PRAGMA user_version")[0])  # another process may have migrated first
        MIGRATIONS.apply(database)
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _make_whole(path: Path) -> None:
    """Make the file with its tables, so that its user alone reads it; SQLite makes those beside it alike.

    It gets its name when it is whole: one without tables, which a kill would leave, is nobody's. Where that cannot be,
    and where another process was quicker, opening it says so.
    """
    with suppress(OSError, AttributeError):
        number = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as out:
            out.write(_empty())
            out.flush()
            os.fsync(number)
            os.link(f"/proc/self/fd/{number}", path, src_dir_fd=number, follow_symlinks=True)  # linkat, which follows
        return
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _empty() -> bytes:
    """Return the bytes of a database without sessions."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _migrate(memory)
        return memory.serialize()
    finally:
        memory.close()


def _make_folder(folder: Path) -> None:
    if folder.exists():
        return
    try:
        folder.mkdir(parents=True, mode=0o700)
        if folder.name == ".codetape":
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        if not folder.is_dir():
            raise StoreError(
                f"{folder} cannot be made: {error.strerror}.", remedy="Give another place with --db."
            ) from error
