"""Forks: what is before the point is shared and paid for once, what comes after is the fork's own."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape import AutoCoderAgent
from codetape.errors import CorruptTape, UsageError
from codetape.eventlog.envelope import stored
from codetape.playback import tape_file
from codetape.playback.strict_replay import replay
from codetape.playback.verify import verify
from codetape.runtime.fork import point
from codetape.testing import FakeClock, ScriptedModel
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.property.test_machine import live, worlds
from tests.support import ADD, ADD_TESTS, SUBTRACT, HostSandbox, diagnosis, failure, generate, opinions, plan, purposes
from tests.worlds import World

FIXED = {
    "code": [ADD],
    "tests": [ADD_TESTS],
    "second_opinion": [opinions("3", "4")],
    "diagnose": [diagnosis(failure("test_sum"))],
}


@pytest.fixture
def failed():
    """A session in a database that failed in its only run."""
    store = SqliteStore("tape.db")
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3", "4")],
        "diagnose": ["{"],
    }
    result, model = generate(answers, store=store, max_iterations=1)
    assert result.status == "failed"
    yield store, result, model
    store.close()


def fork(store, session, at, answers=FIXED, name="scripted", **options):
    model = ScriptedModel(answers, name=name)
    agent = AutoCoderAgent(model=model, sandbox=HostSandbox(), store=store, prompts=options.pop("prompts", None))
    return asyncio.run(agent.afork(session, at, **options)), model


def test_a_fork_goes_on_from_the_point_and_pays_for_its_own_alone(failed):
    store, parent, model = failed
    before = asyncio.run(store.read(parent.session)).events
    result, asked = fork(store, parent.session, "coding", changes={"max_iterations": 3}, name="another")
    assert result.succeeded
    assert purposes(asked) == ["code", "tests"]
    assert (result.parent, result.inherited_calls, result.calls) == (parent.session, 1, 3)
    assert result.config.model == "another"
    stream = asyncio.run(store.read(result.session))
    own = [e for e in stream.events if e.session == result.session]
    assert own[0].kind == "SessionForked"
    assert store._db().execute("SELECT count(*) FROM events WHERE session = ?", (result.session,)).fetchone()[0] == len(
        own
    )
    assert asyncio.run(store.read(parent.session)).events == before
    assert replay(stream).run.head == result.head
    assert verify([stored(e) for e in stream.events], stream.texts).sound
    saved = store.recover(result.session)
    assert verify(saved.rows, saved.texts, head=result.head).sound
    rows = {row["session"]: row for row in store.sessions()[0]}
    assert rows[result.session]["parent"] == parent.session
    assert rows[result.session]["input_tokens"] == result.total_input_tokens - result.inherited.total_input
    assert store.unsound() == []


def test_its_tape_carries_what_it_inherits(failed, tmp_path):
    store, parent, _ = failed
    result, _ = fork(store, parent.session, "writing_tests", changes={"max_iterations": 3})
    again, _ = fork(store, result.session, "vetting", answers=FIXED)
    stream = asyncio.run(store.read(again.session))
    assert list(dict.fromkeys(e.session for e in stream.events)) == [parent.session, result.session, again.session]
    lines = list(tape_file.write(again.session, stream))
    read = tape_file.read(lines)
    other = SqliteStore(tmp_path / "other.db")
    assert other.put(read.stream) == [len(stream.events)]
    assert list(tape_file.write(again.session, asyncio.run(other.read(again.session)))) == lines
    assert [e.hash for e in asyncio.run(other.read(parent.session)).events] == [
        e.hash for e in stream.events if e.session == parent.session
    ]
    assert other.put(asyncio.run(store.read(parent.session))) != [0]  # the parent continued after the point
    other.close()


def test_a_remark_and_another_pack_are_seen_from_the_point_on(failed, tmp_path):
    from codetape.runtime.prompt_pack_files import load_pack

    store, parent, _ = failed
    for name, text in load_pack().items():
        (tmp_path / "pack" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pack" / name).write_text(text)
    (tmp_path / "pack" / "code.md").write_text(load_pack()["code.md"] + "\nBe terse.\n")
    result, asked = fork(
        store, parent.session, "coding", changes={"max_iterations": 2}, say="Mind the sign.", prompts=tmp_path / "pack"
    )
    assert "Mind the sign." in asked.requests[0].messages[1].content
    assert "Be terse." in asked.requests[0].messages[1].content
    assert replay(asyncio.run(store.read(result.session))).derived > 5


def test_an_answer_can_be_replaced(failed):
    store, parent, _ = failed
    stream = asyncio.run(store.read(parent.session))
    asked = {e.payload.call: e.payload.purpose for e in stream.events if e.kind == "Requested"}
    at = next(e.seq for e in stream.events if e.kind == "Answered" and asked[e.payload.call] == "code")
    result, model = fork(store, parent.session, at, changes={"max_iterations": 2}, reply=ADD)
    assert result.succeeded
    assert purposes(model) == ["tests"]
    replay(asyncio.run(store.read(result.session)))
    with pytest.raises(UsageError, match="no answer waits"):
        fork(store, parent.session, "coding", reply=ADD)


def test_a_point_with_an_open_call_moves_back(failed):
    store, parent, _ = failed
    stream = asyncio.run(store.read(parent.session))
    for event in stream.events:
        where = point(stream, event.seq)
        assert where == (event.seq - 1 if event.kind == "Requested" else event.seq)


@pytest.mark.parametrize(
    ("at", "changes", "said"),
    [
        (999, {}, "no event 999"),
        ("nowhere", {}, "no point"),
        ("coding#9", {}, "1 times"),
        ("failed", {}, "nothing continues"),
        ("coding", {"nonsense": 1}, "nonsense"),
        ("coding", {"max_iterations": 0}, "Raise max_iterations"),
    ],
)
def test_a_point_that_there_is_not_is_said(failed, at, changes, said):
    store, parent, _ = failed
    with pytest.raises(UsageError, match=said):
        fork(store, parent.session, at, changes=changes)
    assert len(store.sessions()[0]) == 1


def test_a_session_out_of_runs_is_forked_where_it_ended_with_a_higher_limit(failed):
    store, parent, _ = failed
    result, model = fork(store, parent.session, "failed", changes={"max_iterations": 4})
    assert result.succeeded
    assert purposes(model)[0] in ("second_opinion", "diagnose")
    replay(asyncio.run(store.read(result.session)))


@given(worlds, st.integers(0, 10_000))
@settings(max_examples=25)
def test_a_fork_of_any_session_at_any_point_is_legal_and_replays(drawn, where):
    chance, trouble = drawn
    _, stream, _, store, _ = live(chance, trouble)
    world = World(chance, trouble)
    agent = AutoCoderAgent(model=world, sandbox=world.sandbox, store=store, clock=FakeClock())
    at = where % len(stream.events)
    try:
        asyncio.run(agent.afork("s", at, fork="f", changes={"max_iterations": 6}))
    except UsageError:
        assert stream.events[at].kind in ("Succeeded", "Failed")
        return
    forked = asyncio.run(store.read("f"))
    assert [e.hash for e in forked.events[: point(stream, at) + 1]] == [
        e.hash for e in stream.events[: point(stream, at) + 1]
    ]
    assert replay(forked).run.head == forked.events[-1].hash


def test_a_forged_parent_is_found():
    _, stream, world, store, agent = live(3, 0.05)
    world = World(4, 0.05)
    agent = AutoCoderAgent(model=world, sandbox=world.sandbox, store=store, clock=FakeClock())
    asyncio.run(agent.afork("s", "coding", fork="f"))
    events = asyncio.run(store.read("f")).events
    at = next(e.seq for e in events if e.kind == "SessionForked")
    from codetape.eventlog.envelope import encode
    from codetape.eventlog.fold import fold

    first = events[at]
    wrong = encode("f", at, first.at, first.payload.model_copy(update={"parent": "other"}), first.prev_hash)
    with pytest.raises(CorruptTape, match="another event"):
        fold((*events[:at], wrong), store.texts)
    alien = encode("g", at, first.at, events[at - 1].payload, events[at - 1].hash)
    with pytest.raises(CorruptTape):
        fold((*events[:at], alien), store.texts)


def test_the_family_is_drawn(failed):
    from tests.helpers.forked import codetape

    store, parent, _ = failed
    child, _ = fork(store, parent.session, "writing_tests", changes={"max_iterations": 3})
    grandchild, _ = fork(store, child.session, "vetting")
    store.close()
    shown = codetape("list", "--tree", "--db", "tape.db").stdout
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines[1:2]] == [parent.session[:8]]
    assert f"└ {child.session[:8]} @" in lines[2]
    assert f"  └ {grandchild.session[:8]} @" in lines[3]
    said = codetape("show", child.session, "--db", "tape.db").stdout
    assert f"from {parent.session} up to event" in said
    assert "spent here" in said


def test_a_label_that_a_list_cannot_hold_is_refused(failed):
    store, parent, _ = failed
    with pytest.raises(UsageError, match="is no label"):
        fork(store, parent.session, "coding", tags=["a,b"])
