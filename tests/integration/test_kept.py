"""What a store keeps beside its events: always what they say, found out where it is not, and made again from them."""

import asyncio
import contextlib
import json
import random
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from codetape import AutoCoderAgent, api
from codetape.domain.budget import Limit
from codetape.domain.canonical import sha256
from codetape.errors import UsageError
from codetape.eventlog.call_history import CallHistory
from codetape.eventlog.envelope import encode, stored
from codetape.eventlog.events import ConfigChanged, Price, SessionForked
from codetape.eventlog.stored_event import GENESIS
from codetape.playback import tape_file, verify_many
from codetape.ports import Stream
from codetape.testing import FakeClock
from codetape_adapters.stores.sqlite import catalog, migrations
from codetape_adapters.stores.sqlite.rebuilding import TABLES
from codetape_adapters.stores.sqlite.reservations import MOST, spent
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


def chained(session, payloads, head=GENESIS, seq=0):
    """Return a session's events, each following the one before."""
    events = []
    for payload in payloads:
        events.append(encode(session, seq, "2026-01-01T00:00:00.000Z", payload, head))
        seq, head = seq + 1, events[-1].hash
    return events


def recorded(kind):
    return next(e.payload for e in tape_file.load("demo").stream.events if e.kind == kind)


def edited(path, statement, *values):
    """Change a database as somebody with an editor would, its triggers off for the moment."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        assert db.execute(statement, values).rowcount
        for _, sql in triggers:
            db.execute(sql)
        db.commit()


def test_a_fork_whose_parent_is_damaged_keeps_its_calls_its_labels_and_what_they_spent(path):
    store = SqliteStore(path)
    fork(store, (random.Random(1), 0.05), "s0", 3, "f")
    before = [(labels, list(calls)) for labels, calls in store.kept_calls(["f"])]
    own = spent(store._db(), Limit("tag:of-f", tokens=1), "")
    store.close()
    assert before
    assert own.tokens
    edited(path, "UPDATE events SET payload = '{}' WHERE session = 's0' AND seq = 1")
    store = SqliteStore(path)
    store.rebuild()
    assert [(labels, list(calls)) for labels, calls in store.kept_calls(["f"])] == before
    assert spent(store._db(), Limit("tag:of-f", tokens=1), "") == own
    store.close()


def test_a_fork_from_before_its_parents_server_changed_has_the_server_of_then(tmp_path):
    texts = tape_file.load("demo").stream.texts
    started = recorded("SessionStarted").model_copy(update={"server": "http://a"})
    parent = chained("p", [started, ConfigChanged(changes=started.config, server="http://b")])
    begun = SessionForked(
        parent="p", seq=0, hash=parent[0].hash, config=started.config, pack={}, versions=started.versions
    )
    chain = [parent[0], *chained("f", [begun], parent[0].hash, 1)]
    store = SqliteStore(tmp_path / "servers.db")
    store.put(Stream(tuple(parent), texts), Stream(tuple(chain), texts))
    assert {row["session"]: row["server"] for row in store.sessions().rows} == {"p": "http://b", "f": "http://a"}
    assert store.disagreeing("f", chain, texts) == []
    store.close()


def test_a_line_that_was_lost_comes_back_before_its_forks(path):
    store = SqliteStore(path)
    fork(store, (random.Random(1), 0.05), "s0", 12, "f")
    order = [row["session"] for row in store.sessions().rows]
    store.close()
    edited(path, "DELETE FROM sessions WHERE session = 's0'")
    store = SqliteStore(path)
    store.rebuild()
    assert [row["session"] for row in store.sessions().rows] == order
    assert store.find("last") == "f"
    store.close()


def test_sums_that_were_changed_are_found_and_made_again(path):
    edited(path, "UPDATE spent_rows SET tokens = 0, cost = 0")
    found = codetape("verify", "--all", "--db", str(path))
    assert found.returncode == 1
    assert "is not the sum of the sessions" in found.stderr
    assert codetape("verify", "--all", "--rebuild", "--db", str(path)).returncode in (0, 103)


def test_sums_beyond_what_a_column_holds_are_the_most_that_it_holds(path):
    edited(path, "UPDATE sessions SET reserved_cost = 9000000000000000000")
    store = SqliteStore(path)
    store.rebuild()
    assert spent(store._db(), Limit("database", tokens=1), "").cost == 2**63 - 1
    store.close()


def test_rebuilding_what_is_not_there_makes_nothing(tmp_path):
    done = codetape("verify", "--all", "--rebuild", "--db", str(tmp_path / "none.db"))
    assert done.returncode == 2
    assert "There is no database" in done.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("change", ["input = -5", "purpose = '<b>'", "at = 'yesterday'", "cost = -1"])
def test_a_kept_call_with_a_value_that_no_call_has_is_refused(path, change):
    edited(path, f"UPDATE call_rows SET {change} WHERE session = 's1'")
    done = codetape("spend", "--db", str(path), "--prices-as-of", "2025-01-01")
    assert done.returncode == 1
    assert "session s1 have a value that no call has" in done.stderr
    assert "--rebuild" in done.stderr


def test_events_that_come_while_a_session_is_verified_are_no_finding(path, monkeypatch):
    store, texts = SqliteStore(path), tape_file.load("demo").stream.texts
    events = chained("going", [recorded("SessionStarted"), recorded("AnchorsExtracted")])
    store.put(Stream(tuple(events[:1]), texts))
    real = store.disagreeing

    def later(session, known, known_texts):
        store.put(Stream(tuple(events), texts))
        return real(session, known, known_texts)

    monkeypatch.setattr(store, "disagreeing", later)
    assert verify_many._of_store(store, "going").done.findings == ()
    assert later("going", events[:1], texts)  # the control: compared with the events of before, something differs
    store.close()


@pytest.mark.parametrize(
    "task", ['{"prompt":"\\ud800"}', "[" * 200_000, "null", '{"prompt":7}'], ids=["surrogate", "deep", "none", "number"]
)
def test_a_task_whose_prompt_cannot_be_shown_hinders_nothing(tmp_path, task):
    started = recorded("SessionStarted").model_copy(update={"task": sha256(task)})
    store = SqliteStore(tmp_path / "odd.db")
    store.put(Stream(tuple(chained("odd", [started])), {**tape_file.load("demo").stream.texts, sha256(task): task}))
    store.rebuild()
    assert store.asked(["odd"]).get("odd", "") in ("", "7", "\ufffd")
    store.close()


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


def of_the_last_schema(path):
    """Return a database with the same events and lines, and the tables that the steps before the last one made."""
    old = path.with_name("old.db")
    connection = sqlite3.connect(old, isolation_level=None)
    made = Database(connection)
    steps = [step.name for step in migrations.MIGRATIONS.pending(made)]
    migrations.MIGRATIONS.apply(made, stop_before=steps[-1:])
    connection.execute(f"PRAGMA user_version = {len(steps) - 1}")
    connection.execute(f"PRAGMA application_id = {0x63746170}")
    connection.execute("ATTACH ? AS new", (str(path),))
    for table in ("events", "blobs", "leases"):
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table} ORDER BY rowid")
    names = ", ".join(row[1] for row in connection.execute("PRAGMA main.table_info(sessions)"))
    connection.execute(f"INSERT INTO main.sessions ({names}) SELECT {names} FROM new.sessions ORDER BY rowid")
    connection.close()
    return old


def test_a_database_of_the_last_schema_is_brought_up_to_date_with_what_is_kept(path):
    old = of_the_last_schema(path)
    assert api.verify(store=str(old), everything=True).unbroken
    for query in ("SELECT * FROM call_rows ORDER BY 1, 2", "SELECT * FROM sessions ORDER BY 1", "SELECT * FROM spent_rows ORDER BY 1"):  # fmt: skip
        with contextlib.closing(sqlite3.connect(path)) as new, contextlib.closing(sqlite3.connect(old)) as db:
            assert db.execute(query).fetchall() == new.execute(query).fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET at = 'yesterday' WHERE session = 's1' AND seq = 4",
        "UPDATE events SET payload = '{\"parent\":\"x\",\"seq\":1e999}', kind = 'SessionForked' WHERE session = 's1' AND seq = 0",
        "UPDATE events SET kind = 'SessionStarted', payload = (SELECT payload FROM events WHERE session = 's1' AND seq = 0) WHERE session = 's1' AND seq = 4",
    ],
    ids=["a time", "a parent", "a second start"],
)
def test_a_damaged_session_of_an_older_database_counts_in_budgets_and_hinders_no_other(path, statement):
    old = of_the_last_schema(path)
    edited(old, statement)
    listed = codetape("list", "--json", "--db", str(old))
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)["sessions"]) == 12
    assert codetape("spend", "s2", "--db", str(old)).returncode == 0
    with contextlib.closing(sqlite3.connect(path)) as new, contextlib.closing(sqlite3.connect(old)) as db:
        for scope in ("database", "tag:corpus"):
            assert spent(db, Limit(scope, tokens=1), "") == spent(new, Limit(scope, tokens=1), "")


def of_demo(kind, **changed):
    """Return the first payload of a kind on the demo's tape, with some fields changed."""
    payload = next(e.payload for e in tape_file.load("demo").stream.events if e.kind == kind)
    return payload.model_copy(update=changed)


def streamed(name, *payloads, first=0):
    """Return payloads as a session's stream."""
    events, head = [], GENESIS
    for seq, payload in enumerate(payloads, first):
        events.append(encode(name, seq, "2026-01-01T00:00:00.000Z", payload, head))
        head = events[-1].hash
    return Stream(tuple(events), tape_file.load("demo").stream.texts)


def spending(name, cost, times):
    """Return a session that starts and has so many calls answered at a price."""
    payloads = [of_demo("SessionStarted")]
    for _ in range(times):
        call = f"{name}:{len(payloads)}"
        price = Price(cost=cost, source="settings", model="m")
        payloads += [of_demo("Requested", call=call), of_demo("Answered", call=call, matched_by="", price=price)]
    return payloads


def test_a_sum_beyond_64_bits_is_kept_and_made_again_as_the_database_adds_it_up(tmp_path):
    stream = streamed("x", *spending("x", "999999.123456789013", 12))
    with contextlib.closing(SqliteStore(tmp_path / "tape.db")) as store:
        store.put(stream)
        store.put(streamed("good", of_demo("SessionStarted")))
        kept = store._db().execute("SELECT cost, typeof(cost) FROM sessions WHERE session = 'x'").fetchone()
        assert kept[1] == "real"
        assert store.disagreeing("x", stream.events, stream.texts) == []
        store.rebuild()
        assert store._db().execute("SELECT cost, typeof(cost) FROM sessions WHERE session = 'x'").fetchone() == kept
        assert store.disagreeing("x", stream.events, stream.texts) == []


@pytest.mark.parametrize("odd", ["a second start", "the last number there is"])
def test_what_no_table_takes_is_not_made_again_and_hinders_no_other(tmp_path, odd):
    path = tmp_path / "tape.db"
    payloads = spending("x", "7", 1)
    with contextlib.closing(SqliteStore(path)) as store:
        store.put(streamed("x", *payloads))
        store.put(streamed("good", of_demo("SessionStarted")))
    if odd == "a second start":
        more = streamed("x", *payloads, of_demo("SessionStarted")).events[-1]
    else:
        more = streamed("bad", of_demo("SessionStarted"), first=MOST).events[0]
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", stored(more))
        db.commit()
        query = "SELECT session, cost, input_tokens FROM sessions WHERE session <> 'bad'"
        before = db.execute(query).fetchall()
        done = codetape("verify", "--all", "--rebuild", "--db", str(path))
        assert (done.returncode, "codetape's own" in done.stderr) == (1, False), done.stderr
        assert "good: sound" in done.stdout
        assert db.execute(query).fetchall() == before
        assert ("x", 7 * 10**12) in [row[:2] for row in before]


def test_a_session_that_begins_while_calls_are_read_is_not_among_them(tmp_path):
    with contextlib.closing(SqliteStore(tmp_path / "tape.db")) as store:
        store.put(streamed("a", *spending("a", "1", 1)))

        class Interrupted:
            """Another process's commit falls between two statements."""

            asked = 0

            def execute(self, *words):
                self.asked += 1
                if self.asked == 2:
                    store.put(streamed("b", *spending("b", "1", 1)))
                return store._db().execute(*words)

        found = catalog.kept_calls(Interrupted(), store.path)
        assert [labels.session for labels, _ in found] == ["a"]
        assert [labels.session for labels, _ in store.kept_calls()] == ["a", "b"]
