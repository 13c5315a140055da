"""A payload of an earlier version reads as the present one, everywhere: replay, verify, spend, audit, the database's views."""

import sqlite3
from typing import ClassVar

import pytest

from codetape import api
from codetape.errors import CorruptTape
from codetape.eventlog import events as kinds
from codetape.eventlog.envelope import encode, stored
from codetape.eventlog.events import Answered
from codetape.eventlog.upcasters import UPCASTERS, decode_payload
from codetape.playback import tape_file
from codetape.playback.verify import verify
from codetape.ports import Stream
from codetape_adapters.stores.sqlite.store import SqliteStore

DEMO = tape_file.load("demo").stream
OLD = next(event for event in DEMO.events if event.kind == "Answered")
AnsweredByRegion = type(
    "Answered",
    (Answered,),
    {
        "__annotations__": {"version": ClassVar[int], "region": str},
        "version": 2,
        "__doc__": Answered.__doc__,
        "__module__": __name__,
    },
)


@pytest.fixture
def version_2(monkeypatch):
    """Answers say from which region they came, from version 2 on; what was recorded before did not say."""
    monkeypatch.setitem(kinds.KINDS, "Answered", AnsweredByRegion)
    monkeypatch.setitem(UPCASTERS, ("Answered", 1), lambda value: {**value, "region": "unknown"})


def written_by(version, session):
    """The demo's session as a codetape of that version would have written it, under another id."""
    head, made = "0" * 64, []
    for event in DEMO.events:
        payload = decode_payload(event.kind, event.stored_version, event.stored_payload, event.seq)
        if version == 2 and event.kind == "Answered":
            payload = payload.model_copy(update={"region": "north"})
        elif version == 1 and event.kind == "Answered":
            payload = Answered.model_validate_json(event.stored_payload)
        if hasattr(payload, "call"):
            payload = payload.model_copy(update={"call": f"{session}:{payload.call.rpartition(':')[2]}"})
        made.append(encode(session, event.seq, event.at, payload, head))
        head = made[-1].hash
    rows = [stored(event) for event in made]
    from codetape.eventlog.envelope import decode

    return Stream(tuple(map(decode, rows)), DEMO.texts)


def test_an_earlier_version_is_read_as_the_present_one(version_2):
    payload = decode_payload("Answered", 1, OLD.stored_payload, OLD.seq)
    assert (payload.region, payload.usage) == ("unknown", OLD.payload.usage)


def test_a_version_that_is_not_known_yet_is_refused():
    with pytest.raises(CorruptTape, match="newer codetape"):
        decode_payload("Answered", 2, OLD.stored_payload, OLD.seq)


def test_everything_reads_old_and_new_alike(version_2):
    old, new = written_by(1, "old"), written_by(2, "new")
    versions = [{e.stored_version for e in stream.events if e.kind == "Answered"} for stream in (old, new)]
    assert versions == [{1}, {2}]
    store = SqliteStore("both.db")
    store.put(old, new)
    for stream in (old, new):
        assert verify([stored(e) for e in stream.events], stream.texts).sound
    for name in ("old", "new"):
        assert api.replay(name, store=store).derived > 30
        assert api.audit(name, store=store).sound
    spent = {row.key: (row.calls, row.tokens, row.cost) for row in api.spend(by=("session",), store=store).rows}
    assert spent["old",] == spent["new",]
    with sqlite3.connect("both.db") as other:
        for view in ("llm_calls", "spend", "test_runs", "decisions", "failures"):
            rows = {
                name: other.execute(f"SELECT * FROM {view} WHERE session = ? ORDER BY 2, 3", (name,)).fetchall()
                for name in ("old", "new")
            }
            assert [row[1:] for row in rows["old"]] == [row[1:] for row in rows["new"]], view
            assert rows["old"], view
    other.close()
    store.close()


def test_the_views_tables_are_rebuilt_from_events_of_every_version(version_2):
    from codetape_adapters.stores.sqlite.rebuilding import rebuild

    store = SqliteStore("both.db")
    store.put(written_by(1, "old"), written_by(2, "new"))
    with sqlite3.connect("both.db") as other:
        before = other.execute("SELECT * FROM llm_calls").fetchall()
        rebuild(other)
        assert other.execute("SELECT * FROM llm_calls").fetchall() == before
    other.close()
    store.close()
