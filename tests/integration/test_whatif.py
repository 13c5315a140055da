"""What a change would do, against what it does: over generated sessions and the real tapes."""

import asyncio
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import codetape
from codetape import AutoCoderAgent
from codetape.errors import UsageError
from codetape.evals import check
from codetape.evals.chosen_sessions import Filter
from codetape.evals.corpus import Corpus
from codetape.eventlog.fold import fold
from codetape.playback import tape_file
from codetape.playback.recorded_model import RecordedThenLive, answered, answers
from codetape.playback.strict_replay import is_derived
from codetape.playback.whatif import Change, simulate
from codetape.runtime.prompt_pack_files import load_pack
from codetape.testing import FakeClock, MemoryStore
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.corpora import random_corpus
from tests.worlds import World

REPLAYS = Path(__file__).parents[2] / "replays"
SESSIONS = int(os.environ.get("CODETAPE_WORLDS", "80"))
"""`CODETAPE_WORLDS=1000 pytest tests/integration/test_whatif.py` is the long campaign."""


def changed(name, pack=None):
    pack = pack or load_pack()
    return {**pack, f"{name}.md": pack[f"{name}.md"] + "\nThink twice.\n"}


CHANGES = [Change(changed(name)) for name in ("plan", "code", "tests", "diagnose", "second_opinion")] + [
    Change(config={"model": "another"}),
    Change(config={"max_logic_attempts": 3}),
    Change(config={"max_iterations": 2}),
    Change({**changed("code"), "tests.md": changed("tests")["tests.md"]}, {"parameters": {}}),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A database of generated sessions, made once."""
    store = SqliteStore(tmp_path_factory.mktemp("corpus") / "tape.db")
    random_corpus(store, SESSIONS)
    yield store
    store.close()


async def streams(store):
    return [(member, stream) async for member, stream in Corpus(store).members()]


@pytest.mark.parametrize(
    "change", CHANGES, ids=lambda c: ",".join([*c.config, *((c.pack and ["prompts"]) or [])]) or "pack"
)
def test_check_makes_no_call_that_is_said_to_be_reused_and_makes_first_the_one_that_is_said_to_differ(
    corpus, change, tmp_path
):
    seen = Counter()
    for member, stream in asyncio.run(streams(corpus)):
        if not member.ended:
            continue
        world = World(member.session, 0.25)
        here = replace(change, facts=world.sandbox.facts())
        found = simulate(stream, here)
        if found.fork_at is None:
            assert found.count("made") == found.count("unknown") == 0
            continue
        made = go_on(stream, found, change, world)
        reused = {(c.fingerprint, c.occurrence) for c in found.calls if c.reuse == "reused"}
        before = Counter(f for f, _, _ in answered(stream_up_to(stream, found.fork_at)))
        for fingerprint, number in occurrences(made, before):
            assert (fingerprint, number) not in reused
        if found.first_call[0]:
            assert made[0].fingerprint == found.first_call[1]
            assert made[0].purpose == found.first_call[0]
        if found.ends:
            assert made == []
        seen.update(c.reuse for c in found.calls)
        seen["session"] += 1
    assert seen["session"] > 5, "the change touches hardly any session: nothing was tested"


def stream_up_to(stream, seq):
    return codetape.ports.Stream(stream.events[: seq + 1], stream.texts)


def occurrences(requests, before):
    counts = Counter(before)
    for request in requests:
        yield request.fingerprint, counts[request.fingerprint]
        counts[request.fingerprint] += 1


def go_on(stream, found, change, world):
    """Fork a session where its first difference is, as a check does; return the requests that were made live."""
    store, made = MemoryStore(), []
    store.events[stream.events[0].session] = list(stream.events)
    store.texts.update(stream.texts)

    class Watched:
        name = "live"

        async def ask(self, request):
            made.append(request)
            return await world.ask(request)

    after = found.fork_at
    known = {
        key: reply
        for key, reply in answers(stream).items()
        if key in {(c.fingerprint, c.occurrence) for c in found.calls if c.reuse == "reused" and c.seq > after}
    }
    name = change.config.get("model", fold(stream.events, stream.texts).the_config.model)
    model = RecordedThenLive(name, Watched, known, stream_up_to(stream, after).events)
    agent = AutoCoderAgent(model=model, sandbox=world.sandbox, store=store, clock=FakeClock(), prompts=change.pack)
    config = {k: v for k, v in change.config.items() if k != "model"}
    asyncio.run(
        agent.afork(
            stream.events[0].session, after, changes=config, fork="fork", on_event=lambda event, _: model.saw(event)
        )
    )
    return made


def test_no_change_reuses_everything(corpus):
    for _, stream in asyncio.run(streams(corpus)):
        found = simulate(stream, Change(load_pack()))
        assert found.first is None
        assert {c.reuse for c in found.calls} <= {"reused"}


@pytest.mark.parametrize("file", sorted(REPLAYS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_real_tapes_are_told_apart_by_what_they_asked(file):
    stream = tape_file.load(str(file)).stream
    own = fold(stream.events[:1], stream.texts).pack
    assert simulate(stream, Change(load_pack())).first.purpose == "plan"  # the tapes are older than the present prompts
    asked = Counter(c.purpose for c in simulate(stream, Change(own)).calls)
    for name in ("plan", "code", "tests", "diagnose"):
        found = simulate(stream, Change(changed(name, own)))
        assert found.differs == bool(asked[name])
        if name == "diagnose" and found.differs:
            reused = Counter(c.purpose for c in found.calls if c.reuse == "reused")
            assert reused["plan"] == reused["code"] == reused["tests"] == 1
        if name == "code":
            assert [c.reuse for c in found.calls if c.purpose == "tests"] == ["reused"]
        assert sum(found.count(f) for f in ("reused", "made", "unknown")) == sum(asked.values())


def test_a_fork_with_no_change_and_the_recorded_answers_equals_its_parent_from_there_on(corpus):
    from codetape.playback.recorded_sandbox import TapeSandbox

    count = 0
    for member, stream in asyncio.run(streams(corpus))[:60]:
        if not member.ended or any(e.kind in ("Suspended", "CallLost", "GaveUp", "CallRefused") for e in stream.events):
            continue
        store = MemoryStore()
        store.events[member.session] = list(stream.events)
        store.texts.update(stream.texts)
        at = len(stream.events) // 2
        while stream.events[at].kind == "Requested":
            at -= 1
        head = stream_up_to(stream, at)
        model = RecordedThenLive(member.model, lambda: None, answers(stream), head.events)
        sandbox = TapeSandbox(tape_file.Tape(member.session, stream, fold(stream.events, stream.texts)))
        agent = AutoCoderAgent(model=model, sandbox=sandbox, store=store, clock=FakeClock())
        try:
            asyncio.run(agent.afork(member.session, at, fork="fork", on_event=lambda event, _, m=model: m.saw(event)))
        except UsageError:
            continue
        own = [e for e in asyncio.run(store.read("fork")).events if e.session == "fork"][1:]
        there = stream.events[at + 1 :]
        assert [e.kind for e in own] == [e.kind for e in there]
        derived = [
            (said_of(e, member.session), said_of(f, "fork"))
            for e, f in zip(there, own, strict=True)
            if is_derived(e.payload)
        ]
        assert [a for a, _ in derived] == [b for _, b in derived]
        count += 1
    assert count > 10


def said_of(event, session):
    return re.sub(f'"{session}:[0-9]+"', '"call"', event.stored_payload)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"skip_tests": True}, "taken up when a session starts"),
        ({"nothing": 1}, "has no nothing"),
        ({"max_iterations": 0}, "no such value"),
    ],
)
def test_what_no_fork_can_change_is_said(corpus, config, said):
    with pytest.raises(UsageError, match=said):
        [simulate(stream, Change(config=config)) for _, stream in asyncio.run(streams(corpus))[:1]]


def test_a_filter_chooses_and_a_range_counts_from_the_newest(corpus):
    everything = codetape.sessions(store=corpus)
    assert len(everything) == SESSIONS
    failed = codetape.sessions(store=corpus, where=Filter(failing=True))
    assert {m.state for m in failed} == {"failed"}
    assert [m.session for m in codetape.sessions(store=corpus, where=Filter(limit="10-20"))] == [
        m.session for m in everything[9:20]
    ]
    assert [m.task for m in codetape.sessions(store=corpus, where=Filter(task=("t1",)))] == ["t1"]
    assert codetape.sessions(store=corpus, where=Filter(tags=("nothing",))) == []
    assert Filter(failing=True).by_outcome
    assert not Filter(task=("t*",)).by_outcome


def test_a_plan_holds_no_stream(corpus):
    plan = asyncio.run(check.planned(Corpus(corpus), CHANGES[0]))
    assert len(plan.changed) + len(plan.same) + len(plan.skipped) == SESSIONS
    assert all(not hasattr(one, "stream") for one in plan.changed)
    sums = plan.sums()
    records = [found.record() for found in codetape.whatif(store=corpus, prompts=CHANGES[0].pack)]
    ended = [r for r in records if r["status"] in ("succeeded", "failed")]
    for reuse in ("reused", "made", "unknown"):
        assert sums[reuse] == {"calls": sum(r[reuse] for r in ended), "input": sum(r[f"{reuse}_input"] for r in ended), "output": sum(r[f"{reuse}_output"] for r in ended)}  # fmt: skip
