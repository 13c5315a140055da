"""The machine under anything its ports allow: legal moves only, it always ends, limits hold, tokens add up."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape import AutoCoderAgent
from codetape.domain.canonical import canonical
from codetape.errors import CorruptTape
from codetape.eventlog import machine
from codetape.eventlog.envelope import encode
from codetape.eventlog.events import Answered, Requested, Transition
from codetape.eventlog.fold import apply, fold
from codetape.eventlog.hash_chain import check_chain
from codetape.eventlog.session_state import SessionState
from codetape.eventlog.upcasters import decode_payload
from codetape.testing import FakeClock, MemoryStore
from codetape.testing.fakes import passing_report
from codetape.testing.given import failed_test, raised
from tests.helpers.explorer import Explorer, explored
from tests.support import ADD, ADD_TESTS, block, diagnosis, failure, generate, opinions, plan, verification
from tests.worlds import World

LIMIT = 4
SUM = block("def add(a, b):\n    return sum((a, b))")
GIVEN = "from solution import add\n\n\ndef test_given():\n    assert add(0, 0) == 0\n"


def live(chance, trouble, limit=LIMIT, session="s"):
    """Run one session in a random world; return its result, stream, world, store and agent."""
    world, store = World(chance, trouble), MemoryStore()
    tests = GIVEN if world.random.random() < 0.2 else None
    oracle = GIVEN if world.random.random() < 0.3 else None
    agent = AutoCoderAgent(
        model=world, sandbox=world.sandbox, store=store, clock=FakeClock(), max_iterations=limit,
        skip_tests=world.random.random() < 0.1, parameters={"temperature": 0},
    )  # fmt: skip
    result = asyncio.run(agent.agenerate("Add.", tests=tests, oracle=oracle, session=session))
    return result, asyncio.run(store.read(session)), world, store, agent


worlds = st.tuples(st.randoms(use_true_random=False), st.sampled_from([0.05, 0.25, 0.5, 0.8]))
"""A source of chance that hypothesis shrinks, and how often things go wrong."""


@given(worlds)
def test_every_session_ends_within_its_limits_and_counts_its_tokens(drawn):
    result, stream, world, _, _ = live(*drawn)
    assert result.status in ("succeeded", "failed", "suspended")
    assert result.iterations <= LIMIT
    assert len(stream.events) < 600
    answers = [e.payload for e in stream.events if isinstance(e.payload, Answered)]
    assert result.total_input_tokens == sum(a.usage.total_input for a in answers)
    assert result.total_output_tokens == sum(a.usage.total_output for a in answers)
    assert result.calls == world.asked


@given(worlds)
def test_a_session_out_of_runs_owes_one(drawn):
    _, stream, *_ = live(*drawn, 2)
    run = fold(stream.events, stream.texts)
    if run.cause == "iterations":
        assert "executing" in run.ledger.owed


@given(worlds)
def test_every_call_is_closed_before_anything_else(drawn):
    _, stream, *_ = live(*drawn)
    for event, following in zip(stream.events, stream.events[1:], strict=False):
        if isinstance(event.payload, Requested):
            assert following.payload.call == event.payload.call


@given(worlds)
def test_the_fold_is_deterministic_and_the_codec_round_trips(drawn):
    _, stream, *_ = live(*drawn)
    check_chain(stream.events)
    assert fold(stream.events, stream.texts) == fold(stream.events, stream.texts)
    for event in stream.events:
        read = decode_payload(event.kind, event.stored_version, event.stored_payload, event.seq)
        assert canonical(read.model_dump(mode="json")) == event.stored_payload


@given(worlds, st.integers(0, 10_000))
@settings(max_examples=40)
def test_a_session_cut_at_any_event_goes_on_legally_and_ends(drawn, where):
    _, stream, world, store, agent = live(*drawn)
    cut = 1 + where % len(stream.events)
    if stream.events[cut - 1].payload.__class__.__name__ in ("Succeeded", "Failed"):
        return
    store.events["s"] = list(stream.events[:cut])
    result = asyncio.run(agent.aresume("s"))
    assert result.status in ("succeeded", "failed", "suspended")
    assert asyncio.run(store.read("s")).events[:cut] == stream.events[:cut]


def moves_of(events):
    payloads = [event.payload for event in events]
    return {(p.source, p.target) for p in payloads if isinstance(p, Transition) and p.trigger}


def one_run_left():
    """The last run's one failure is quarantined, and what ran beside it was cut off: only a run is pending."""
    tests = "\n\n\n".join(f"def test_{n}():\n    assert add({a}, 2) == 9" for n, a in (("a", 1), ("b", 1), ("c", 7)))
    story = Explorer(settings={"max_iterations": 2}).replies(
        plan(), ADD, block(f"from solution import add\n\n\n{tests}")
    )
    story.builds().reports().reports({"test_a": failed_test(left="3", right="9"), "test_c": raised("KeyError", "'x'")})
    story.replies(opinions("5"), opinions("6"), diagnosis(failure("test_c")), SUM)
    report = passing_report(story.command.job).model_copy(update={"exit": "killed", "whole": False, "exit_code": None})
    story.reports({"test_b": failed_test(left="3", right="9", line=9)}, report)
    assert (story.state.state, story.state.ledger.owed) == ("failed", ("executing",))
    assert story.happens(None)
    return story.moves


def no_test_left():
    """The last run's one failure is quarantined, and no test is left beside it: tests are pending."""
    wrong = "def test_a():\n    assert add(1, 2) == {}"
    story = Explorer(settings={"max_iterations": 2, "max_test_attempts": 0})
    story.replies(plan(), ADD, block("from solution import add\n\n\n" + wrong.format(9))).builds().reports()
    story.reports({"test_a": failed_test(left="3", right="9")}).replies(opinions("3"), opinions("3"))
    story.replies(block(wrong.format(8)), verification()).reports().reports(
        {"test_a": failed_test(left="3", right="8")}
    )
    assert (story.state.state, story.state.ledger.owed[0]) == ("failed", "writing_tests")
    assert story.happens(None)
    return story.moves


def a_fresh_sample_pending():
    """The last run shows that a failure outlived every fix: a fresh sample is pending."""
    tests = block("from solution import add\n\n\ndef test_sum():\n    for n in (1,):\n        assert add(n, 2) == 3")
    story = Explorer(settings={"max_iterations": 3}).replies(plan(), ADD, tests).builds().reports()
    for number in range(3):
        story.reports({"test_sum": raised("KeyError", "'x'")})
        if story.purpose == "diagnose":
            story.replies(diagnosis(failure("test_sum")), block(f"def add(a, b):\n    return {number} * 0 + a + b"))
    assert (story.state.state, story.state.ledger.owed[0]) == ("failed", "coding")
    assert story.happens(None)
    return story.moves


def a_confirming_run_outlives_every_fix():
    """Each program passes, and fails each time that it is run elsewhere: a fresh sample is drawn."""
    tests = block("from solution import add\n\n\ndef test_sum():\n    for n in (1,):\n        assert add(n, 2) == 3")
    story = Explorer(settings={"max_iterations": 9}).replies(plan(), ADD, tests).builds().reports()
    for number in range(4):
        story.reports()
        while story.purpose == "confirm":
            story.reports({"test_sum": raised("KeyError", "'x'")})
        if story.purpose == "code":
            return story.moves
        story.replies(diagnosis(failure("test_sum")), block(f"def add(a, b):\n    return {number} * 0 + a + b"))
    raise AssertionError("no fresh sample was drawn")


WRONG = "def test_sum():\n    assert add(1, 2) == {}"


def rewritten(verified=()):
    """A refuted test whose fixes keep missing the point is quarantined; as the only one it is written again.

    ``verified`` are the tests of which a check says that their fix is missing: they are fixed again.
    """
    answers = {
        "plan": [plan()], "code": [ADD], "tests": [block("from solution import add\n\n\n" + WRONG.format(4)), ADD_TESTS],
        "second_opinion": [opinions("3")], "fix_tests": [block(WRONG.format(5)), block(WRONG.format(6))],
        "verify_tests": [verification(missing=verified)],
    }  # fmt: skip
    events = []
    result, _ = generate(answers, hook=lambda event, run: events.append(event))
    assert result.succeeded
    return moves_of(events)


def no_plan_at_first():
    """The model gives no usable plan; the session is resumed and gets one."""
    story = Explorer().replies("no", "no")
    assert story.happens(None)
    return story.replies(plan()).moves


@pytest.mark.slow
def test_the_moves_that_happen_are_the_moves_in_the_table():
    """Both ways: nothing outside ROWS (the fold refuses it), and nothing in ROWS that never happens."""
    by_hand = {(state, "suspended") for state in machine.ACTIVE} | {("suspended", state) for state in machine.ACTIVE}
    every = {(source, row.target) for row in machine.ROWS for source in row.sources}
    told = (
        rewritten()
        | rewritten(["test_sum"])
        | no_plan_at_first()
        | one_run_left()
        | no_test_left()
        | a_fresh_sample_pending()
        | a_confirming_run_outlives_every_fix()
    )
    left, _ = explored(every - by_hand - told, seed=13)
    assert sorted(left) == []


def test_an_illegal_trigger_raises_and_moves_nothing():
    """The fold asks the machine: an event that says otherwise is refused, and is not appended."""
    result, stream, *_ = live(7, 0.25)
    begun = fold(stream.events[:1], stream.texts)
    assert begun.state == "planning"
    decided = next(event.payload for event in stream.events if event.kind == "Decided")
    for wrong in ({"trigger": "execute", "target": "executing"}, {"trigger": "succeed"}, {"source": "coding"}):
        event = encode(
            result.session, begun.seq, "2026-01-01T00:00:00.000Z", decided.model_copy(update=wrong), begun.head
        )
        with pytest.raises(CorruptTape):
            apply(begun, event, stream.texts)


def test_the_machine_is_the_table_and_nothing_beside_it():
    made = machine.machine()
    assert machine.machine() is made
    assert set(made.states) == set(machine.STATES)
    drawn = {
        (t.source, t.dest) for event in made.events.values() for moves in event.transitions.values() for t in moves
    }
    assert drawn == {(source, row.target) for row in machine.ROWS for source in row.sources}
    assert not any(name.startswith("to_") for name in made.events)


def test_state_is_nothing_but_the_fold_of_events():
    result, stream, *_ = live(7, 0.25)
    run = SessionState()
    for event in stream.events:
        run = apply(run, event, stream.texts)
    assert run == fold(stream.events, stream.texts)
    assert run.state == result.status
