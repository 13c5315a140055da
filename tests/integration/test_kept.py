"""What a store keeps beside its events: always what they say, found out where it is not, and made again from them."""

import asyncio
import contextlib
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape import AutoCoderAgent, api
from codetape.domain.budget import Limit
from codetape.errors import UsageError
from codetape.eventlog.call_history import CallHistory
from codetape.eventlog.envelope import encode
from codetape.eventlog.stored_event import GENESIS
from codetape.playback import tape_file
from codetape.ports import Stream
from codetape.testing import FakeClock
from codetape_adapters.stores.sqlite.rebuilding import TABLES
from codetape_adapters.stores.sqlite.reservations import spent
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.corpora import random_corpus
from tests.helpers.forked import codetape
from tests.property.test_machine import live, worlds
from tests.worlds import World

SUMS = "SELECT sum(input_tokens + output_tokens - reused_tokens + open_tokens + reserved_tokens), sum(cost + open_cost + reserved_cost)"  # fmt: skip


def fork(store, drawn, parent, at, name):
    """Fork a session at an event, where that can be; with a label of its own."""
    world = World(*drawn)
    agent = AutoCoderAgent(model=world, sandbox=world.sandbox, store=store, clock=FakeClock())
    with contextlib.suppress(UsageError):
        asyncio.run(agent.afork(parent, at, fork=name, changes={"max_iterations": 6}, tags=[f"of-{name}"]))


@given(worlds, st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=25)
def test_what_is_kept_is_what_the_events_say_of_forks_and_forks_of_forks_too(drawn, first, second):
    _, stream, _, _, _ = live(*drawn)
    store = SqliteStore("kept.db")
    try:
        store.put(stream) if "s" not in store.stored_sessions() else None
        fork(store, drawn, "s", first % len(stream.events), "f")
        if "f" in store.stored_sessions():
            fork(store, drawn, "f", second % len(asyncio.run(store.read("f")).events), "g")
        kept = [(labels, list(calls)) for labels, calls in store.kept_calls()]
        derived = [(labels, calls) for labels, calls in CallHistory().sessions(store.call_events()) if calls]
        assert kept == derived
        for session in store.stored_sessions():
            read = asyncio.run(store.read(session))
            assert store.disagreeing(session, read.events, read.texts) == []
    finally:
        store.close()
        store.path.unlink()


@pytest.fixture
def path(tmp_path):
    store = SqliteStore(tmp_path / "tape.db")
    random_corpus(store, 12, attempts=3)
    store.close()
    return store.path


WRONG = {
    "sessions": "UPDATE sessions SET cost = cost + 1 WHERE session = :s",
    "call_rows": "UPDATE call_rows SET output = output + 1 WHERE session = :s AND seq = (SELECT min(seq) FROM call_rows WHERE session = :s)",
    "test_run_rows": "UPDATE test_run_rows SET passed = passed + 1 WHERE session = :s",
    "decision_rows": "DELETE FROM decision_rows WHERE session = :s",
    "build_rows": "INSERT INTO build_rows VALUES (:s, 9999, '', 'BuildFinished', 'x', '')",
    "session_tags": "DELETE FROM session_tags WHERE session = :s",
}


@pytest.mark.parametrize("table", WRONG)
def test_what_is_kept_otherwise_than_the_events_say_is_found_and_made_again(path, table):
    assert {"sessions", *TABLES} == {*WRONG}
    assert api.verify(store=str(path), everything=True).sound  # the control
    with contextlib.closing(sqlite3.connect(path)) as db:
        before = db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        (session,) = db.execute("SELECT min(session) FROM test_run_rows").fetchone()
        assert db.execute(WRONG[table], {"s": session}).rowcount
        db.commit()
    found = codetape("verify", "--all", "--db", str(path))
    assert found.returncode == 1
    assert f"of session {session} are not what its events say" in found.stderr
    assert found.stdout.count(": sound") == 11
    mended = codetape("verify", "--all", "--rebuild", "--db", str(path))
    assert mended.returncode in (0, 103), mended.stderr
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() == before


def test_labels_from_elsewhere_that_hold_a_comma_are_told_apart_alike_everywhere(tmp_path):
    demo = tape_file.load("demo").stream
    started, asked = (
        next(e.payload for e in demo.events if e.kind == kind) for kind in ("SessionStarted", "Requested")
    )
    first = encode("x", 0, demo.events[0].at, started.model_copy(update={"tags": ("a,b", "", "c")}), GENESIS)
    second = encode("x", 1, first.at, asked.model_copy(update={"call": "x:1"}), first.hash)
    store = SqliteStore(tmp_path / "labels.db")
    store.put(Stream((first, second), demo.texts))
    kept = [(labels, list(calls)) for labels, calls in store.kept_calls()]
    assert kept == list(CallHistory().sessions(store.call_events()))
    assert kept[0][0].tags == ("a", "b", "c")
    assert spent(store._db(), Limit("tag:b", tokens=1), "").tokens == 0
    assert store._db().execute("SELECT tag FROM session_tags ORDER BY 1").fetchall() == [("a",), ("b",), ("c",)]
    store.close()


def test_a_damaged_session_keeps_its_line_and_hinders_no_other(path):
    """An event and a task that were edited: what is kept is made again around them, and verify says what is wrong."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("UPDATE events SET payload = '{}' WHERE session = 's1' AND seq = 4")
        (task,) = db.execute("SELECT json_extract(payload, '$.task') FROM events WHERE session = 's2' AND seq = 0").fetchone()  # fmt: skip
        db.execute("UPDATE blobs SET data = x'00' WHERE hash = ?", (bytes.fromhex(task),))
        for _, sql in triggers:
            db.execute(sql)
        db.execute("DELETE FROM call_rows")
        db.commit()
        lines = db.execute("SELECT * FROM sessions WHERE session = 's1'").fetchall()
    mended = codetape("verify", "--all", "--rebuild", "--db", str(path))
    assert mended.returncode == 1
    assert "s1: not sound" in mended.stderr
    assert "s3: sound" in mended.stdout
    assert "error of codetape's own" not in mended.stderr
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM sessions WHERE session = 's1'").fetchall() == lines
        assert db.execute("SELECT count(*) FROM call_rows WHERE session = 's3'").fetchone()[0]


def test_sums_of_a_label_and_of_the_database_are_those_of_their_sessions(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        for scope, where in (("database", ""), ("tag:corpus", " WHERE tags = 'corpus'")):
            expected = db.execute(f"{SUMS} FROM sessions{where}").fetchone()
            found = spent(db, Limit(scope, tokens=1), "")
            assert (found.tokens, found.cost) == expected
            assert found.tokens
        assert spent(db, Limit("tag:of-nothing", tokens=1), "").tokens == 0
        # it is looked up, whatever the number of sessions
        plan = db.execute("EXPLAIN QUERY PLAN SELECT tokens, cost FROM spent_rows WHERE scope = 'tag:x'").fetchall()
        assert "SEARCH" in plan[0][-1]


def test_sums_follow_what_is_forgotten_and_imported(path):
    store = SqliteStore(path)
    stream = asyncio.run(store.read("s3"))
    before = store._db().execute("SELECT * FROM spent_rows ORDER BY 1").fetchall()
    asyncio.run(store.forget("s1"))
    other = SqliteStore(path)
    assert other._db().execute("SELECT * FROM spent_rows ORDER BY 1").fetchall() == before
    assert other.asked(["s1", "s3"]) == {"s3": "Add."}  # what was asked is content
    assert "Add." not in str(other._db().execute("SELECT * FROM sessions WHERE session = 's1'").fetchall())
    other.close()
    imported = SqliteStore(path.with_name("other.db"))
    imported.put(stream)
    line = "SELECT input_tokens + output_tokens, cost FROM sessions"
    assert imported._db().execute("SELECT tokens, cost FROM spent_rows").fetchall() == 2 * imported._db().execute(line).fetchall()  # fmt: skip
    imported.close()
    store.close()


def test_a_database_of_the_last_schema_is_brought_up_to_date_with_what_is_kept(path):
    """Its tables are those that the steps before the last one made; its events say the rest."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        kept = db.execute("SELECT * FROM call_rows ORDER BY 1, 2").fetchall()
        lines = db.execute("SELECT * FROM sessions ORDER BY 1").fetchall()
    from sqlite_utils import Database

    from codetape_adapters.stores.sqlite import migrations

    old = path.with_name("old.db")
    connection = sqlite3.connect(old, isolation_level=None)
    made = Database(connection)
    steps = [step.name for step in migrations.MIGRATIONS.pending(made)]
    migrations.MIGRATIONS.apply(made, stop_before=steps[-1:])
    connection.execute(f"PRAGMA user_version = {len(steps) - 1}")
    connection.execute(f"PRAGMA application_id = {0x63746170}")
    connection.execute("ATTACH ? AS new", (str(path),))
    connection.execute("PRAGMA recursive_triggers = OFF")
    for table in ("events", "blobs", "leases"):
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table} ORDER BY rowid")
    names = ", ".join(row[1] for row in connection.execute("PRAGMA main.table_info(sessions)"))
    connection.execute(f"INSERT INTO main.sessions ({names}) SELECT {names} FROM new.sessions ORDER BY rowid")
    connection.close()
    assert api.verify(store=str(old), everything=True).unbroken
    with contextlib.closing(sqlite3.connect(old)) as db:
        assert db.execute("SELECT * FROM call_rows ORDER BY 1, 2").fetchall() == kept
        assert db.execute("SELECT * FROM sessions ORDER BY 1").fetchall() == lines
        assert db.execute("SELECT tokens FROM spent_rows WHERE scope = 'database'").fetchone()[0]
