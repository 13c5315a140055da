"""Models as they are, from the command line: what a person reads, pays and can do about a server's or a model's habits."""

import json
import time

import pytest

from tests.e2e.test_cli import listed
from tests.helpers.forked import codetape
from tests.servers import purpose_of, serving
from tests.support import ADD, ADD_TESTS, plan

REPLIES = {"plan": plan(), "code": ADD, "tests": ADD_TESTS}
pytestmark = [pytest.mark.sandbox, pytest.mark.slow]


def run(url, *words, key="k"):
    return codetape("run", "Write add(a, b).", "--model", "openai:m", "--base-url", url, "--sandbox", "bubblewrap", *words, env={"OPENAI_API_KEY": key})  # fmt: skip


def well(handler, asked):
    handler.say(REPLIES[purpose_of(asked)])


def test_thoughts_are_shown_apart_from_the_reply(bubblewrap):
    with serving(lambda handler, asked: handler.say(f"<think>Let me add.</think>\n{REPLIES[purpose_of(asked)]}")) as (
        url,
        _,
    ):
        assert run(url).returncode == 0
    calls = json.loads(codetape("show", "last", "--prompts", "--json").stdout)["calls"]
    assert {call["reasoning"] for call in calls} == {"Let me add."}
    assert not any("<think>" in call["reply"] for call in calls)
    assert "--- reasoning\nLet me add." in codetape("show", "last", "--prompts").stdout
    assert codetape("verify", "last").returncode == 0
    assert codetape("replay", "last").returncode == 0


def test_a_session_without_a_usable_plan_is_resumed_with_another_sample(bubblewrap):
    bad = [True]

    def answer(handler, asked):
        handler.say("no plan" if bad[0] else REPLIES[purpose_of(asked)])

    with serving(answer) as (url, _):
        failed = run(url)
        assert failed.returncode == 100
        assert "no usable plan" in failed.stdout
        line = next(line for line in failed.stdout.splitlines() if "codetape resume" in line)
        bad[0] = False
        done = codetape(*line.split("codetape ")[1].split(), env={"OPENAI_API_KEY": "k"})
    assert done.returncode == 0, done.stderr
    assert codetape("verify", "last").returncode == 0
    assert codetape("replay", "last").returncode == 0


def test_a_time_budget_breaks_off_the_call_that_outlasts_it(bubblewrap):
    def answer(handler, asked):
        time.sleep(0 if purpose_of(asked) == "plan" else 20)
        well(handler, asked)

    with serving(answer) as (url, _):
        begun = time.monotonic()
        done = run(url, "--max-time", "3s")
        took = time.monotonic() - begun
    assert done.returncode == 101
    assert took < 9
    assert "was spent during a call" in done.stdout
    assert "may have been billed" in codetape("spend", "last").stdout


def test_tries_that_timed_out_are_reserved_though_a_later_one_answered(bubblewrap):
    slow = [2]

    def answer(handler, asked):
        if purpose_of(asked) == "code" and slow[0]:
            slow[0] -= 1
            time.sleep(2)
        well(handler, asked)

    with serving(answer) as (url, _):
        assert run(url, "--read-timeout", "1").returncode == 0
    shown = codetape("spend", "last").stdout
    assert "1 calls with tries that were lost and may have been billed" in shown
    row = listed()[0]
    assert row["reserved_tokens"] > 2 * 16384
    assert row["server"].startswith("http://127.0.0.1")


def test_a_prompt_that_the_server_cut_is_told(bubblewrap):
    def answer(handler, asked):
        handler.say(REPLIES[purpose_of(asked)])  # its usage says 100 tokens of prompt

    with serving(answer) as (url, _):
        done = run(url, "--constraint", "It must be clear. " * 400)
    assert done.returncode == 0
    assert "far fewer tokens than the prompt has" in done.stderr
    assert json.loads(codetape("show", "last", "--prompts", "--json").stdout)["calls"][0]["prompt_cut"]


@pytest.mark.parametrize(
    "name", ["max_tokens", "max_completion_tokens", "messages", "response_format", "stream", "n", "base_url"]
)
def test_a_parameter_cannot_stand_beside_what_has_an_option_of_its_own(name):
    done = run("http://127.0.0.1:9/v1", "--param", f"{name}=1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert name in done.stderr


def test_a_known_models_price_holds_at_another_server_where_a_person_says_so(bubblewrap):
    with serving(well) as (url, _):
        refused = run(url, "--max-cost", "1")
        assert refused.returncode == 101
        assert "--price-as" in refused.stdout + refused.stderr
        assert "pyproject.toml" in refused.stdout + refused.stderr
        done = codetape(
            "resume", "last", "--price-as", "openai:gpt-5-mini", "--base-url", url, env={"OPENAI_API_KEY": "k"}
        )
        assert done.returncode == 0, done.stdout
    assert float(json.loads(codetape("spend", "last", "--json").stdout)["total"]["cost"]) > 0
    unknown = run("http://127.0.0.1:9/v1", "--price-as", "openai:no-such-model")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)


def test_an_output_limit_is_lowered_by_resuming(bubblewrap):
    def answer(handler, asked):
        if asked["max_completion_tokens"] > 1000:
            handler.send(
                400,
                {"error": {"message": "the answer would be too long for this model", "param": "max_completion_tokens"}},
            )
        else:
            well(handler, asked)

    with serving(answer) as (url, _):
        assert run(url, "--max-output-tokens", "800").returncode == 0
        stopped = run(url)
        assert stopped.returncode in (1, 100)
        done = codetape("resume", "last", "--max-output-tokens", "900", "--base-url", url, env={"OPENAI_API_KEY": "k"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_of_this_machine_that_does_not_run_is_told_with_the_command_that_starts_it():
    begun = time.monotonic()
    done = codetape("run", "x", "--model", "ollama:x", "--base-url", "http://127.0.0.1:9/v1", "--sandbox", "bubblewrap")
    assert time.monotonic() - begun < 8
    assert done.returncode == 1
    assert "ollama serve" in done.stdout
