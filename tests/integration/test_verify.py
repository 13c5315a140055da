"""Verification: each kind of change, at any place, is found and named; what is sound is called so."""

import asyncio
import json
import random
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape.eventlog.envelope import encode, stored
from codetape.eventlog.events import Answered, Blobs, Decided
from codetape.eventlog.stored_event import StoredEvent
from codetape.playback import tape_file
from codetape.playback.verify import verify
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.property.test_machine import live, worlds

DEMO = tape_file.load("demo")
ROWS = [stored(event) for event in DEMO.stream.events]
places = st.integers(0, len(ROWS) - 1)


def kinds(rows, texts=None, **more):
    return {f.what for f in verify(rows, DEMO.stream.texts if texts is None else texts, **more).findings}


def renumbered(rows):
    return [row._replace(seq=number) for number, row in enumerate(rows)]


@given(worlds)
def test_every_session_is_sound(drawn):
    _, stream, *_ = live(*drawn)
    done = verify([stored(e) for e in stream.events], stream.texts, head=stream.events[-1].hash)
    assert done.sound, done.findings
    assert done.events == len(stream.events)


@given(places, st.sampled_from(["kind", "at", "payload", "prev_hash", "hash", "version"]), st.randoms())
def test_an_edit_is_found_at_its_event(place, field, rng):
    row = ROWS[place]
    value = getattr(row, field)
    changed = value + 1 if isinstance(value, int) else _mangled(value, rng)
    done = verify([*ROWS[:place], row._replace(**{field: changed}), *ROWS[place + 1 :]], DEMO.stream.texts)
    assert place in {f.seq for f in done.findings}
    assert {f.what for f in done.findings} & {"edited", "moved", "inserted"}


def _mangled(text, rng):
    at = rng.randrange(len(text))
    return text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]


@given(places)
def test_a_deletion_is_found(place):
    rest = [*ROWS[:place], *ROWS[place + 1 :]]
    if place == len(ROWS) - 1:  # the tail: only a head that was kept elsewhere tells
        assert kinds(rest, head=ROWS[-1].hash) == {"head"}
        return
    done = verify(rest, DEMO.stream.texts)
    assert done.findings[0].what == "missing"
    assert done.findings[0].seq == place
    assert kinds(renumbered(rest)) & {"moved", "edited"}


@given(places, places)
def test_a_change_of_order_is_found(one, other):
    if one == other:
        return
    rows = list(ROWS)
    rows[one], rows[other] = rows[other], rows[one]
    assert kinds(renumbered(rows)) & {"moved", "edited"}


@given(places)
def test_an_insertion_is_found(place):
    previous = ROWS[place]
    event = encode(previous.session, previous.seq + 1, previous.at, DEMO.stream.events[place].payload, previous.hash)
    rows = [*ROWS[: place + 1], stored(event), *(r._replace(seq=r.seq + 1) for r in ROWS[place + 1 :])]
    done = verify(rows, DEMO.stream.texts)
    assert not done.sound
    if place < len(ROWS) - 1:
        assert {f.what for f in done.findings} & {"moved", "inserted"}


@given(st.sampled_from(sorted(DEMO.stream.texts)))
def test_a_text_that_is_gone_is_found_where_it_is_used(ref):
    texts = {key: text for key, text in DEMO.stream.texts.items() if key != ref}
    done = verify(ROWS, texts)
    assert {f.what for f in done.findings} == {"text"}
    assert ref in ROWS[done.findings[0].seq].payload


def forged(change):
    """Return the demo's events with some changed, in a chain that is hashed again, and the texts with those added."""
    texts, events, head = Blobs(DEMO.stream.texts), [], "0" * 64
    for event in DEMO.stream.events:
        events.append(encode(event.session, event.seq, event.at, change(event, texts), head))
        head = events[-1].hash
    return [stored(event) for event in events], texts


@pytest.mark.parametrize("field", ["iteration", "owed"])
def test_a_forged_decision_in_a_chain_hashed_anew_is_found(field):
    at = next(e.seq for e in DEMO.stream.events if isinstance(e.payload, Decided) and field in e.payload.ledger)

    def change(event, texts):
        if event.seq != at:
            return event.payload
        other = 9 if field == "iteration" else ["executing"]
        return event.payload.model_copy(update={"ledger": {**event.payload.ledger, field: other}})

    done = verify(*forged(change))
    assert [(f.seq, f.what) for f in done.findings] == [(at, "decision")]


def test_a_forged_answer_is_found_by_the_decision_that_no_longer_follows():
    at = next(e.seq for e in DEMO.stream.events if isinstance(e.payload, Answered) and e.seq > 5)

    def change(event, texts):
        return (
            event.payload.model_copy(update={"text": texts.put("```python\npass\n```")})
            if event.seq == at
            else event.payload
        )

    done = verify(*forged(change))
    assert done.findings[0].what == "decision"
    assert done.findings[0].seq > at


def test_usage_that_was_forged_consistently_is_found_by_the_head_alone():
    def change(event, texts):
        if isinstance(event.payload, Answered):
            return event.payload.model_copy(update={"usage": event.payload.usage.model_copy(update={"input": 1})})
        return event.payload

    rows, texts = forged(change)
    assert verify(rows, texts).sound
    assert kinds(rows, texts, head=ROWS[-1].hash) == {"head"}


def test_a_head_of_an_earlier_event_says_how_many_came_after():
    done = verify(ROWS, DEMO.stream.texts, head=ROWS[10].hash[:16])
    assert done.findings[0].seq == 10
    assert f"{len(ROWS) - 11} events came after" in done.findings[0].message


@given(st.integers(0, 10**9))
@settings(max_examples=20)
def test_a_database_that_was_written_to_is_found_out(seed):
    rng = random.Random(seed)
    store, path = _database()
    db = sqlite3.connect(path)
    for name in ("events_update", "events_delete", "blobs_update", "blobs_delete"):
        db.execute(f"DROP TRIGGER {name}")
    at = rng.randrange(len(ROWS) - 1)
    what = rng.choice([
        ("UPDATE events SET payload = replace(payload, '\":', '\": ') WHERE seq = ?", at),
        ("DELETE FROM events WHERE seq = ?", at),
        ("UPDATE events SET at = 'x' WHERE seq = ?", at),
        ("UPDATE events SET seq = x'00' WHERE seq = ?", at),
        ("DELETE FROM blobs WHERE rowid = ?", rng.randrange(1, 50)),
        ("UPDATE blobs SET data = x'28b52ffd' WHERE rowid = ?", rng.randrange(1, 50)),
        ("UPDATE blobs SET data = 'text', size = 'x' WHERE rowid = ?", rng.randrange(1, 50)),
    ])  # fmt: skip
    db.execute(what[0], (what[1],))
    db.commit()
    db.close()
    saved = store.recover(DEMO.session)
    assert saved.problems or not verify(saved.rows, saved.texts).sound
    store.close()


def _database():
    from pathlib import Path
    from tempfile import mkdtemp

    path = Path(mkdtemp(dir=Path.cwd())) / "tape.db"
    store = SqliteStore(path)
    store.put(DEMO.stream)
    return store, path


def test_a_database_with_broken_pages_is_read_as_far_as_it_can_be(tmp_path):
    from codetape.playback.verify import readable

    store, path = _database()
    store.close()
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    data = bytearray(path.read_bytes())
    page = 4096
    table = next(
        i
        for i in range(20, len(data) // page)
        if data[i * page] == 13 and b"Requested" in data[i * page : (i + 1) * page]
    )
    data[table * page : (table + 1) * page] = bytes(page)
    path.write_bytes(data)
    broken = SqliteStore(path)
    assert broken.unsound()
    saved = broken.recover(DEMO.session)
    stream, problem = readable(saved.rows, saved.texts)
    assert len(stream.events) < len(ROWS)
    assert problem or saved.problems
    rows, _ = broken.sessions()
    assert [row["session"] for row in rows] == [DEMO.session]
    broken.close()


def test_what_is_shown_of_a_damaged_session_is_its_sound_beginning():
    from codetape.playback.verify import readable

    rows = [*ROWS[:20], ROWS[20]._replace(at="x"), *ROWS[21:]]
    stream, problem = readable(rows, DEMO.stream.texts)
    assert len(stream.events) == 20
    assert ":20 was edited" in problem


def test_a_row_of_the_wrong_types_is_refused():
    from codetape.errors import CorruptTape

    for wrong in (
        ("s", 0, "k", 1, "t", b"x", "p", "h"),
        ("s", "0", "k", 1, "t", "x", "p", "h"),
        ("../s", 0, "k", 1, "t", "x", "p", "h"),
    ):
        with pytest.raises(CorruptTape):
            StoredEvent.of(wrong)


def test_a_session_that_was_interrupted_is_sound():
    cut = next(i for i, e in enumerate(DEMO.stream.events) if e.kind == "Requested") + 1
    assert verify(ROWS[:cut], DEMO.stream.texts).sound
    assert replace(DEMO.stream, events=DEMO.stream.events[:cut]).events[-1].kind == "Requested"


def test_the_projection_is_compared_with_the_events():
    store, path = _database()
    assert store.unsound() == []
    db = sqlite3.connect(path)
    db.execute("UPDATE sessions SET head = 'x'")
    db.commit()
    db.close()
    assert "not that of its events" in store.unsound()[0]
    assert json.dumps(store.stored_sessions()) == json.dumps([DEMO.session])
    assert asyncio.run(store.read(DEMO.session)).events == DEMO.stream.events
    store.close()
