"""The SQLite log: append-only by its own triggers, one writer a session, and one clear line for each thing that fails."""

import asyncio
import contextlib
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codetape.errors import CorruptTape, LeaseHeld, StoreError
from codetape.eventlog.envelope import encode
from codetape.eventlog.events import AnchorsExtracted, Blobs
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.support import ADD, ADD_TESTS, generate, plan


def event(session, seq, head, text="x"):
    texts = Blobs()
    payload = AnchorsExtracted(count=seq, anchors=texts.put(text))
    return encode(session, seq, "2026-01-01T00:00:00.000Z", payload, head), texts


async def fill(store, session, count):
    lease = await store.acquire(session)
    head = "0" * 64
    for seq in range(count):
        made, texts = event(session, seq, head, f"text {seq}")
        await store.append(made, texts, lease)
        head = made.hash
    lease.release()


@pytest.fixture
def store():
    made = SqliteStore("tape.db")
    asyncio.run(fill(made, "s", 3))
    return made


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET payload = '{}' WHERE seq = 1",
        "DELETE FROM events WHERE seq = 2",
        "INSERT INTO events SELECT session, seq, kind, version, at, '{}', prev_hash, hash FROM events WHERE seq = 1",
        "UPDATE blobs SET data = x'00'",
        "DELETE FROM blobs",
        "INSERT INTO blobs SELECT hash, size, data FROM blobs LIMIT 1",
    ],
)
def test_history_cannot_be_changed_through_sql(store, statement):
    with sqlite3.connect("tape.db") as other, pytest.raises(sqlite3.IntegrityError, match=r"append-only|in the log"):
        other.execute(statement)


def test_replace_cannot_pass_the_triggers(store):
    other = sqlite3.connect("tape.db")
    with pytest.raises(sqlite3.IntegrityError, match="in the log"):
        other.execute(
            "INSERT OR REPLACE INTO events SELECT session, seq, kind, version, at, '{}', prev_hash, hash FROM events"
        )
    other.close()


@pytest.mark.parametrize(
    ("edit", "seq"),
    [
        ("UPDATE events SET payload = replace(payload, '1', '7') WHERE seq = 1", 1),
        ("DELETE FROM events WHERE seq = 1", 1),
        ("UPDATE events SET seq = 9 WHERE seq = 1", 1),
        ("UPDATE events SET at = '2027' WHERE seq = 2", 2),
    ],
)
def test_an_edit_behind_the_triggers_is_found(store, edit, seq):
    other = sqlite3.connect("tape.db")
    for table in ("events", "blobs"):
        for verb in ("update", "delete"):
            other.execute(f"DROP TRIGGER {table}_{verb}")
    other.execute(edit)
    other.commit()
    other.close()
    with pytest.raises(CorruptTape) as caught:
        asyncio.run(store.read("s"))
    assert caught.value.seq in (seq, 9)


def test_an_edited_blob_is_found(store):
    other = sqlite3.connect("tape.db")
    other.execute("DROP TRIGGER blobs_update")
    other.execute("UPDATE blobs SET data = (SELECT data FROM blobs ORDER BY rowid DESC LIMIT 1)")
    other.commit()
    other.close()
    with pytest.raises(CorruptTape, match="blob"):
        asyncio.run(store.read("s"))


def test_a_lease_of_a_dead_process_is_taken_over_at_once():
    code = "import asyncio, os\nfrom codetape_adapters.stores.sqlite.store import SqliteStore\nasyncio.run(SqliteStore('tape.db').acquire('s'))\nos._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    lease = asyncio.run(SqliteStore("tape.db").acquire("s"))
    assert lease.token == 2


def test_a_living_holder_is_named():
    asyncio.run(SqliteStore("tape.db").acquire("s"))
    with pytest.raises(LeaseHeld, match=f"process {os.getpid()}"):
        asyncio.run(SqliteStore("tape.db").acquire("s"))


def test_a_silent_holder_elsewhere_loses_its_lease_after_a_minute():
    now = [1000.0]
    store = SqliteStore("tape.db", clock=lambda: now[0])
    asyncio.run(store.acquire("s"))
    with sqlite3.connect("tape.db") as other:
        other.execute("UPDATE leases SET host = 'elsewhere'")
    now[0] += 59
    with pytest.raises(LeaseHeld, match="elsewhere"):
        asyncio.run(store.acquire("s"))
    now[0] += 2
    assert asyncio.run(store.acquire("s")).token == 2


OWN, SHARED = 200, 10  # events of each process: in a session of its own, and in the one that all fight over


def _append(number, together):
    together.wait()
    asyncio.run(fill(SqliteStore("shared.db"), f"session-{number}", OWN))
    together.wait()
    asyncio.run(_fight(SqliteStore("shared.db")))


async def _fight(store):
    """Append to one session, an event for each time that its lease was available."""
    done = 0
    while done < SHARED:
        try:
            lease = await store.acquire("fought-over")
        except LeaseHeld:
            await asyncio.sleep(0.001)
            continue
        try:
            known = store.recover("fought-over").rows
            made, texts = event("fought-over", len(known), known[-1].hash if known else "0" * 64, f"by {os.getpid()}")
            await store.append(made, texts, lease)
            done += 1
        finally:
            lease.release()


def test_four_processes_append_at_once_on_no_database_yet_and_fight_over_one_session():
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    workers = [context.Process(target=_append, args=(n, together)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [w.exitcode for w in workers] == [0] * 4  # no "database is locked", or anything else, reached them
    store = SqliteStore("shared.db")
    for number in range(4):
        assert len(asyncio.run(store.read(f"session-{number}")).events) == OWN
    fought = asyncio.run(store.read("fought-over"))
    assert [e.seq for e in fought.events] == list(range(4 * SHARED))
    assert len(fought.texts) == 4
    store.close()


# A failing disk: fsync and fdatasync refused by the kernel, in a process of its own, by a seccomp filter.
_BROKEN_FSYNC = """
import asyncio, ctypes, struct, sys
from codetape.errors import StoreError
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.integration.test_sqlite_store import event, fill
store = SqliteStore("tape.db")
asyncio.run(fill(store, "s", 3))
head = asyncio.run(store.read("s")).events[-1].hash
lease = asyncio.run(store.acquire("s"))
program = b"".join(struct.pack("<HBBI", *step) for step in (
    (0x20, 0, 0, 0), (0x15, 1, 0, 74), (0x15, 0, 1, 75), (0x06, 0, 0, 0x00050000 | 5), (0x06, 0, 0, 0x7FFF0000),
))
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
given = Program(len(program) // 8, ctypes.addressof(buffer))
assert store._submit(lambda: libc.prctl(38, 1, 0, 0, 0)).result() == 0  # of the thread that writes
assert store._submit(lambda: libc.prctl(22, 2, ctypes.byref(given))).result() == 0
made, texts = event("s", 3, head)
try:
    asyncio.run(store.append(made, texts, lease))
except StoreError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="the filter's numbers are x86-64's"
)
def test_a_failing_fsync_is_said_and_what_was_acknowledged_stays():
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", _BROKEN_FSYNC], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 3, done.stderr
    assert "could not be written to disk" in done.stdout
    store = SqliteStore("tape.db")
    events = asyncio.run(store.read("s")).events
    assert [e.seq for e in events] in (
        [0, 1, 2],
        [0, 1, 2, 3],
    )  # written but not acknowledged: there whole, or not at all
    lease = asyncio.run(store.acquire("s"))  # its holder is gone
    made, texts = event("s", len(events), events[-1].hash)
    asyncio.run(store.append(made, texts, lease))
    store.close()


def test_what_is_no_database_of_ours_is_refused_in_one_line(tmp_path):
    (tmp_path / "text").write_text("hello, this is no database at all " * 50)
    with sqlite3.connect("foreign.db") as other:
        other.execute("CREATE TABLE x (y)")
    asyncio.run(fill(SqliteStore("newer.db"), "s", 1))
    with sqlite3.connect("newer.db") as other:
        other.execute("PRAGMA user_version = 99")
    (tmp_path / "folder").mkdir()
    for name, said in (
        ("text", "no database"),
        ("foreign.db", "not one of codetape's"),
        ("newer.db", "newer codetape"),
        ("folder", "cannot be"),
    ):
        with pytest.raises(StoreError, match=said):
            asyncio.run(SqliteStore(name).acquire("s"))


@pytest.mark.parametrize("turns", range(6))
def test_what_is_cancelled_holds_no_lease(turns):
    store = SqliteStore("tape.db")

    async def cancelled():
        task = asyncio.create_task(store.acquire("s"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await task).release()

    asyncio.run(cancelled())
    asyncio.run(fill(store, "s", 1))
    store.close()


def test_a_full_disk_leaves_a_session_that_reads():
    store = SqliteStore("tape.db")
    asyncio.run(fill(store, "s", 3))
    pages = store._db().execute("PRAGMA page_count").fetchone()[0]
    store._submit(lambda: store._db().execute(f"PRAGMA max_page_count = {pages}")).result()

    async def overfill():
        lease = await store.acquire("s")
        head = (await store.read("s")).events[-1].hash
        made, texts = event("s", 3, head, os.urandom(200_000).hex())
        await store.append(made, texts, lease)

    with pytest.raises(StoreError, match="space"):
        asyncio.run(overfill())
    assert len(asyncio.run(SqliteStore("tape.db").read("s")).events) == 3


def test_the_folder_is_private_and_ignores_itself():
    asyncio.run(fill(SqliteStore(".codetape/tape.db"), "s", 1))
    assert stat.S_IMODE(os.stat(".codetape").st_mode) == 0o700
    assert Path(".codetape/.gitignore").read_text() == "*\n"


def test_sessions_are_listed_and_found_by_prefix_and_last():
    store = SqliteStore("tape.db")
    first, _ = generate({"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}, store=store)
    time.sleep(0.01)
    second, _ = generate({"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}, store=store)
    rows, _ = store.sessions()
    assert [row["session"] for row in rows] == [second.session, first.session]
    assert {row["state"] for row in rows} == {"succeeded"}
    assert rows[0]["input_tokens"] == second.total_input_tokens
    assert store.find("last") == second.session
    assert store.find(first.session[:12]) == first.session
    for name in ("", "zzzz"):
        with pytest.raises(StoreError):
            store.find(name)


def test_views_are_plain_to_read():
    store = SqliteStore("tape.db")
    result, _ = generate({"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}, store=store)
    with sqlite3.connect("tape.db") as other:
        assert [r[0] for r in other.execute("SELECT purpose FROM llm_calls ORDER BY seq")] == ["plan", "code", "tests"]
        assert (
            other.execute("SELECT sum(input + cache_read + cache_write) FROM spend").fetchone()[0]
            == result.total_input_tokens
        )
        assert [r[0] for r in other.execute("SELECT purpose FROM test_runs ORDER BY seq")] == ["vet", "run", "evaluate"]
