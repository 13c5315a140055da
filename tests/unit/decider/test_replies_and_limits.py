"""What a session makes of a model's and a server's habits: forms of replies, limits that are named, ends that are none."""

import pytest

from codetape.decider.commands import CallModel
from codetape.eventlog import machine
from codetape.testing.given import Given
from tests.support import ADD, ADD_TESTS, block, plan

THOUGHT = "<think>Let me see.</think>\n"
TWO = block("def add(a, b):\n    return a + b") + "\nor\n" + block("def add(a, b):\n    return b + a")


def asked(story):
    assert isinstance(story.command, CallModel)
    return story.command.request


@pytest.mark.parametrize(
    ("replies", "then"),
    [
        ((THOUGHT + plan(),), "code"),
        ((f"Here it is:\n\n```json\n{plan()}\n```\nFits?",), "code"),
        ((plan(), "```bash\npip install x\n```\n" + ADD), "tests"),
        ((plan(), ADD, THOUGHT + ADD_TESTS), "build"),
        ((plan(), TWO), "code"),  # in doubt: asked again
    ],
)
def test_what_is_there_without_doubt_is_read(replies, then):
    assert Given().replies(*replies).purpose == then


def test_versions_before_read_as_they_did():
    assert Given(rules=2).replies(THOUGHT + plan()).purpose == "plan"


def test_a_form_that_was_asked_for_again_is_named_in_every_later_prompt_of_its_kind():
    story = Given().replies(plan(), TWO)
    assert "exactly one" in story.prompt_text
    story = story.replies(ADD)
    assert asked(story).purpose == "tests"
    assert "and no other one" in story.prompt_text
    assert "and no other one" not in Given().replies(plan(), ADD).prompt_text


# ---- limits


def test_a_cap_lowers_the_output_from_then_on():
    story = Given().is_refused("output", cap=4096)
    assert (story.purpose, asked(story).max_output_tokens) == ("plan", 4096)
    assert asked(story.replies(plan())).max_output_tokens == 4096


def test_a_window_leaves_the_output_what_the_prompt_does_not_need():
    story = Given().is_refused("output", window=8192, prompt=1000)
    request = asked(story)
    assert request.max_output_tokens <= 8192 - max(1000, request.reserved_input)
    assert request.max_output_tokens > 4096
    assert story.state.ledger.trimmed is False


def test_a_server_that_names_ever_lower_limits_is_believed_a_few_times():
    story = Given()
    for cap in range(4000, 3900, -1):
        if not isinstance(story.command, CallModel):
            break
        story = story.is_refused("output", f"at most {cap}", cap=cap)
    assert story.state.state == "failed"
    assert story.state.calls < 8
    assert "at most 399" in story.state.reason
    assert "--max-output-tokens" in story.state.reason


def test_a_prompt_that_has_no_room_is_shortened_and_not_the_answer():
    story = Given().is_refused("output", window=8192, prompt=8100)
    assert story.state.ledger.trimmed
    assert asked(story).max_output_tokens == 16384
    assert Given().is_refused("context").state.ledger.trimmed


def test_a_limit_above_what_is_asked_for_leaves_nothing_to_lower():
    story = Given(settings={"max_output_tokens": 2000}).is_refused("output", cap=4096)
    assert (story.state.state, story.state.calls) == ("failed", 1)
    assert "--max-output-tokens" in story.state.reason


# ---- ends that are none


@pytest.mark.parametrize(
    ("replies", "state"),
    [(("no", "no"), "planning"), ((plan(), "no", "no"), "coding"), ((plan(), ADD, "no", "no"), "writing_tests")],
)
def test_a_session_without_a_usable_reply_fails_and_can_be_resumed_where_it_was(replies, state):
    story = Given().replies(*replies)
    assert (story.state.state, story.state.cause, story.state.resumes_to) == ("failed", "unusable", state)
    assert machine.trigger("failed", state)
