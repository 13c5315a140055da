"""What is kept beside the events, made again from them: to check it, and to put it right."""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from codetape.errors import CorruptTape
from codetape.eventlog.envelope import Event, decode
from codetape.eventlog.events import SessionStarted
from codetape_adapters.stores.sqlite import blobs, recovery
from codetape_adapters.stores.sqlite.connection import DATABASE_ERRORS
from codetape_adapters.stores.sqlite.projection import project

TABLES = ("call_rows", "test_run_rows", "decision_rows", "build_rows", "session_tags")
"""Tables that hold nothing but what events say."""
_LINE = (
    "session", "task", "model", "tags", "state", "reason", "confidence", "iteration", "events", "input_tokens",
    "output_tokens", "started_at", "updated_at", "head", "parent", "forked_at", "cost", "unpriced", "reused_tokens",
    "server", "lineage", "prompts", "asked",
)  # fmt: skip
"""Columns of a session's line that its events say; the others are reservations, which running calls make."""
_LOCAL = threading.local()
_NAMES = {
    "sessions": "figures in the list",
    "call_rows": "calls",
    "test_run_rows": "test runs",
    "session_tags": "labels",
}


def disagreeing(db: Connection, session: str, events: Sequence[Event], texts: Mapping[str, str]) -> list[str]:
    """Return what is kept of a session and is not what its events say, a line each. ``events`` are its whole chain."""
    made = _projected(db, events, texts)
    wrong = [table for table in ("sessions", *TABLES) if _rows(db, table, session) != _rows(made, table, session)]
    return [
        f"The {_NAMES.get(table, table.removesuffix('_rows') + 's')} kept of session {session} are not what its events say:"
        " `codetape verify --all --rebuild` makes them again."
        for table in wrong
    ]


def rebuild(db: Connection) -> None:
    """Make what is kept of every session again, as far as its events can be read. Reservations stay, and so does the line
    of a session that cannot be read whole: `codetape verify` says what is wrong."""
    for session in recovery.session_ids(db, Path("the database")):
        events, texts, whole = _chain(db, session)
        if not events:
            continue
        made = _projected(db, events, texts)
        for table in TABLES:
            db.execute(f"DELETE FROM {table} WHERE session = ?", (session,))  # noqa: S608 - fixed names
            for row in _rows(made, table, session):
                db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)  # noqa: S608 - fixed names
        for line in _rows(made, "sessions", session) if whole else ():
            _put_line(db, session, line)
    _sum_up(db)


def _put_line(db: Connection, session: str, line: Sequence[Any]) -> None:
    sets = ", ".join(f"{name} = ?" for name in _LINE)
    if db.execute(f"UPDATE sessions SET {sets} WHERE session = ?", (*line, session)).rowcount:  # noqa: S608 - fixed names
        return
    names, marks = ", ".join(_LINE), ",".join("?" * len(_LINE))
    db.execute(f"INSERT INTO sessions ({names}) VALUES ({marks})", line)  # noqa: S608 - fixed names


def _sum_up(db: Connection) -> None:
    """Make the sums of what was spent again, of the lines of the sessions."""
    tokens = "sum(input_tokens + output_tokens - reused_tokens + open_tokens + reserved_tokens)"
    cost = "sum(cost + open_cost + reserved_cost)"
    db.execute("DELETE FROM spent_rows")
    db.execute(f"INSERT INTO spent_rows SELECT 'database', coalesce({tokens}, 0), coalesce({cost}, 0) FROM sessions")  # noqa: S608 - fixed names
    db.execute(
        f"INSERT INTO spent_rows SELECT 'tag:' || tag, {tokens}, {cost} FROM sessions JOIN session_tags USING (session)"  # noqa: S608 - fixed names
        " GROUP BY tag"
    )


def _chain(db: Connection, session: str) -> tuple[list[Event], dict[str, str], bool]:
    """Return a session's events, as far as they can be read, its task's text, and whether they are all."""
    events, texts, whole = list[Event](), dict[str, str](), False
    with suppress(CorruptTape, *DATABASE_ERRORS):  # a damaged database opens all the same
        for row in recovery.chain_of(lambda name: recovery.stored_rows(db, name), session):
            events.append(decode(row))
        whole = True
    first = events[0].payload if events else None
    if isinstance(first, SessionStarted):
        with suppress(CorruptTape, *DATABASE_ERRORS):
            texts = blobs.texts(db, (first.task,))
    return events, texts, whole


def _projected(db: Connection, events: Sequence[Event], texts: Mapping[str, str]) -> Connection:
    """Return a database in memory with what events would leave in the tables, until it is asked for again; forks continue
    from ``db``'s events."""
    made: Connection | None = getattr(_LOCAL, "made", None)
    if made is None:  # one a thread: a new one would compile every statement again
        made = _LOCAL.made = sqlite3.connect(":memory:", isolation_level=None)
        for table in ("sessions", *TABLES):
            made.execute(db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0])
        made.execute("BEGIN")
    for table in ("sessions", *TABLES):
        made.execute(f"DELETE FROM {table}")  # noqa: S608 - fixed names
    for event in events:
        project(made, event, texts, log=db)
    return made


def _rows(db: Connection, table: str, session: str) -> list[tuple[Any, ...]]:
    names = ", ".join(_LINE) if table == "sessions" else "*"
    order = "1" if table == "sessions" else "2"
    query = f"SELECT {names} FROM {table} WHERE session = ? ORDER BY {order}"  # noqa: S608 - fixed names
    return db.execute(query, (session,)).fetchall()
