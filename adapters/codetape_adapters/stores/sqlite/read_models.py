"""Tables of calls, test runs, decisions and builds: what views show, brought up to date with every event.

Rows are made from decoded payloads, so that views show events of every version alike; they can be rebuilt from the
events. Statements are plain SQL by column name, for they are part of the append, which every event waits for.
"""

from collections.abc import Mapping
from contextlib import suppress
from sqlite3 import Connection
from typing import Any

from codetape.errors import CorruptTape
from codetape.eventlog.events import (
    Answered,
    BuildFinished,
    BuildRefused,
    CallClosed,
    CallLost,
    CallRefused,
    Decided,
    GaveUp,
    Payload,
    Requested,
    TestsFinished,
)
from codetape.eventlog.stored_event import StoredEvent
from codetape.eventlog.upcasters import decode_payload

_BUCKETS = ("input", "cache_read", "cache_write", "output", "reasoning")
READ_MODEL_TABLES = (
    "CREATE TABLE call_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, purpose TEXT NOT NULL, "
    "outcome TEXT,"
    " model TEXT, finish_reason TEXT, input INTEGER, cache_read INTEGER, cache_write INTEGER, output INTEGER, "
    "reasoning INTEGER,"
    " cost REAL, cost_source TEXT, replayed INTEGER NOT NULL DEFAULT 0, retries INTEGER, duration_ms INTEGER,"
    " UNIQUE (session, seq))",
    "CREATE TABLE test_run_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, purpose TEXT NOT NULL,"
    " exit TEXT NOT NULL, passed INTEGER NOT NULL, failed INTEGER NOT NULL, errors INTEGER NOT NULL, skipped INTEGER "
    "NOT NULL,"
    " duration_ms INTEGER NOT NULL, UNIQUE (session, seq))",
    "CREATE TABLE decision_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,"
    " about TEXT NOT NULL, usable INTEGER NOT NULL, reason TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,"
    " confidence TEXT, UNIQUE (session, seq))",
    "CREATE TABLE build_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, outcome TEXT NOT NULL,"
    " image TEXT NOT NULL, reason TEXT NOT NULL, UNIQUE (session, seq))",
)
READ_MODEL_VIEWS = (
    "CREATE VIEW llm_calls AS SELECT c.session, c.seq, c.at, s.task, s.model AS asked_model, c.purpose, c.outcome, "
    "c.model,"
    " c.finish_reason, c.input, c.cache_read, c.cache_write, c.output, c.reasoning, c.cost, c.cost_source, "
    "c.replayed, c.retries,"
    " c.duration_ms FROM call_rows c JOIN sessions s USING (session)",
    "CREATE VIEW test_runs AS SELECT * FROM test_run_rows",
    "CREATE VIEW spend AS SELECT session, task, asked_model AS model, purpose, count(*) AS calls, sum(input) AS input,"
    " sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output) AS output, sum(reasoning) AS "
    "reasoning,"
    " sum(cost) AS cost, sum(outcome = 'Answered' AND cost IS NULL) AS unpriced"
    " FROM llm_calls WHERE NOT replayed GROUP BY session, purpose",
    "CREATE VIEW decisions AS SELECT * FROM decision_rows",
    "CREATE VIEW failures AS"
    " SELECT session, seq, at, 'tests' AS what, purpose || ': ' || failed || ' failed, ' || errors || ' errors, ' || "
    "exit AS detail"
    " FROM test_runs WHERE purpose <> 'vet' AND (failed > 0 OR errors > 0 OR exit <> 'ok')"
    " UNION ALL SELECT session, seq, at, 'answer', about || ': ' || reason FROM decisions WHERE NOT usable"
    " UNION ALL SELECT session, seq, at, 'call', kind FROM events WHERE kind IN ('CallLost', 'GaveUp', 'CallRefused')"
    " UNION ALL SELECT session, seq, at, 'build', reason FROM build_rows WHERE outcome = 'BuildRefused'"
    " UNION ALL SELECT session, seq, at, 'session', reason FROM decisions WHERE kind = 'Failed'",
)


def add(db: Connection, session: str, seq: int, at: str, payload: Payload) -> None:
    """Bring the tables up to date with one event."""
    key = {"session": session, "seq": seq, "at": at}
    if isinstance(payload, Decided):
        insert(db, "decision_rows", {**key, **_decision(payload)})
    elif isinstance(payload, Requested):
        if payload.effect == "ask":
            insert(db, "call_rows", {**key, "purpose": payload.purpose})
    elif isinstance(payload, Answered | CallRefused | CallLost | GaveUp):
        _close(db, payload)
    elif isinstance(payload, TestsFinished):
        names = ("purpose", "exit", "passed", "failed", "errors", "skipped", "duration_ms")
        insert(db, "test_run_rows", {**key, **{name: getattr(payload, name) for name in names}})
    elif isinstance(payload, BuildFinished):
        insert(db, "build_rows", {**key, "outcome": "BuildFinished", "image": payload.image, "reason": ""})
    elif isinstance(payload, BuildRefused):
        insert(db, "build_rows", {**key, "outcome": "BuildRefused", "image": "", "reason": payload.reason})


def _decision(payload: Decided) -> dict[str, Any]:
    names = ("about", "usable", "reason", "source", "target")
    fields = {name: getattr(payload, name) for name in names}
    return {"kind": type(payload).__name__, **fields, "confidence": getattr(payload, "confidence", None)}


def _close(db: Connection, payload: CallClosed) -> None:
    """Complete the row of the call that an event closes; builds and executions have no row."""
    columns: dict[str, Any] = {"outcome": type(payload).__name__}
    if isinstance(payload, Answered):
        price = payload.price
        columns |= {name: getattr(payload.usage, name) for name in _BUCKETS}
        columns |= {"model": payload.model, "finish_reason": payload.finish_reason, "duration_ms": payload.duration_ms}
        columns |= {"cost": float(price.cost) if price else None, "cost_source": price.source if price else None}
        columns |= {"replayed": int(bool(payload.matched_by)), "retries": len(payload.tries)}
    elif isinstance(payload, GaveUp):
        columns["retries"] = len(payload.tries)
    session, _, seq = payload.call.rpartition(":")
    sets = ", ".join(f"{name} = :{name}" for name in columns)
    values = {**columns, "session": session, "seq": int(seq)}
    db.execute(f"UPDATE call_rows SET {sets} WHERE session = :session AND seq = :seq", values)  # noqa: S608 - fixed names


def insert(db: Connection, table: str, row: Mapping[str, Any]) -> None:
    """Insert a row by its columns' names."""
    names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)  # noqa: S608 - fixed names


def rebuild(db: Connection) -> None:
    """Fill the tables from the events, as far as those can be read."""
    for table in ("call_rows", "test_run_rows", "decision_rows", "build_rows"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608 - fixed names
    query = "SELECT session, seq, kind, version, at, payload, prev_hash, hash FROM events ORDER BY rowid"
    for values in db.execute(query).fetchall():
        with suppress(CorruptTape):  # a damaged database opens all the same; `codetape verify` says what is wrong
            event = StoredEvent.of(values)
            add(
                db,
                event.session,
                event.seq,
                event.at,
                decode_payload(event.kind, event.version, event.payload, event.seq),
            )
