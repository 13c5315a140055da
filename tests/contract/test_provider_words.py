"""What providers say, in their many forms: errors, limits, usage. Shapes are of public references and reports."""

import asyncio
import json

import pytest

from codetape.errors import ModelUnavailable
from codetape.ports import Reply, RequestRefused
from codetape_adapters.models.chat_completions import chat_reply
from codetape_adapters.models.provider_errors import provider_error, stated_limits
from codetape_adapters.models.provider_usage import usage
from codetape_adapters.models.server_calls import BadReply
from tests.contract.test_openai_faults import a_request, ask

RATE = "slow down"


def error(status=400, message=RATE, **more):
    return {"error": {"message": message, **more}}


PASSING = {
    "a rate limit": (429, error(type="rate_limit_error", code="rate_limit_exceeded")),
    "a rate limit without a body": (429, ""),
    "words alone": (503, "upstream connect error"),
    "an error that is a text": (500, {"error": RATE}),
    "an error of an overloaded server": (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": RATE}},
    ),
    "an error in a list": (503, [error(code=503, status="UNAVAILABLE")]),
    "another server's rate limit, in an answer": (200, error(code=429, metadata={"raw": "rate-limited upstream"})),
    "a text code in an answer": (200, error(code="rate_limit_exceeded")),
    "a server's error in an answer": (200, error(type="server_error")),
    "no choices": (200, {"choices": [], "usage": {"prompt_tokens": 5}}),
    "detail": (502, {"detail": RATE}),
}
LASTING = {
    "no money": (429, error(type="insufficient_quota", code="insufficient_quota")),
    "no money, by another name": (429, error(type="exceeded_current_quota_error")),
    "no balance": (402, error(message="Insufficient Balance", code="invalid_request_error")),
    "a wrong key": (401, error(code="invalid_api_key")),
    "a wrong key in an answer": (200, error(code=401)),
    "a key without the right": (403, {"message": "forbidden"}),
    "no such model": (404, {"object": "error", "message": "The model x does not exist", "code": 404}),
    "a validation error": (422, {"detail": [{"loc": ["body", "model"], "msg": "field required"}]}),
    "an unknown field": (400, {"message": "bad request", "type": "invalid_request_error"}),
    "a redirect": (307, ""),
}


def answering(status, body):
    def answer(handler, asked):
        handler.send(status, body.encode() if isinstance(body, str) else body)

    return answer


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(name):
    outcome, asked, _ = ask(answering(*PASSING[name]), tries=3)
    assert isinstance(outcome, ModelUnavailable)
    assert len(asked) == 3


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_told_at_once(name):
    outcome, asked, waits = ask(answering(*LASTING[name]), tries=3)
    assert isinstance(outcome, ModelUnavailable)
    assert (len(asked), waits) == (1, [])
    assert outcome.remedy
    assert not outcome.maybe_billed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "plain words"}, "plain words"),
        ({"error": {"message": "in an object"}}, "in an object"),
        ({"error": {"message": {"deep": "object"}}}, '{"deep": "object"}'),
        ({"message": "outside"}, "outside"),
        ({"detail": "of a framework"}, "of a framework"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too much"}]}, "body.n: too much"),
        ({"errors": [{"message": "one of several"}]}, "one of several"),
        ({"object": "error", "message": "of vLLM", "code": 400}, "of vLLM"),
        ([{"error": {"message": "in a list"}}], "in a list"),
        ({"error": {"message": "outer", "metadata": {"raw": "inner"}}}, "outer: inner"),
        ({"error": {"message": "outer", "metadata": {"raw": '{"error": {"message": "inner"}}'}}}, "outer: inner"),
        ({"type": "error", "error": {"type": "api_error", "message": "of Anthropic"}}, "of Anthropic"),
        ("words", "words"),
        ({"error": {"message": "x" * 9000}}, "x" * 2000),
    ],
)
def test_the_words_are_found_wherever_they_are(body, words):
    assert provider_error(body).message == words


@pytest.mark.parametrize("body", [None, 5, [], {}, {"choices": []}, {"error": None}, {"error": {}}, {"a": {"b": 1}}])
def test_what_says_nothing_of_an_error_is_none(body):
    assert provider_error(body) is None or provider_error(body).message == ""


LIMITS = {
    "This model's maximum context length is 8192 tokens. However, you requested 17384 tokens (1000 in the messages, 16384 in the completion).": (8192, 1000, 0),
    "'max_tokens' or 'max_completion_tokens' is too large: 16384. This model's maximum context length is 8192 tokens and your request has 1000 input tokens (16384 > 8192 - 1000).": (8192, 1000, 0),
    "This endpoint's maximum context length is 131,072 tokens. However, you requested about 140000 tokens (123616 of text input, 16384 in the output).": (131072, 123616, 0),
    "max_tokens is too large: 16384. This model supports at most 4096 completion tokens, whereas you provided 16384.": (0, 0, 4096),
    "max_tokens: 16384 > 8192, which is the maximum allowed number of output tokens for this model": (0, 0, 8192),
    "input length and `max_tokens` exceed context limit: 188240 + 16384 > 200000, decrease input length or `max_tokens`": (200000, 188240, 0),
    "prompt is too long: 210000 tokens > 200000 maximum": (200000, 210000, 0),
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 1000 `inputs` tokens and 16384 `max_new_tokens`": (4096, 1000, 0),
    "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens`": (0, 0, 8192),
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]": (0, 0, 8192),
    "Range of max_tokens should be [1, 2000]": (0, 0, 2000),
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length": (32768, 40000, 0),
    "The maximum tokens you requested exceeds the model limit of 4096.": (0, 0, 4096),
    "request (9000 tokens) exceeds the available context size (4096 tokens)": (4096, 9000, 0),
}  # fmt: skip


@pytest.mark.parametrize("words", LIMITS)
def test_the_numbers_of_a_limit_are_read_from_its_words(words):
    found = stated_limits(words, 16384)
    assert (found.window, found.prompt, found.output) == LIMITS[words]


@pytest.mark.parametrize("words", LIMITS)
def test_a_limit_that_is_refused_says_what_is_too_long(words):
    window, prompt, cap = LIMITS[words]
    outcome, asked, _ = ask(answering(400, error(message=words)), a_request(max_output_tokens=16384))
    assert isinstance(outcome, RequestRefused)
    assert len(asked) == 1
    if window and prompt >= window:
        assert outcome.what == "context"
    else:
        assert (outcome.what, outcome.window, outcome.cap) == ("output", window, cap)


# ---- usage: prompt, cache read, cache write, output, reasoning; and whether it is an estimate

GIVEN = {
    "plain": ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}, (100, 0, 0, 20, 0), False),
    "cached, inside the prompt": ({"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 60}}, (40, 60, 0, 20, 0), False),
    "cached, at the top": ({"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050, "prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 100}, (100, 900, 0, 50, 0), False),
    "cached, by its plain name": ({"prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 60}, (40, 60, 0, 20, 0), False),
    "cached, beside the prompt": ({"prompt_tokens": 10, "completion_tokens": 20, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 5}, (10, 60, 5, 20, 0), False),
    "reasoning inside the completion": ({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "completion_tokens_details": {"reasoning_tokens": 30}}, (100, 0, 0, 20, 30), False),
    "reasoning beside the completion": ({"prompt_tokens": 10120, "completion_tokens": 1499, "total_tokens": 14428, "completion_tokens_details": {"reasoning_tokens": 2809}}, (10120, 0, 0, 1499, 2809), False),
    "reasoning that is more than the completion": ({"prompt_tokens": 100, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 30}}, (100, 0, 0, 20, 30), False),
    "thinking in the total alone": ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 170}, (100, 0, 0, 20, 50), False),
    "a prompt of 0": ({"prompt_tokens": 0, "completion_tokens": 200, "total_tokens": 200}, (11, 0, 0, 200, 0), True),
    "a prompt in the total alone": ({"completion_tokens": 20, "total_tokens": 120}, (100, 0, 0, 20, 0), False),
    "a completion of 0": ({"prompt_tokens": 100, "completion_tokens": 0}, (100, 0, 0, 11, 0), True),
    "the names of another API": ({"input_tokens": 100, "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 30}, "input_tokens_details": {"cached_tokens": 60}}, (40, 60, 0, 20, 30), False),
    "what cannot be": ({"prompt_tokens": -5, "completion_tokens": 10**30, "total_tokens": "x"}, (11, 0, 0, 11, 0), True),
    "whole floats": ({"prompt_tokens": 100.0, "completion_tokens": 20.0}, (100, 0, 0, 20, 0), False),
    "nothing": (None, (11, 0, 0, 11, 0), True),
    "a list": ([1], (11, 0, 0, 11, 0), True),
    "a total that cannot be": ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 10**9}, (100, 0, 0, 20, 0), False),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_usage_is_told_in_buckets_that_do_not_overlap(name):
    raw, buckets, estimated = GIVEN[name]
    found = usage(raw, a_request(), "x" * 40)
    assert (found.input, found.cache_read, found.cache_write, found.output, found.reasoning) == buckets
    assert (found.source == "estimated") == estimated


# ---- the shape of an answer


def body(**message):
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}]}


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "a"}, "a", ""),
        ({"content": "a", "reasoning_content": "r"}, "a", "r"),
        ({"content": "a", "reasoning": "r"}, "a", "r"),
        ({"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "r"}]}, "a", "r"),
        ({"content": [{"type": "text", "text": "a"}]}, "a", ""),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "r"}]}, {"type": "text", "text": "a"}]}, "a", "r"),
        ({"content": None}, None, ""),
        ({"content": "", "refusal": {"a": 1}}, "", ""),
    ],
)  # fmt: skip
def test_an_answer_is_read_from_its_parts_and_its_thoughts_apart(message, text, reasoning):
    found = chat_reply(body(**message), a_request())
    assert isinstance(found, Reply)
    assert (found.text, found.reasoning, found.refusal) == (text, reasoning, "")


@pytest.mark.parametrize(
    "wrong",
    [None, [1, 2], "words", {}, {"choices": "abc"}, {"choices": [5]}, {"choices": {"0": 1}}, {"choices": [None]},
     {"choices": [{"index": 0}]}, {"choices": [{"message": "hello"}]}, body(content=5), body(content={"a": 1})],
)  # fmt: skip
def test_json_of_another_shape_is_a_bad_answer_like_any_other(wrong):
    with pytest.raises(BadReply):
        chat_reply(wrong, a_request())
    outcome, asked, _ = ask(answering(200, json.dumps(wrong)), tries=2)
    assert isinstance(outcome, ModelUnavailable)
    assert (len(asked), len(outcome.tries), outcome.unanswered) == (2, 2, 2)


def test_a_number_that_is_no_count_spoils_no_answer():
    text = (
        json.dumps(body(content="a"))[:-1]
        + ', "usage": {"prompt_tokens": '
        + "9" * 5000
        + ', "completion_tokens": NaN}}'
    )
    outcome, _, _ = ask(answering(200, text))
    assert (outcome.text, outcome.usage.source) == ("a", "estimated")


def test_a_server_of_this_machine_that_does_not_listen_is_told_soon(monkeypatch):
    from codetape_adapters.models import presets

    model = presets.ollama("x", base_url="http://127.0.0.1:9/v1")
    loop = asyncio.new_event_loop()
    begun = loop.time()
    with pytest.raises(ModelUnavailable) as told:
        loop.run_until_complete(model.ask(a_request()))
    took = loop.time() - begun
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert took < 3
    assert "ollama serve" in told.value.remedy
    assert not told.value.maybe_billed
