"""Tape files: the same bytes again, and nothing taken from one that is not as it was written."""

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings

from codetape.errors import CodetapeError, CorruptTape, LeaseHeld, StoreError
from codetape.eventlog.fold import fold
from codetape.playback import tape_file
from codetape.ports import Stream
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.property.test_machine import live, worlds

DEMO = tape_file.load("demo")
LINES = list(tape_file.write(DEMO.session, DEMO.stream))
EVENTS = len(DEMO.stream.events)
DEMO_AT_10 = fold(DEMO.stream.events[:10], DEMO.stream.texts).state


@given(worlds)
@settings(max_examples=25)
def test_a_tape_that_was_read_and_imported_is_written_with_the_same_bytes(drawn):
    from pathlib import Path
    from tempfile import mkdtemp

    _, stream, *_ = live(*drawn)
    lines = list(tape_file.write("s", stream))
    read = tape_file.read(lines)
    assert list(tape_file.write("s", read.stream)) == lines
    store = SqliteStore(Path(mkdtemp(dir=Path.cwd())) / "tape.db")
    assert store.put(read.stream) == [len(stream.events)]
    assert list(tape_file.write("s", asyncio.run(store.read("s")))) == lines
    assert store.put(read.stream) == [0]
    store.close()


def edited(number, change):
    value = json.loads(LINES[number])
    change(value)
    from codetape.domain.canonical import canonical

    return [*LINES[:number], canonical(value) + "\n", *LINES[number + 1 :]]


BAD = {
    "cut off in a line": ([*LINES[:30], LINES[30][:50]], "line 31", "cut off"),
    "cut off after the events": (LINES[: EVENTS + 1], f"line {EVENTS + 1}", "cut off"),
    "without its last line": (LINES[:-1], f"line {len(LINES) - 1}", "cut off"),
    "without its last line break": ([*LINES[:-1], LINES[-1][:-1]], f"line {len(LINES)}", "cut off"),
    "an event less": ([*LINES[:5], *LINES[6:]], "", "51 events"),
    "a line more": ([*LINES, LINES[-1]], f"line {len(LINES) + 1}", "already"),
    "spaces": ([LINES[0], LINES[1].replace(":", ": ", 1), *LINES[2:]], "line 2", "not as codetape writes"),
    "an event edited": (edited(7, lambda v: v["event"].update(at="2020-01-01T00:00:00Z")), "line 8", "edited"),
    "a text edited": (edited(len(LINES) - 1, lambda v: v.update(text="x")), f"line {len(LINES)}", "refers to"),
    "events out of order": ([*LINES[:5], LINES[6], LINES[5], *LINES[7:]], "line 6", "order"),
    "an event after a text": ([*LINES[:5], *LINES[6:], LINES[5]], f"line {EVENTS + 1}", "order"),
    "a newer format": (edited(0, lambda v: v.update(codetape=9)), "format 9", "newer"),
    "a newer event": (edited(5, lambda v: v["event"].update(version=9)), "line 6", "edited"),
    "an unknown field": (edited(5, lambda v: v["event"].update(more=1)), "line 6", "more than"),
    "a session like a path": (edited(5, lambda v: v["event"].update(session="../x")), "line 6", "no session"),
    "another session's name": (edited(0, lambda v: v.update(session="other")), "line 1", "not those of"),
    "a number as text": (edited(0, lambda v: v.update(events="51")), "line 1", "header"),
    "no JSON": (["hello\n"], "line 1", "no JSON"),
    "no header": (LINES[1:], "header", ""),
    "a list": (["[]\n"], "line 1", "not as"),
    "deep nesting": (["[" * 100_000 + "\n"], "line 1", "no JSON"),
    "nothing": ([], "cut off", ""),
    "a giant line": ([LINES[0], "x" * (tape_file.MAX_LINE + 1)], "line 2", "larger"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tape_is_refused_with_the_line_and_the_reason(name):
    lines, place, reason = BAD[name]
    with pytest.raises(CorruptTape) as caught:
        tape_file.read(lines, name="t.tape.jsonl")
    assert place in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_line_that_is_left_out_doubled_or_exchanged_is_noticed():
    for number in range(len(LINES)):
        for lines in (
            [*LINES[:number], *LINES[number + 1 :]],
            [*LINES[: number + 1], *LINES[number:]],
            [*LINES[:number], *reversed(LINES[number : number + 2]), *LINES[number + 2 :]],
        ):
            if lines == LINES:
                continue
            with pytest.raises(CorruptTape):
                tape_file.read(lines)


def test_a_giant_line_is_never_held_whole(tmp_path):
    path = tmp_path / "t.tape.jsonl"
    with path.open("w") as file:
        file.write(LINES[0])
        for _ in range(40):
            file.write("x" * (1 << 20))
    with path.open("rb") as file:
        assert max(map(len, tape_file.lines_of(file))) == tape_file.MAX_LINE + 1
    with pytest.raises(CorruptTape, match="line 2: larger"):
        tape_file.load(str(path))


def prefix(count):
    return Stream(DEMO.stream.events[:count], DEMO.stream.texts)


def test_the_longer_of_two_chains_stands_where_one_begins_with_the_other(tmp_path):
    store = SqliteStore(tmp_path / "tape.db")
    assert store.put(prefix(10)) == [10]
    assert store.sessions()[0][0]["state"] == DEMO_AT_10
    assert store.put(DEMO.stream) == [EVENTS - 10]
    assert store.sessions()[0][0]["state"] == "succeeded"
    assert store.put(prefix(10)) == [0]
    assert asyncio.run(store.read(DEMO.session)).events == DEMO.stream.events
    assert store.unsound() == []
    store.close()


def test_chains_that_part_are_refused_and_nothing_is_added(tmp_path):
    from codetape.eventlog.envelope import encode

    store = SqliteStore(tmp_path / "tape.db")
    other = encode(
        DEMO.session, 9, "2026-01-01T00:00:00.000Z", DEMO.stream.events[9].payload, DEMO.stream.events[8].hash
    )
    store.put(replace(prefix(10), events=(*DEMO.stream.events[:9], other)))
    with pytest.raises(StoreError, match="another event 9"):
        store.put(DEMO.stream)
    assert len(asyncio.run(store.read(DEMO.session)).events) == 10
    store.close()


def test_a_session_that_a_process_drives_is_not_added_to(tmp_path):
    store = SqliteStore(tmp_path / "tape.db")
    store.put(prefix(10))
    lease = asyncio.run(store.acquire(DEMO.session))
    with pytest.raises(LeaseHeld, match="driven by process"):
        store.put(DEMO.stream)
    lease.release()
    assert store.put(DEMO.stream) == [EVENTS - 10]
    store.close()


def test_an_imported_session_goes_on(tmp_path):
    """A tape of a run that stopped elsewhere is resumed here: the next event follows the imported ones."""
    from codetape import AutoCoderAgent
    from tests.worlds import World

    result, stream, *_ = live(12, 0.25)
    cut = Stream(stream.events[: len(stream.events) // 2], stream.texts)
    store = SqliteStore(tmp_path / "tape.db")
    store.put(cut)
    world = World(12, 0.0)
    agent = AutoCoderAgent(model=world, sandbox=world.sandbox, store=store)
    again = asyncio.run(agent.aresume("s"))
    assert again.status in ("succeeded", "failed", "suspended")
    assert [e.hash for e in asyncio.run(store.read("s")).events[: len(cut.events)]] == [e.hash for e in cut.events]
    store.close()


def test_a_lone_surrogate_or_nan_in_a_tape_is_refused():
    for text in ('{"text":"\\ud800"}\n', '{"text":NaN}\n', '{"text":1e999}\n'):
        with pytest.raises(CodetapeError):
            tape_file.read([*LINES[:-1], text])
