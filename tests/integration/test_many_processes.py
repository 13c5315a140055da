"""Many sessions, worked on in several processes: the same output in the same order, and an end that leaves nothing."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from codetape.playback.many_processes import MANY, in_order
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.bench.corpus import other_pack
from tests.helpers.forked import interruptible
from tests.property.test_machine import live


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A database of more sessions than one process takes alone, one of them edited; and a prompt pack that differs."""
    folder = tmp_path_factory.mktemp("many")
    store = SqliteStore(folder / "tape.db")
    store.put(*(live(number, 0.05, session=f"s{number}")[1] for number in range(MANY + 20)))
    store.close()
    with contextlib.closing(sqlite3.connect(folder / "edited.db")) as copy:
        with contextlib.closing(sqlite3.connect(folder / "tape.db")) as db:
            db.backup(copy)
        for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            copy.execute(f"DROP TRIGGER {name}")
        copy.execute("UPDATE events SET at = '2020-01-01T00:00:00.000Z' WHERE session = 's77' AND seq = 3")
        copy.commit()
    other_pack(folder / "pack")
    return folder


def started(folder, *words, db="tape.db"):
    command = [sys.executable, "-m", "codetape", *words, "--db", db]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=interruptible)  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "--all"),
        ("replay", "--limit", "1000"),
        ("whatif", "--prompts", "pack", "--json"),
        ("check", "--dry-run", "--prompts", "pack", "--sandbox", "bubblewrap"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_several_processes_say_what_one_says_in_the_same_order(folder, words):
    one, several = (started(folder, *words, "--jobs", jobs) for jobs in ("1", "2"))
    said, also = one.communicate(timeout=120), several.communicate(timeout=120)
    if "no sandbox" in said[1] or "bubblewrap" in said[1]:
        pytest.skip(said[1])
    assert also == said
    assert several.returncode == one.returncode
    assert said[0]


def test_a_change_in_one_of_many_is_found_in_its_place(folder):
    done = started(folder, "verify", "--all", "--json", db="edited.db")
    records = json.loads(done.communicate(timeout=120)[0])["verified"]
    assert done.returncode == 1
    assert len(records) == MANY + 20
    assert [record["session"] for record in records if not record["sound"]] == ["s77"]


@pytest.mark.parametrize("words", [("verify", "--all"), ("whatif", "--prompts", "pack")], ids=lambda words: words[0])
def test_ctrl_c_ends_all_of_them_with_one_line(folder, words):
    process = started(folder, *words, "--jobs", "2")
    try:
        while len(children(process.pid)) < 2:  # its workers, and what multiprocessing starts beside them
            time.sleep(0.01)
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr, stderr
    assert stderr.split() == ["codetape:", "interrupted."]
    until = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < until:  # what multiprocessing starts beside them notices by itself
        time.sleep(0.01)
    assert not alive(process.pid)


def alive(group):
    return subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False).stdout.split()


def children(pid):
    return subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()


def doubled(items):
    return [2 * item for item in items]


@pytest.mark.parametrize("count", [0, 1, MANY - 1, MANY, MANY + 1, 3 * MANY + 7])
def test_every_item_comes_once_and_in_order(count):
    assert list(in_order(doubled, range(count), 3)) == [2 * item for item in range(count)]
