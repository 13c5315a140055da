"""Reading as much as can be read of a database that is damaged, or that somebody changed."""

import json
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from codetape.errors import CorruptTape
from codetape.eventlog.stored_event import StoredEvent
from codetape.ports import MAX_ASKED, RecoveredSession, SessionList
from codetape_adapters.stores.sqlite.connection import DATABASE_ERRORS, store_error
from codetape_adapters.stores.sqlite.schema import differences

ROW = "session, seq, kind, version, at, payload, prev_hash, hash"
_TABLE = re.compile(r"FROM (?:events|blobs|sessions)(?! NOT)")
_HASH = re.compile(r'"([0-9a-f]{64})"')
_COLUMNS = (
    "session", "task", "model", "tags", "state", "reason", "iteration", "events", "input_tokens", "output_tokens",
    "started_at", "updated_at", "head", "parent", "forked_at", "cost", "unpriced", "reused_tokens", "reserved_tokens",
    "reserved_cost", "server", "confidence",
)  # fmt: skip
_NUMBERS = (
    "iteration", "events", "input_tokens", "output_tokens", "forked_at", "cost", "unpriced", "reused_tokens",
    "reserved_tokens", "reserved_cost",
)  # fmt: skip
_TYPES = tuple(int if name in _NUMBERS else str for name in _COLUMNS)
_ORPHANS = (  # from one session to the next by the index, which is a hundredth of reading every event
    "WITH RECURSIVE each(name) AS (SELECT min(session) FROM events UNION ALL"
    " SELECT (SELECT min(session) FROM events WHERE session > each.name) FROM each WHERE each.name IS NOT NULL)"
    " SELECT name FROM each WHERE name IS NOT NULL AND name NOT IN (SELECT session FROM sessions) LIMIT 3"
)
_PROJECTED = (
    "SELECT s.session FROM sessions s LEFT JOIN (SELECT session, max(seq) AS last, hash FROM events GROUP BY session) e"
    " ON e.session = s.session WHERE s.head IS NOT e.hash OR s.events IS NOT e.last + 1"
)


def sessions(db: Connection, path: Path) -> SessionList:
    """Return the lines of the table of sessions, newest first, and what could not be read."""
    names = ", ".join(("rowid", *_COLUMNS))
    rows, problems = _rows(db, path, f"SELECT {names} FROM sessions ORDER BY rowid")  # noqa: S608 - fixed names
    if problems:  # rows behind the damage may still be readable from the other end
        more, _ = _rows(db, path, f"SELECT {names} FROM sessions ORDER BY rowid DESC")  # noqa: S608 - fixed names
        rows = list({row[0]: row for row in (*rows, *more)}.values())
    rows.sort(key=lambda row: row[0], reverse=True)
    listed = [dict(zip(_COLUMNS, row[1:], strict=True)) for row in rows]
    orphans, _ = _rows(db, path, _ORPHANS)
    problems += [f"The list lacks session {row[0]}." for row in orphans if not problems]
    if problems:  # what the list no longer names may still have its events
        names_listed = {row["session"] for row in listed}
        blank = {**dict.fromkeys(_COLUMNS, ""), **dict.fromkeys(_NUMBERS, 0), "state": "unreadable"}
        listed += [{**blank, "session": name} for name in session_ids(db, path) if name not in names_listed]
    lines = [
        row if tuple(map(type, row.values())) == _TYPES else {name: _typed(name, value) for name, value in row.items()}
        for row in listed
    ]
    return SessionList(lines, problems)  # type: ignore[arg-type]  # the columns are the row's keys


def _typed(name: str, value: Any) -> Any:
    """Return a value of the list, if it is of its column's type: a column of SQLite's takes any."""
    kind = int if name in _NUMBERS else str
    return value if type(value) is kind else kind()


def session_ids(db: Connection, path: Path) -> list[str]:
    """Return the ids that the log or the table of sessions names."""
    ids: dict[str, None] = {}
    for query in ("SELECT session FROM sessions", "SELECT DISTINCT session FROM events"):
        rows, _ = _rows(db, path, query)
        ids |= {row[0]: None for row in rows if isinstance(row[0], str)}
    return list(ids)


def asked(db: Connection, path: Path, names: Collection[str]) -> dict[str, str]:
    """Return the beginning of the prompts of sessions, as far as they can be read."""
    wanted = {*names}
    rows, _ = _rows(db, path, "SELECT session, asked FROM sessions WHERE asked <> ''")
    return {row[0]: row[1][:MAX_ASKED] for row in rows if row[0] in wanted and isinstance(row[1], str)}


def stored_rows(db: Connection, session: str) -> list[StoredEvent]:
    """Return a session's own rows."""
    rows = db.execute(f"SELECT {ROW} FROM events WHERE session = ? ORDER BY seq", (session,))  # noqa: S608 - fixed names
    return [StoredEvent.of(values) for values in rows]


def session(db: Connection, path: Path, name: str, *, texts: bool = True) -> RecoveredSession:
    """Read one session's rows in the order of their seq, and their blobs, if ``texts`` are wanted."""
    problems: list[str] = []

    def read(session_id: str) -> list[StoredEvent]:
        records, broken = _rows(db, path, f"SELECT {ROW} FROM events WHERE session = ? ORDER BY seq", session_id)  # noqa: S608 - fixed names
        problems.extend(broken)
        rows: list[StoredEvent] = []
        for values in records:
            try:
                rows.append(StoredEvent.of(values))
            except CorruptTape as error:
                problems.append(str(error))
        return rows

    rows = chain_of(read, name)
    refs = sorted({ref for row in rows for ref in _HASH.findall(row.payload)}) if texts else []
    found, broken = _texts(db, path, refs)
    return RecoveredSession(rows, found, list(dict.fromkeys(problems + broken)))


def _texts(db: Connection, path: Path, refs: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the blobs that can be read: together, and one by one where one of them cannot."""
    from codetape_adapters.stores.sqlite import blobs

    with suppress(CorruptTape, *DATABASE_ERRORS):
        return blobs.texts(db, refs), []
    texts, problems = dict[str, str](), list[str]()
    for ref in refs:
        found, broken = _rows(db, path, "SELECT size, data FROM blobs WHERE hash = ?", bytes.fromhex(ref))
        problems += broken
        for size, data in found:
            with suppress(CorruptTape):
                texts[ref] = blobs.unpack(ref, size, data)
    return texts, problems


def chain_of(read: Callable[[str], list[StoredEvent]], session: str) -> list[StoredEvent]:
    """Return a session's rows after those that it inherits, from its parent's parent on."""
    rows = read(session)
    seen = {session}
    while rows and rows[0].kind == "SessionForked":
        try:
            value = json.loads(rows[0].payload)
            parent, last = str(value["parent"]), int(value["seq"])
        except (ValueError, KeyError, TypeError, OverflowError):
            break
        if parent in seen:  # damaged or forged rows may form a circle
            break
        seen.add(parent)
        inherited = [row for row in read(parent) if row.seq <= last]
        rows = [*inherited, *rows]
    return rows


def unsound(db: Connection, path: Path) -> list[str]:
    """Return what SQLite finds wrong with the file, and sessions whose line in the list disagrees with their events."""
    rows, problems = _rows(db, path, "PRAGMA quick_check(5)")
    problems += [f"{path}: {row[0]}" for row in rows if row[0] != "ok"]
    with suppress(*DATABASE_ERRORS):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        problems += [f"{path} is not as codetape made it: {found.message}." for found in differences(db, version)]
    rows, broken = _rows(db, path, _PROJECTED)
    return problems + broken + [f"The list's line on session {row[0]} is not that of its events." for row in rows]


def _rows(db: Connection, path: Path, query: str, *values: Any) -> tuple[list[Any], list[str]]:
    """Return a query's rows up to the first that cannot be read, and what SQLite says of that one."""
    rows: list[Any] = []
    try:
        for row in db.execute(query, values):
            rows.append(row)  # noqa: PERF402 - what was read before an error stays
    except DATABASE_ERRORS as error:
        problem = str(store_error(path, error))
        if table := _TABLE.search(query):  # an index may be what is broken
            with suppress(*DATABASE_ERRORS):
                for row in db.execute(query.replace(table[0], f"{table[0]} NOT INDEXED", 1), values):
                    if row not in rows:
                        rows.append(row)
        return rows, [problem]
    return rows, []
