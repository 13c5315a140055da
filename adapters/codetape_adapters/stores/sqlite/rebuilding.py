"""What is kept beside the events, made again from them: to check it, and to put it right."""

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
from codetape_adapters.stores.sqlite.kept_tables import COLUMNS, DatabaseTables, MemoryTables
from codetape_adapters.stores.sqlite.projection import add_event
from codetape_adapters.stores.sqlite.reservations import sums

TABLES = tuple(table for table in COLUMNS if table != "sessions")
"""Tables that hold nothing but what events say."""
_NAMES = {
    "sessions": "figures in the list",
    "call_rows": "calls",
    "test_run_rows": "test runs",
    "session_tags": "labels",
}


def disagreeing(db: Connection, session: str, events: Sequence[Event], texts: Mapping[str, str]) -> list[str]:
    """Return what is kept of a session and is not what its events say, a line each. ``events`` are its whole chain."""
    made, kept = _projected(db, events, texts), DatabaseTables(db)
    wrong = [table for table in COLUMNS if kept.rows(table, session) != made.rows(table, session)]
    return [
        f"The {_NAMES.get(table, table.removesuffix('_rows') + 's')} kept of session {session} are not what its events say:"
        " `codetape verify --all --rebuild` makes them again."
        for table in wrong
    ]


def rebuild(db: Connection) -> None:
    """Make what is kept of every session again that can be read whole; of the others it stays, as reservations do."""
    added = False
    for session in _in_order(db):
        events, texts, whole = _chain(db, session)
        if whole and events:
            with suppress(_NotMade):
                added |= _replace(db, session, _made(db, events, texts), line=True)
    if added:
        _as_they_came(db)
    _sum_up(db)


def make_first(db: Connection) -> None:
    """Make what is kept where nothing is: of a session that cannot be read whole, what its readable events say."""
    for session in _in_order(db):
        events, texts, whole = _chain(db, session)
        with suppress(_NotMade):
            _replace(db, session, _made(db, events, texts), line=whole)
    for session, tags in db.execute("SELECT session, tags FROM sessions").fetchall():
        for tag in filter(None, str(tags).split(",")):  # budgets rest on them, whatever else can be read
            db.execute("INSERT OR IGNORE INTO session_tags VALUES (?, ?)", (session, tag))
    _sum_up(db)


def sums_differ(db: Connection) -> bool:
    """Whether what is kept of spending is not the sum of the sessions' lines."""
    kept = {scope: (tokens, cost) for scope, tokens, cost in db.execute("SELECT scope, tokens, cost FROM spent_rows")}
    made = sums(db)
    return any(kept.get(scope, (0, 0)) != made.get(scope, (0, 0)) for scope in {*kept, *made})


class _NotMade(Exception):
    """A session's events say what no table can hold."""


def _made(db: Connection, events: Sequence[Event], texts: Mapping[str, str]) -> MemoryTables:
    try:
        return _projected(db, events, texts)
    except Exception as error:  # events from elsewhere: one session must not hinder the others
        raise _NotMade from error


def _replace(db: Connection, session: str, made: MemoryTables, *, line: bool) -> bool:
    """Put what was made in the place of what is kept; return whether the session had no line."""
    for table in TABLES:
        db.execute(f"DELETE FROM {table} WHERE session = ?", (session,))  # noqa: S608 - fixed names
        for row in made.rows(table, session):
            _insert(db, table, row)
    added = [_put_line(db, session, values) for values in made.rows("sessions", session)] if line else []
    return any(added)


def _put_line(db: Connection, session: str, line: Sequence[Any]) -> bool:
    sets = ", ".join(f"{name} = ?" for name in COLUMNS["sessions"])
    if db.execute(f"UPDATE sessions SET {sets} WHERE session = ?", (*line, session)).rowcount:  # noqa: S608 - fixed names
        return False
    _insert(db, "sessions", line)
    return True


def _insert(db: Connection, table: str, row: Sequence[Any]) -> None:
    DatabaseTables(db).insert(table, dict(zip(COLUMNS[table], row, strict=True)))


def _as_they_came(db: Connection) -> None:
    """Let the lines stand in the order in which their sessions began, parents before their forks."""
    first = "(SELECT min(e.rowid) FROM events e WHERE e.session = sessions.session)"
    db.execute(f"UPDATE sessions SET rowid = -coalesce({first}, rowid + 1000000000000)")  # noqa: S608 - fixed names
    db.execute("UPDATE sessions SET rowid = -rowid")


def _sum_up(db: Connection) -> None:
    """Make the sums of what was spent again, of the lines of the sessions."""
    db.execute("DELETE FROM spent_rows")
    for scope, (tokens, cost) in sums(db).items():
        db.execute("INSERT INTO spent_rows VALUES (?, ?, ?)", (scope, tokens, cost))


def _in_order(db: Connection) -> list[str]:
    """Return the sessions in the order in which they began, as far as they can be read."""
    with suppress(*DATABASE_ERRORS):
        rows = db.execute("SELECT session, min(rowid) FROM events GROUP BY session ORDER BY 2").fetchall()
        return [row[0] for row in rows if isinstance(row[0], str)]
    return recovery.session_ids(db, Path("the database"))


def _chain(db: Connection, session: str) -> tuple[list[Event], dict[str, str], bool]:
    """Return those of a session's events that can be read, its task's text, and whether they are all."""
    events, texts = list[Event](), dict[str, str]()
    found = recovery.session(db, Path("the database"), session, texts=False)
    for row in found.rows:
        with suppress(CorruptTape):
            events.append(decode(row))
    if events and isinstance(events[0].payload, SessionStarted):
        with suppress(CorruptTape, *DATABASE_ERRORS):
            texts = blobs.texts(db, (events[0].payload.task,))
    return events, texts, not found.problems and len(events) == len(found.rows)


def _projected(db: Connection, events: Sequence[Event], texts: Mapping[str, str]) -> MemoryTables:
    """Return what events leave in the tables; forks continue from ``db``'s events."""
    made = MemoryTables()
    for event in events:
        add_event(made, db, event, texts)
    return made
