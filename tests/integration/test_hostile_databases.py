"""Databases from elsewhere: what acts in our name is refused or not asked, and one bad session hides no other."""

import asyncio
import json
import sqlite3

import pytest

from codetape.domain.canonical import canonical, sha256
from codetape.errors import CodetapeError, StoreError
from codetape.eventlog.envelope import stored
from codetape.eventlog.stored_event import StoredEvent, envelope
from codetape.playback import tape_file
from codetape_adapters.stores.sqlite import schema
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.helpers import forked

DEMO = tape_file.load("demo")

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
OTHER_SQL = "UPDATE sqlite_master SET sql = replace(sql, {!r}, {!r}) WHERE name = {!r}"


@pytest.fixture
def path(tmp_path):
    store = SqliteStore(tmp_path / "tape.db")
    store.put(DEMO.stream)
    store.close()
    return store.path


def change(path, *statements):
    db = sqlite3.connect(path)
    db.execute("PRAGMA writable_schema = ON")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def codetape(*words):
    done = forked.codetape(*map(str, words))
    assert "Traceback" not in done.stderr
    return done


def test_the_kept_digest_is_that_of_the_present_schema(path):
    db = sqlite3.connect(path)
    assert schema.digest(db) == schema.DIGEST
    db.close()


def test_every_former_schema_is_known_as_ours():
    from sqlite_utils import Database

    from codetape_adapters.stores.sqlite.connection import SCHEMA
    from codetape_adapters.stores.sqlite.migrations import MIGRATIONS

    for version in range(1, SCHEMA + 1):
        db = sqlite3.connect(":memory:", isolation_level=None)
        steps = [step.name for step in MIGRATIONS.pending(Database(db))]
        MIGRATIONS.apply(Database(db), stop_before=steps[version : version + 1] or None)
        assert schema.differences(db, version) == ()
        db.close()


TABLES = {
    "a view in a table's place": (
        "ALTER TABLE sessions RENAME TO hidden", f"CREATE VIEW sessions AS {ENDLESS} 'x' AS session, i AS rowid FROM n",
    ),
    "a generated column": (OTHER_SQL.format("at TEXT NOT NULL", "at TEXT AS (session)", "events"),),
    "a default that is a program": (OTHER_SQL.format("cost INTEGER NOT NULL DEFAULT 0", "cost INTEGER DEFAULT (random())", "sessions"),),
    "a virtual table": ("DROP TABLE leases", "CREATE VIRTUAL TABLE leases USING fts5(session)"),
    "a table that is missing": ("DROP TABLE leases",),
    "an index on an expression": ("CREATE INDEX mine ON events (length(printf('%1000000d', seq)))",),
}  # fmt: skip
OTHERS = {
    "a trigger on what is appended": ("CREATE TRIGGER mine AFTER INSERT ON events BEGIN DELETE FROM leases; END",),
    "a trigger with a name of SQLite's": ("CREATE TRIGGER mine AFTER INSERT ON events BEGIN DELETE FROM leases; END", "UPDATE sqlite_master SET name = 'sqlite_stat1', sql = replace(sql, 'mine', 'sqlite_stat1') WHERE name = 'mine'"),
    "a view that never ends": ("DROP VIEW spend", f"CREATE VIEW spend AS {ENDLESS} max(i) AS session FROM n"),
    "a trigger that is missing": ("DROP TRIGGER events_delete",),
    "a trigger that allows": ("DROP TRIGGER events_update", "CREATE TRIGGER events_update BEFORE UPDATE ON events BEGIN SELECT 1; END"),
    "an INSTEAD OF trigger": ("CREATE TRIGGER mine INSTEAD OF INSERT ON spend BEGIN DELETE FROM leases; END",),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_are_not_ours_are_neither_read_nor_written(path, name):
    change(path, *TABLES[name])
    with pytest.raises(StoreError, match="is not as codetape made it: the .* (missing|codetape's)"):
        SqliteStore(path, read_only=True).sessions()
    with pytest.raises(StoreError, match="is not as codetape made it"):
        asyncio.run(SqliteStore(path).acquire("s"))


@pytest.mark.parametrize("name", OTHERS)
def test_what_reading_does_not_touch_is_not_asked_and_verify_says_what_it_is(path, name):
    change(path, *OTHERS[name])
    assert [row["session"] for row in SqliteStore(path, read_only=True).sessions().rows] == [DEMO.session]
    with pytest.raises(StoreError, match="is not as codetape made it"):
        asyncio.run(SqliteStore(path).acquire("s"))
    for words in (("list",), ("show", "last"), ("spend",), ("replay", "last")):
        assert codetape(*words, "--db", path).returncode == 0, words
    verified = codetape("verify", "--all", "--db", path)
    assert verified.returncode == 1
    assert "is not as codetape made it: the " in verified.stderr
    assert f"{DEMO.session}: sound" in verified.stdout


def test_what_a_user_added_beside_is_left_alone(path):
    change(path, "CREATE TABLE notes (text)", "CREATE VIEW mine AS SELECT * FROM llm_calls", "ANALYZE")
    assert asyncio.run(SqliteStore(path).acquire("s")).token == 1
    assert codetape("verify", "--all", "--db", path).returncode == 0


def as_tape(rows):
    head, *others = tape_file.write(DEMO.session, DEMO.stream)
    events = list(tape_file.write_without_content(DEMO.session, rows))[1:]
    return [head, *events, *others[len(rows) :]]


def forged(field, value, kind):
    """Return the demo's rows with one field of its first event of a kind changed, hashed again from there on."""
    rows, previous = [], "0" * 64
    done = False
    for event in DEMO.stream.events:
        payload = json.loads(event.stored_payload)
        if event.kind == kind and not done:
            payload[field], done = value, True
        text = canonical(payload)
        digest = sha256(envelope(event.session, event.seq, event.kind, event.stored_version, event.at, text, previous))
        rows.append(
            StoredEvent(event.session, event.seq, event.kind, event.stored_version, event.at, text, previous, digest)
        )
        previous = digest
    assert done
    return rows


FORGED = [
    ("purpose", "no such purpose", "Requested"),
    ("purpose", "__class__", "TestsFinished"),
    ("skipped", True, "TestsFinished"),
    ("skipped", -1, "TestsFinished"),
    ("skipped", 2**73, "TestsFinished"),
    ("passed", "3", "TestsFinished"),
    ("passed", 3.0, "TestsFinished"),
    ("whole", "yes", "TestsFinished"),
    ("whole", 1, "TestsFinished"),
    ("duration_ms", -5, "Answered"),
    ("count", -1, "AnchorsExtracted"),
    ("input_estimate", 2**63, "Requested"),
    ("task_id", 7, "SessionStarted"),
    ("tags", "a", "SessionStarted"),
]


@pytest.mark.parametrize(("field", "value", "kind"), FORGED)
def test_a_field_of_another_type_or_range_is_refused_and_stops_no_other_session(path, field, value, kind, tmp_path):
    rows = forged(field, value, kind)
    db = sqlite3.connect(path)
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [("evil", *row[1:]) for row in rows])
    columns = [row[1] for row in db.execute("PRAGMA table_info(sessions)")][1:]
    db.execute(f"INSERT INTO sessions SELECT 'evil', {', '.join(columns)} FROM sessions")
    db.commit()
    db.close()
    verified = codetape("verify", "--all", "--db", path)
    assert verified.returncode == 1
    assert "evil: not sound" in verified.stderr
    assert f"{DEMO.session}: sound" in verified.stdout
    with pytest.raises(CodetapeError, match=f"is no {kind}"):
        tape_file.read(as_tape(rows))
    tape_file.read(as_tape([stored(event) for event in DEMO.stream.events]))  # the control


def test_a_list_whose_columns_hold_other_types_is_shown(path):
    db = sqlite3.connect(path)
    db.execute("UPDATE sessions SET task = x'00ff', tags = 3, state = NULL OR 7, events = 'many', cost = 1e300")
    db.commit()
    db.close()
    for words in (("list",), ("list", "--json"), ("spend",), ("verify", "--all"), ("show", "last")):
        done = codetape(*words, "--db", path)
        assert "error of codetape's own" not in done.stderr, (words, done.stderr)


def test_a_schema_that_is_no_text_is_a_line(path):
    """SQLite's own words of it are not UTF-8 then, and Python raises another error than SQLite's."""
    data = path.read_bytes().replace(b"CREATE TABLE leases", b"CREATE \xe5\x89BLE leases")
    path.write_bytes(data)
    for words in (("list",), ("show", "last"), ("verify", "--all"), ("import", "x.tape.jsonl")):
        done = codetape(*words, "--db", path)
        assert done.returncode == 1 + (words[0] == "import")
        assert "codetape's own" not in done.stderr
    with pytest.raises(StoreError, match="is no database, or is damaged"):
        SqliteStore(path).sessions()
