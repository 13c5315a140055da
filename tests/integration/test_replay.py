"""Replays: identical for what was recorded, and a divergence at the first seq and in the right layer for what was changed."""

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from codetape import tape
from codetape.chain import seal
from codetape.errors import Divergence
from codetape.events import Decided, Texts
from codetape.ports import Stream
from codetape.replay import replay
from tests.property.test_machine import live, worlds

ROOT = Path(__file__).parents[2]
TAPES = sorted((ROOT / "replays").glob("*.tape.jsonl"))


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*_args, **_more):
        raise AssertionError("a replay opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("path", TAPES, ids=lambda p: p.name)
def test_every_shipped_tape_replays_identically_without_a_network(path, no_sockets):
    found = tape.load(str(path))
    done = replay(found.stream)
    assert done.run == found.run
    assert done.derived > 5


@given(worlds)
def test_every_session_replays_identically(drawn):
    _, stream, *_ = live(*drawn)
    assert replay(stream).run.head == stream.events[-1].hash


@given(worlds)
def test_a_session_that_was_resumed_replays_identically(drawn):
    result, _, _, store, agent = live(*drawn, 2)
    if result.status == "suspended":
        asyncio.run(agent.aresume("s"))
    elif "iterations" in result.reason:
        asyncio.run(agent.aresume("s", changes={"max_iterations": 4}))
    replay(asyncio.run(store.read("s")))


def rehashed(stream, change):
    """Forge events in a chain that is hashed anew."""
    events, head = [], "0" * 64
    for event in stream.events:
        payload = change(event)
        events.append(seal(event.session, event.seq, event.at, payload, head))
        head = events[-1].hash
    return Stream(tuple(events), stream.texts)


def test_a_forged_decision_in_a_chain_hashed_anew_is_found():
    stream = tape.load("demo").stream
    target = next(e for e in stream.events if isinstance(e.payload, Decided) and e.payload.about == "run")

    def forge(event):
        if event.seq != target.seq:
            return event.payload
        return event.payload.model_copy(update={"ledger": {**event.payload.ledger, "iteration": 7}})

    with pytest.raises(Divergence) as caught:
        replay(rehashed(stream, forge))
    assert (caught.value.seq, caught.value.layer) == (target.seq, "decision")
    assert "iteration" in str(caught.value)


def test_a_changed_prompt_is_found_at_its_first_request_and_shown():
    stream = tape.load("demo").stream
    texts = Texts(stream.texts)
    pack = dict(stream.events[0].payload.pack)
    pack["diagnose.md"] = texts.put(stream.texts[pack["diagnose.md"]].replace("# What to do", "# What you must do"))

    def change(event):
        return event.payload.model_copy(update={"pack": pack}) if event.seq == 0 else event.payload

    with pytest.raises(Divergence) as caught:
        replay(Stream(rehashed(stream, change).events, texts))
    first = next(e.seq for e in stream.events if e.kind == "Requested" and e.payload.purpose == "diagnose")
    assert (caught.value.seq, caught.value.layer) == (first, "fingerprint")
    assert "+# What you must do" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_logic_attempts", 9),
        ("parameters", {"temperature": 1}),
        ("model", "openai:other"),
        ("max_output_tokens", 999),
    ],
)
def test_a_changed_configuration_is_found(field, value):
    stream = tape.load("demo").stream
    texts = Texts(stream.texts)
    config = json.loads(stream.texts[stream.events[0].payload.config])
    ref = texts.put(json.dumps({**config, field: value}))

    def change(event):
        return event.payload.model_copy(update={"config": ref}) if event.seq == 0 else event.payload

    changed = Stream(rehashed(stream, change).events, texts)
    if field == "max_logic_attempts":
        replay(changed)  # nothing in this run depended on it
        return
    with pytest.raises(Divergence) as caught:
        replay(changed)
    assert (caught.value.seq, caught.value.layer) == (2, "fingerprint")


def test_a_shorter_log_is_found():
    stream = tape.load("demo").stream
    cut = next(i for i, e in enumerate(stream.events) if e.kind == "Decided") + 1
    with pytest.raises(Divergence) as caught:
        replay(replace(stream, events=stream.events[:cut]))
    assert caught.value.layer == "length"
