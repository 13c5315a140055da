"""Resumed from every prefix of its log, in the same outside world, a session ends the same, and asks nothing twice."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape import AutoCoderAgent
from codetape.eventlog.events import Answered, Suspended
from codetape.playback.strict_replay import replay
from codetape.testing import FakeClock, MemoryStore
from tests.worlds import World

LIMIT = 3


class Steady(World):
    """A world whose answers depend on what is asked alone: the same question, whenever it is put, has the same answer."""

    def __init__(self, seed, trouble):
        super().__init__(seed, trouble)
        self.seed, self.fingerprints = seed, []

    def about(self, fingerprint):
        self.random = random.Random(f"{self.seed} {fingerprint}")

    def bad(self, share=1.0):
        return share > 0.05 and super().bad(share)  # what is down stays down: that is another test's

    async def ask(self, request):
        self.fingerprints.append(request.fingerprint)
        self.about(request.fingerprint)
        return await super().ask(request)

    def build(self, spec):
        self.about(spec.fingerprint)
        return super().build(spec)

    def execute(self, job):
        self.about(job.fingerprint)
        return super().execute(job)


def agent_in(world, store):
    return AutoCoderAgent(model=world, sandbox=world.sandbox, store=store, clock=FakeClock(), max_iterations=LIMIT)


def ending(result):
    return (
        result.status, result.confidence, result.reason, result.iterations, result.solution, result.tests,
        result.quarantined, result.packages, result.report,
    )  # fmt: skip


@pytest.mark.slow
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.25, 0.5]))
@settings(max_examples=12)
def test_from_every_prefix_the_end_is_the_same_and_no_recorded_call_is_repeated(seed, trouble):
    world, store = Steady(seed, trouble), MemoryStore()
    result = asyncio.run(agent_in(world, store).agenerate("Add.", session="s"))
    events, texts = asyncio.run(store.read("s")).events, dict(store.texts)
    once = Counter(world.fingerprints)
    for cut in range(1, len(events)):
        again, part = Steady(seed, trouble), MemoryStore()
        part.events["s"], part.texts = list(events[:cut]), dict(texts)
        resumed = asyncio.run(agent_in(again, part).aresume("s"))
        assert ending(resumed) == ending(result), cut
        new = asyncio.run(part.read("s"))
        assert [e.hash for e in new.events[:cut]] == [e.hash for e in events[:cut]]
        recorded = Counter(_asked_of(events[:cut]))
        assert Counter(again.fingerprints) == once - recorded, cut
        replay(new)


def _asked_of(events):
    asked = {e.payload.call: e.payload for e in events if e.kind == "Requested"}
    return [asked[e.payload.call].fingerprint for e in events if e.kind in ("Answered", "CallRefused")]


def test_a_halt_between_an_answer_and_its_decision_keeps_the_answer():
    """Ctrl-C, or a process that dies, after an answer was recorded: it is not asked for again."""
    world, store = Steady(3, 0.05), MemoryStore()
    asyncio.run(agent_in(world, store).agenerate("Add.", session="s"))
    events = asyncio.run(store.read("s")).events
    cut = 1 + next(i for i, e in enumerate(events) if isinstance(e.payload, Answered))
    again, part = Steady(3, 0.05), MemoryStore()
    part.events["s"], part.texts = list(events[:cut]), dict(store.texts)
    asyncio.run(agent_in(again, part).aresume("s"))
    new = asyncio.run(part.read("s")).events
    halted = new[cut].payload
    assert isinstance(halted, Suspended)
    assert halted.cause == "outage"
    assert len(again.fingerprints) == len(world.fingerprints) - 1
