"""The tables that are kept beside the events, as their projection sees them: in the database, or in memory.

Those in memory are for comparing what is kept with what the events say, and for making it again: a session's rows are
made there in a third of the time.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from sqlite3 import Connection
from typing import Any, Protocol

from codetape.eventlog.events import CallClosed
from codetape.eventlog.kept_call import KeptCall
from codetape_adapters.stores.sqlite import reservations
from codetape_adapters.stores.sqlite.connection import one
from codetape_adapters.stores.sqlite.reservations import MOST

COLUMNS: dict[str, tuple[str, ...]] = {
    "sessions": (
        "session", "task", "model", "tags", "state", "reason", "confidence", "iteration", "events", "input_tokens",
        "output_tokens", "started_at", "updated_at", "head", "parent", "forked_at", "cost", "unpriced", "reused_tokens",
        "server", "lineage", "prompts", "asked",
    ),
    "call_rows": (*KeptCall._fields, "model", "finish_reason"),
    "test_run_rows": (
        "session", "seq", "at", "purpose", "exit", "passed", "failed", "errors", "skipped", "duration_ms",
    ),
    "decision_rows": (
        "session", "seq", "at", "kind", "about", "usable", "reason", "source", "target", "confidence",
    ),
    "build_rows": ("session", "seq", "at", "outcome", "image", "reason"),
    "session_tags": ("session", "tag"),
}  # fmt: skip
"""What events say of a session, by table; a session's line has reservations besides, which running calls make."""
_COUNTS = {"iteration", "events", "input_tokens", "output_tokens", "forked_at", "cost", "unpriced", "reused_tokens"}
_BLANK = {name: 0 if name in _COUNTS else "" for name in COLUMNS["sessions"]}
_FIXED = KeptCall._fields.index("reserved")
"""How many fields of a call do not change once it has begun."""
_NEW_CALL = f"INSERT INTO call_rows ({', '.join(KeptCall._fields)}) VALUES ({', '.join('?' for _ in KeptCall._fields)})"
_LAST_CALL = f"SELECT {', '.join(KeptCall._fields)} FROM call_rows WHERE session = ? ORDER BY seq DESC LIMIT 1"
_CHANGED_CALL = (
    f"UPDATE call_rows SET {', '.join(f'{name} = ?' for name in KeptCall._fields[_FIXED:])},"
    " model = coalesce(?, model), finish_reason = coalesce(?, finish_reason) WHERE session = ? AND seq = ?"
)


class KeptTables(Protocol):
    """What a projection needs of the tables."""

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        """Insert a row by its columns' names; a label that a session has already stays."""

    def line(self, session: str) -> Mapping[str, Any] | None:
        """Return a session's line, as far as events say it."""

    def change_line(
        self, session: str, sets: Mapping[str, Any], adds: Mapping[str, int], closed: CallClosed | None
    ) -> None:
        """Set some fields of a session's line, and add to others; release what the call that was ``closed`` reserved."""

    def begin_call(self, call: KeptCall) -> None:
        """Add a call that is about to be made."""

    def last_call(self, session: str) -> KeptCall | None:
        """Return the last call of a session."""

    def change_last_call(self, call: KeptCall, model: str | None, finish_reason: str | None) -> None:
        """Put a session's last call in its place; a model or reason of None stays what it was."""

    def revert(self, session: str) -> None:
        """Take back the last call that changed the code."""


class DatabaseTables:
    """The tables of a database. Statements are plain SQL: they are part of the append, which every event waits for."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        """Insert a row by its columns' names; a label that a session has already stays."""
        self._db.execute(_insertion(table, tuple(row)), row)

    def line(self, session: str) -> Mapping[str, Any] | None:
        """Return a session's line, as far as events say it."""
        row = one(self._db, _LINE, session)
        return row and dict(zip(COLUMNS["sessions"], row, strict=True))

    def change_line(
        self, session: str, sets: Mapping[str, Any], adds: Mapping[str, int], closed: CallClosed | None
    ) -> None:
        """Set some fields of a session's line, and add to others; release what the call that was ``closed`` reserved."""
        settled = reservations.settled(closed) if closed is not None else ()
        self._db.execute(_change(tuple(sets), tuple(adds), settled), (*sets.values(), *adds.values(), session))

    def begin_call(self, call: KeptCall) -> None:
        """Add a call that is about to be made."""
        self._db.execute(_NEW_CALL, _capped(call))

    def last_call(self, session: str) -> KeptCall | None:
        """Return the last call of a session."""
        row = one(self._db, _LAST_CALL, session)
        return row and KeptCall._make(row)

    def change_last_call(self, call: KeptCall, model: str | None, finish_reason: str | None) -> None:
        """Put a session's last call in its place; a model or reason of None stays what it was."""
        self._db.execute(_CHANGED_CALL, (*_capped(call)[_FIXED:], model, finish_reason, call.session, call.seq))

    def revert(self, session: str) -> None:
        """Take back the last call that changed the code."""
        last = "SELECT max(seq) FROM call_rows WHERE session = ?1 AND code"
        self._db.execute(f"UPDATE call_rows SET reverted = 1 WHERE session = ?1 AND seq = ({last})", (session,))

    def rows(self, table: str, session: str) -> list[tuple[Any, ...]]:
        """Return what a table keeps of a session, in order."""
        order = 2 if table != "sessions" else 1
        query = f"SELECT {', '.join(COLUMNS[table])} FROM {table} WHERE session = ? ORDER BY {order}"
        return self._db.execute(query, (session,)).fetchall()


class MemoryTables:
    """What events leave in the tables, of some sessions. It refuses what those of a database refuse, with ValueError or
    OverflowError: a second line of a session, an integer of more than 64 bits."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, Any]] = {}
        self._rows: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
        self._calls: dict[str, list[tuple[KeptCall, str | None, str | None]]] = {}

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        """Insert a row by its columns' names; a label that a session has already stays."""
        _fit(row.values())
        if table == "sessions":
            if row["session"] in self._lines:
                raise ValueError("the session has a line already")
            self._lines[row["session"]] = {**_BLANK, **row}
            return
        values, kept = tuple(row[name] for name in COLUMNS[table]), self._rows.setdefault((table, row["session"]), [])
        if table != "session_tags" or values not in kept:
            kept.append(values)

    def line(self, session: str) -> Mapping[str, Any] | None:
        """Return a session's line, as far as events say it."""
        return self._lines.get(session)

    def change_line(
        self, session: str, sets: Mapping[str, Any], adds: Mapping[str, int], closed: CallClosed | None
    ) -> None:
        """Set some fields of a session's line, and add to others; events alone reserve nothing."""
        _fit(sets.values())
        if line := self._lines.get(session):
            line |= sets
            for name, more in adds.items():
                whole = line[name] + more  # SQLite adds up in floating point what does not fit
                line[name] = whole if whole <= MOST else float(line[name]) + float(more)

    def begin_call(self, call: KeptCall) -> None:
        """Add a call that is about to be made."""
        calls = self._calls.setdefault(call.session, [])
        if calls and calls[-1][0].seq == call.seq:
            raise ValueError("the call is there already")
        calls.append((call, None, None))

    def last_call(self, session: str) -> KeptCall | None:
        """Return the last call of a session."""
        calls = self._calls.get(session)
        return calls[-1][0] if calls else None

    def change_last_call(self, call: KeptCall, model: str | None, finish_reason: str | None) -> None:
        """Put a session's last call in its place; a model or reason of None stays what it was."""
        calls = self._calls[call.session]
        _, model_before, reason_before = calls[-1]
        kept_model = model_before if model is None else model
        calls[-1] = call, kept_model, reason_before if finish_reason is None else finish_reason

    def revert(self, session: str) -> None:
        """Take back the last call that changed the code."""
        calls = self._calls.get(session, [])
        for at in range(len(calls) - 1, -1, -1):
            call, model, reason = calls[at]
            if call.code:
                calls[at] = call._replace(reverted=1), model, reason
                return

    def rows(self, table: str, session: str) -> list[tuple[Any, ...]]:
        """Return what a table keeps of a session, in order."""
        if table == "sessions":
            line = self._lines.get(session)
            return [tuple(line[name] for name in COLUMNS[table])] if line else []
        if table == "call_rows":
            return [(*_capped(call), model, reason) for call, model, reason in self._calls.get(session, ())]
        return sorted(self._rows.get((table, session), []), key=lambda row: row[1])


_LINE = f"SELECT {', '.join(COLUMNS['sessions'])} FROM sessions WHERE session = ?"


@cache  # a table's rows have the same columns each time
def _insertion(table: str, columns: tuple[str, ...]) -> str:
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    ignoring = " OR IGNORE" if table == "session_tags" else ""
    return f"INSERT{ignoring} INTO {table} ({names}) VALUES ({marks})"


@cache
def _change(sets: tuple[str, ...], adds: tuple[str, ...], settled: tuple[str, ...]) -> str:
    parts = [*(f"{name} = ?" for name in sets), *(f"{name} = {name} + ?" for name in adds), *settled]
    return f"UPDATE sessions SET {', '.join(parts)} WHERE session = ?"


def _fit(values: Iterable[Any]) -> None:
    """Raise OverflowError for an integer that no column holds, as a database does."""
    if any(type(value) is int and value > MOST for value in values):
        raise OverflowError("an integer has more than 64 bits")


def _capped(call: KeptCall) -> tuple[Any, ...]:
    """Return a call's fields as a column can hold them: figures from elsewhere may be longer than 64 bits."""
    return tuple(min(value, MOST) if type(value) is int else value for value in call)
