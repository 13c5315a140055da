"""What the fold refuses: an event that cannot have happened there, whoever wrote it."""

import pytest

from codetape.decider.request_events import requested
from codetape.domain.usage import Usage
from codetape.errors import CorruptTape
from codetape.eventlog.envelope import encode
from codetape.eventlog.events import (
    Answered,
    Blobs,
    CallBatched,
    ConfigChanged,
    PersonAnswered,
    Resumed,
    SessionForked,
    TestsFinished,
)
from codetape.eventlog.fold import apply, fold
from codetape.runtime.versions import versions
from codetape.testing.given import Given
from tests.support import ADD, ADD_TESTS, plan


def after(story, payload, blobs=None):
    """Apply one more event to a story's state."""
    event = encode("s", story.state.seq, "2026-01-01T00:00:00.000Z", payload, story.state.head)
    return apply(story.state, event, {**story.blobs, **(blobs or {})})


def waiting():
    """A session whose model has replied, and that has decided nothing on it yet."""
    story = Given()
    new = requested(story.state, story.command)
    story._append(new)
    blobs = Blobs()
    answered = Answered(call=story.state.call.call, text=blobs.put(plan()), usage=Usage())
    story.blobs |= blobs
    story.state = after(story, answered)
    return story


def test_a_call_is_not_made_while_an_outcome_waits_for_its_decision():
    story = waiting()
    assert story.state.outcome is not None
    ahead = Given()
    call = requested(ahead.state, ahead.command).payload.model_copy(update={"call": f"s:{story.state.seq}"})
    with pytest.raises(CorruptTape, match="nothing can be asked"):
        after(story, call)


def test_a_call_is_not_made_while_one_is_open():
    story = Given()
    new = requested(story.state, story.command)
    story._append(new)
    with pytest.raises(CorruptTape, match="still open"):
        after(story, new.payload.model_copy(update={"call": f"s:{story.state.seq}"}))


def test_a_call_has_the_name_of_its_event():
    story = Given()
    call = requested(story.state, story.command).payload
    with pytest.raises(CorruptTape, match="not this call's name"):
        after(story, call.model_copy(update={"call": "s:99"}))


def test_an_outcome_closes_the_open_call_of_its_kind():
    story = Given()
    blobs = Blobs()
    with pytest.raises(CorruptTape, match="not the open call"):
        after(story, Answered(call="s:1", text=blobs.put("x"), usage=Usage()), blobs)
    story._append(requested(story.state, story.command))
    report = TestsFinished(call=story.state.call.call, purpose="run", exit="ok", whole=True, passed=1, failed=0, errors=0, skipped=0, report=blobs.put("{}"))  # fmt: skip
    with pytest.raises(CorruptTape, match="does not belong to the ask"):
        after(story, report, blobs)


def test_a_call_waits_in_a_batch_while_it_is_open_and_is_closed_by_its_answer():
    story, blobs = Given(), Blobs()
    with pytest.raises(CorruptTape, match="not the open call"):
        after(story, CallBatched(call="s:1", batch="0" * 16))
    story._append(requested(story.state, story.command))
    call = story.state.call.call
    with pytest.raises(CorruptTape, match="not the open call"):
        after(story, CallBatched(call="s:99", batch="0" * 16))
    waits = after(story, CallBatched(call=call, batch="0" * 16, batch_id="b_1"))
    assert (waits.call.call, waits.call.batch, waits.call.batch_id) == (call, "0" * 16, "b_1")
    assert waits.state == story.state.state
    answered = after(story, Answered(call=call, text=blobs.put("x"), usage=Usage()), blobs)
    assert answered.call is None


def test_an_execution_waits_in_no_batch():
    story = Given().replies(plan(), ADD, ADD_TESTS).builds()
    story._append(requested(story.state, story.command))
    assert story.state.call.effect == "execute"
    with pytest.raises(CorruptTape, match="does not belong to the execute"):
        after(story, CallBatched(call=story.state.call.call, batch="0" * 16))


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (PersonAnswered(subject="x", answer="allow"), "nobody was asked"),
        (
            Resumed(trigger="resume_planning", source="suspended", target="planning", versions=versions()),
            "leaves suspended",
        ),
    ],
)
def test_what_belongs_to_a_halted_session_is_refused_in_a_running_one(payload, says):
    with pytest.raises(CorruptTape, match=says):
        after(Given(), payload)


def test_the_configuration_changes_only_where_a_session_waits():
    blobs = Blobs()
    with pytest.raises(CorruptTape, match="cannot change"):
        after(Given(), ConfigChanged(changes=blobs.put("{}")), blobs)


def test_a_fork_begins_at_the_event_that_it_names():
    story, blobs = Given(), Blobs()
    fork = SessionForked(parent="s", seq=0, hash="1" * 64, config=blobs.put("{}"), versions=versions())
    with pytest.raises(CorruptTape, match="another event"):
        after(story, fork, blobs)


def test_a_gap_and_a_missing_blob_are_named_with_their_event():
    story = Given().replies(plan(), ADD, ADD_TESTS)
    with pytest.raises(CorruptTape, match="was due"):
        fold((*story.events[:3], *story.events[4:]), story.blobs)
    with pytest.raises(CorruptTape, match="missing") as error:
        fold(story.events, {})
    assert error.value.seq == 0


def test_folding_in_parts_is_folding_at_once():
    story = Given().replies(plan(), ADD, ADD_TESTS).builds().reports().reports()
    for cut in range(len(story.events)):
        part = fold(story.events[:cut], story.blobs)
        assert fold(story.events[cut:], story.blobs, part) == story.state
