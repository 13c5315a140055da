"""Tapes that were forged with care, their chains hashed again: what codetape would never have written is found."""

import asyncio
import json
import multiprocessing
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from codetape.domain.canonical import canonical, sha256
from codetape.errors import CorruptTape, StoreError
from codetape.eventlog.envelope import encode, stored
from codetape.eventlog.events import Blobs, Requested, Resumed, Succeeded, Suspended
from codetape.eventlog.stored_event import envelope
from codetape.playback import tape_file
from codetape.playback.verify import verify
from codetape.ports import Stream
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.e2e.test_cli import ROOT
from tests.helpers.forked import codetape

REPLAYS = ROOT / "replays"
ORDERS = tape_file.load(str(REPLAYS / "orders.tape.jsonl"))
DEMO = tape_file.load("demo")


def sealed(rows):
    """Hash rows again, as a chain, and return them."""
    found, head = [], "0" * 64
    for row in rows:
        made = row._replace(prev_hash=head)
        head = sha256(envelope(*made[:7]))
        found.append(made._replace(hash=head))
    return found


def rows_of(stream):
    return [stored(event) for event in stream.events]


def findings(rows, texts=ORDERS.stream.texts):
    return [(f.seq, f.what, f.message) for f in verify(sealed(rows), texts).findings]


def test_an_event_of_another_session_is_no_fork():
    rows = rows_of(ORDERS.stream)
    rows[7] = rows[7]._replace(session="othersession")
    [(seq, what, message), *_] = findings(rows)
    assert (seq, what) == (7, "illegal")
    assert "no fork" in message


def test_a_halt_from_outside_that_brings_code_is_illegal():
    stream, texts = ORDERS.stream, Blobs(ORDERS.stream.texts)
    last = next(e for e in reversed(stream.events) if isinstance(e.payload, Succeeded))
    halt = Suspended(
        trigger="suspend", source=last.payload.source, target="suspended", about="session", reason="outage", ledger={},
        changes={"code": texts.put("import os")}, cause="outage", message=texts.put("down"),
    )  # fmt: skip
    back = Resumed(
        trigger=f"resume_{last.payload.source}", source="suspended", target=last.payload.source,
        versions=stream.events[0].payload.versions,
    )  # fmt: skip
    payloads = [*(e.payload for e in stream.events[: last.seq]), halt, back, last.payload]
    events, head = [], "0" * 64
    for seq, payload in enumerate(payloads):
        events.append(encode(last.session, seq, last.at, payload, head))
        head = events[-1].hash
    done = verify([stored(e) for e in events], texts)
    assert [(f.seq, f.what) for f in done.findings] == [(last.seq, "illegal")]


@pytest.mark.parametrize("field", ["messages", "input_estimate", "max_output_tokens", "call"])
def test_a_request_is_what_the_rules_ask_in_every_field(field):
    texts = Blobs(ORDERS.stream.texts)
    at = next(e.seq for e in ORDERS.stream.events if isinstance(e.payload, Requested))
    payload = ORDERS.stream.events[at].payload
    other = {
        "messages": (payload.messages[0], ("user", texts.put("something else"))),
        "input_estimate": 1,
        "max_output_tokens": 7,
        "call": "other:99",
    }[field]
    events = list(ORDERS.stream.events)
    events[at] = encode(
        payload.call.partition(":")[0], at, events[at].at, payload.model_copy(update={field: other}), "0" * 64
    )
    done = verify(sealed([stored(e) for e in events]), texts)
    assert done.findings[0].seq == at
    assert done.findings[0].what in ("decision", "illegal")


def test_a_verdict_of_other_versions_is_not_called_sound(tmp_path):
    stream = tape_file.load(str(REPLAYS / "tills-of-three-makes.tape.jsonl")).stream
    last, events = stream.events[-1], []
    for event in stream.events:
        payload = event.payload
        if event.seq == 0:
            payload = payload.model_copy(
                update={"versions": payload.versions.model_copy(update={"host_python": "3.8"})}
            )
        if event.seq == last.seq:
            kept = {
                name: getattr(payload, name) for name in ("source", "about", "usable", "reason", "ledger", "changes")
            }
            payload = Succeeded(**kept, trigger="succeed", target="succeeded", confidence="oracle")
        events.append(encode(event.session, event.seq, event.at, payload, events[-1].hash if events else "0" * 64))
    (tmp_path / "t.tape.jsonl").write_text("".join(tape_file.write(last.session, Stream(tuple(events), stream.texts))))
    done = codetape("verify", "t.tape.jsonl")
    assert done.returncode == 103
    assert "not settled" in done.stderr
    assert "drift" in codetape("replay", "t.tape.jsonl").stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row._replace(version=0), "unknown version"),
        (lambda row: row._replace(at="yesterday"), "no time"),
        (lambda row: row._replace(kind="X\x1b[31m\nall is well"), "no kind"),
        (lambda row: row._replace(payload=re.sub(r'"iteration":\d+', f'"iteration":{2**70}', row.payload)), "1000000"),
        (lambda row: row._replace(payload="{}"), "required"),
    ],
)
def test_what_no_event_can_hold_is_one_line(change, said):
    rows = rows_of(ORDERS.stream)
    at = next(i for i, row in enumerate(rows) if '"iteration":' in row.payload)
    rows[at] = change(rows[at])
    lines = list(tape_file.write(ORDERS.session, ORDERS.stream))
    head, rest = lines[0], lines[len(rows) + 1 :]
    body = [canonical({"event": {**row._asdict(), "payload": json.loads(row.payload)}}) + "\n" for row in sealed(rows)]
    with pytest.raises(CorruptTape) as caught:
        tape_file.read([head, *body, *rest])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


@pytest.mark.parametrize("line", ["a(" * 120 + ")" * 119, "f(1) -> [" + "1," * 900 + "x"])
def test_a_prompt_of_brackets_takes_no_hours(line):
    from codetape.rules.prompt_examples import extract

    begun = time.process_time()
    extract.extract("\n".join([line] * 400)) if hasattr(extract, "extract") else extract._arrows(
        "\n".join([line] * 400)
    )
    assert time.process_time() - begun < 60


def test_a_tape_cut_within_a_character_is_cut(tmp_path):
    data = (REPLAYS / "demo.tape.jsonl").read_bytes()
    at = next(i for i in range(len(data) // 2, len(data)) if data[i] >= 0xC0)
    (tmp_path / "t.tape.jsonl").write_bytes(data[: at + 1])
    done = codetape("verify", "t.tape.jsonl", "demo")
    assert done.returncode == 1
    assert "no UTF-8" in done.stderr
    assert "sound" in done.stdout  # the other is verified all the same
    done = codetape("replay", "t.tape.jsonl", "demo")
    assert done.returncode == 1
    assert "identical" in done.stdout


# ---- databases


def test_a_conflict_in_one_tape_leaves_all_of_them_out(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    cut = Stream(ORDERS.stream.events[:9], ORDERS.stream.texts)
    other = encode(ORDERS.session, 9, "2026-01-01T00:00:00Z", ORDERS.stream.events[9].payload, cut.events[-1].hash)
    store.put(Stream((*cut.events, other), ORDERS.stream.texts))
    store.close()
    done = codetape("import", "demo", str(REPLAYS / "orders.tape.jsonl"), "--db", "x.db")
    assert done.returncode == 1
    assert len(json.loads(codetape("list", "--db", "x.db", "--json").stdout)["sessions"]) == 1


def test_a_damaged_session_is_not_added_to_but_its_texts_come_back(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    store.put(ORDERS.stream)
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute("DROP TRIGGER blobs_delete")
    db.execute("DELETE FROM blobs WHERE rowid = 30")
    db.commit()
    with pytest.raises(CorruptTape):
        asyncio.run(store.read(ORDERS.session))
    assert store.put(ORDERS.stream) == [0]
    assert asyncio.run(store.read(ORDERS.session)).events
    db.execute("DROP TRIGGER events_delete")
    db.execute("DELETE FROM events WHERE seq = 3")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="damaged"):
        store.put(ORDERS.stream)
    store.close()


def test_the_list_is_held_to_the_events(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    store.put(ORDERS.stream, DEMO.stream)
    store.close()
    assert codetape("verify", "--all", "--db", "x.db").returncode == 0
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute("UPDATE sessions SET model = 'openai:another', input_tokens = 1 WHERE task = 'orders'")
    db.execute("DELETE FROM sessions WHERE task <> 'orders'")
    db.commit()
    done = codetape("verify", "--all", "--db", "x.db")
    assert done.returncode == 1
    assert "model openai:another for openai:relay" in done.stderr
    assert "it is not listed" in done.stderr
    db.execute("UPDATE sessions SET input_tokens = 'x', tags = x'ff'")
    db.commit()
    db.close()
    assert codetape("list", "--db", "x.db").returncode == 0
    assert codetape("show", DEMO.session, "--db", "x.db").returncode == 0


def test_a_whole_name_comes_before_a_longer_one(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    store.put(ORDERS.stream)
    longer = sealed([row._replace(session=f"{ORDERS.session}x", payload=row.payload.replace(f'"{ORDERS.session}:', f'"{ORDERS.session}x:')) for row in rows_of(ORDERS.stream)])  # fmt: skip
    from codetape.eventlog.envelope import decode

    store.put(Stream(tuple(map(decode, longer)), ORDERS.stream.texts))
    assert store.find(ORDERS.session) == ORDERS.session
    assert store.find("last") == f"{ORDERS.session}x"
    store.close()


def test_broken_indexes_do_not_hide_events(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    store.put(ORDERS.stream)
    store.close()
    path = tmp_path / "x.db"
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    db = sqlite3.connect(path)
    roots = [
        row[0]
        for row in db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name LIKE 'sqlite_autoindex%' AND tbl_name IN ('events', 'blobs')"
        )
    ]
    db.close()
    data = bytearray(path.read_bytes())
    for page in roots:
        data[(page - 1) * 4096 : page * 4096] = os.urandom(4096)
    path.write_bytes(data)
    broken = SqliteStore(path)
    saved = broken.recover(ORDERS.session)
    assert len(saved.rows) == len(ORDERS.stream.events)
    assert verify(saved.rows, saved.texts).sound
    broken.close()


def _read_as_nobody(path, session, said):
    os.setgid(65534)
    os.setuid(65534)
    store = SqliteStore(path, read_only=True)
    said.send((len(asyncio.run(store.read(session)).events), len(store.sessions()[0])))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who is refused")
def test_a_database_in_a_place_that_cannot_be_written_is_read(tmp_path):
    store = SqliteStore(tmp_path / "place" / "x.db")
    store.put(ORDERS.stream)
    store.close()
    for path in (tmp_path / "place", tmp_path, *tmp_path.parents[:-1]):
        if path.stat().st_mode & 0o005 != 0o005 and "pytest" in str(path):
            path.chmod(0o755)
    (tmp_path / "place" / "x.db").chmod(0o644)  # its owner lets others read it
    (tmp_path / "place").chmod(0o555)
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_read_as_nobody, args=(tmp_path / "place" / "x.db", ORDERS.session, theirs))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert ours.recv() == (len(ORDERS.stream.events), 1)
    ours.close()
    theirs.close()


# ---- the terminal, and files


def test_export_keeps_what_is_no_file_and_leaves_nothing_half_done(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    store.put(ORDERS.stream)
    store.close()
    os.mkfifo("pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_text()))
    reader.start()
    assert codetape("export", "last", "-o", "pipe", "--db", "x.db").returncode == 0
    reader.join(20)
    assert found[0] == (REPLAYS / "orders.tape.jsonl").read_text()
    Path("real").write_text("old")
    Path("link").symlink_to("real")
    assert codetape("export", "last", "-o", "link", "--db", "x.db").returncode == 0
    assert Path("link").is_symlink()
    assert Path("real").read_text() == found[0]
    Path("folder").mkdir()
    for name in ("folder", "", "nowhere/x"):
        done = codetape("export", "last", "-o", name, "--db", "x.db")
        assert done.returncode == 2
        assert "no file that can be written" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if "codetape-" in p.name or p.name.endswith(".part")) == []


def test_json_holds_nothing_that_a_terminal_obeys(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    store.put(ORDERS.stream)
    store.close()
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute("UPDATE sessions SET task = ?", ("\u009b31m\u202e\u007f",))
    db.commit()
    db.close()
    said = codetape("list", "--db", "x.db", "--json").stdout
    assert not {"\u009b", "\u202e", "\u007f"} & set(said)
    assert json.loads(said)["sessions"][0]["task"] == "\u009b31m\u202e\u007f"


def test_a_reader_that_goes_away_and_a_closed_output_are_no_tracebacks():
    for shell in (
        "codetape show nosuch --json | true",
        "codetape show demo --json >/dev/full",
        "codetape list >&-",
        "codetape export last -o - >&-",
    ):
        command = shell.replace("codetape", f"{sys.executable} -m codetape", 1)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert "Traceback" not in done.stderr, (shell, done.stderr)
