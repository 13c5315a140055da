"""The openai adapter on a server that does everything wrong that servers do."""

import asyncio
import time

import pytest

from codetape.domain.model_request import LENGTH_PARAMETER, Message
from codetape.errors import ModelUnavailable, UsageError
from codetape.ports import Reply, RequestRefused
from codetape.prompts.reply_parser import schema_for
from codetape.testing.contracts import ModelContract
from codetape_adapters.models.openai_compatible import OpenAIModel
from codetape_adapters.models.presets import LOCAL, llamacpp, ollama
from tests.servers import serving
from tests.support import ADD, ADD_TESTS, block, generate, plan, purposes

KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz123456"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


async def at_once(seconds):
    waits.append(seconds)


waits = []


def ask(answer, request=None, **options):
    """Ask a server that answers so; return the outcome, what it was asked, and the waits between tries."""
    waits.clear()
    with serving(answer) as (url, asked):
        model = OpenAIModel("x", base_url=url, sleep=at_once, **options)
        try:
            outcome = asyncio.run(model.ask(request or a_request()))
        except ModelUnavailable as error:
            outcome = error
    return outcome, asked, list(waits)


def a_request(**more):
    from codetape.domain.model_request import ModelRequest

    messages = (Message(role="system", content="Be brief."), Message(role="user", content="Plan."))
    return ModelRequest(
        **{"model": "openai:x", "purpose": "plan", "messages": messages, "max_output_tokens": 512, **more}
    )


def after(failures, *, status=500, headers=(), body=None):
    """Fail so many times, then answer well."""
    left = [failures]

    def answer(handler, asked):
        if left[0]:
            left[0] -= 1
            handler.send(status, body or {"error": {"message": "busy"}}, headers)
        else:
            handler.say("a word")

    return answer


class TestAfterFaults(ModelContract):
    """The contract holds on a server that fails twice before each answer."""

    @pytest.fixture(autouse=True)
    def _served(self):
        turns = []

        def answer(handler, asked):
            turns.append(1)
            if len(turns) % 3:
                handler.send(503, {"error": {"message": "busy"}})
            else:
                handler.say("a word")

        with serving(answer) as (url, _):
            self.url = url
            yield

    def make(self):
        return OpenAIModel("x", base_url=self.url, sleep=at_once, tries=9)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_faults_that_pass_are_tried_again_and_every_try_is_reported(status):
    reply, asked, waited = ask(after(2, status=status))
    assert isinstance(reply, Reply)
    assert reply.text == "a word"
    assert len(asked) == 3
    assert len(reply.tries) == len(waited) == 2
    assert all(t.startswith(f"{status}:") for t in reply.tries)
    assert waited[1] > waited[0] * 0.7


def test_retry_after_is_honoured_and_bounded():
    _, _, waited = ask(after(1, status=429, headers=[("Retry-After", "7")]))
    assert waited == [7]
    _, _, waited = ask(after(1, status=429, headers=[("Retry-After", "86400")]))
    assert waited == [60]


def test_it_gives_up_and_says_what_came_of_each_try():
    error, asked, _ = ask(after(99))
    assert isinstance(error, ModelUnavailable)
    assert len(asked) == len(error.tries) == 5


@pytest.mark.parametrize(
    ("status", "message", "billed"),
    [
        (429, "Rate limit reached: Limit 500, Used 498.", False),
        (429, "Request timed out in the queue, incomplete.", False),
        (401, "timeout of the key: 5000", False),
        (404, "no chat completion here, 503", False),
        (500, "busy", True),
        (502, "Bad gateway", True),
        (529, "Overloaded", True),
    ],
)
def test_a_status_says_whether_a_try_may_be_billed_and_its_words_do_not(status, message, billed):
    error, _, _ = ask(after(99, status=status, body={"error": {"message": message}}))
    assert isinstance(error, ModelUnavailable)
    assert error.maybe_billed is billed


def test_a_request_that_never_arrived_is_not_billed_and_one_that_was_dropped_may_be():
    nowhere = OpenAIModel("x", base_url="http://127.0.0.1:9/v1", sleep=at_once, tries=2)
    with pytest.raises(ModelUnavailable) as refused:
        asyncio.run(nowhere.ask(a_request()))
    assert not refused.value.maybe_billed
    dropped, _, _ = ask(lambda handler, asked: handler.drop(), tries=2)
    assert dropped.maybe_billed


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_faults_that_stay_are_not_tried_again(status):
    error, asked, _ = ask(after(99, status=status))
    assert isinstance(error, ModelUnavailable)
    assert len(asked) == 1
    assert error.remedy


def test_a_dropped_connection_and_half_a_body_are_tried_again():
    turns = []

    def answer(handler, asked):
        turns.append(1)
        if len(turns) == 1:
            handler.drop()
        elif len(turns) == 2:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"id": ')
            handler.wfile.flush()
            handler.drop()
        else:
            handler.say("a word")

    reply, asked, _ = ask(answer)
    assert reply.text == "a word"
    assert len(asked) == 3


def test_a_stalled_body_ends_at_the_read_limit():
    def answer(handler, asked):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.flush()
        time.sleep(3)

    begun = time.monotonic()
    error, _, _ = ask(answer, read_seconds=0.3, tries=2)
    assert isinstance(error, ModelUnavailable)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "body", [b"<html>busy</html>", b"{", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"null"]
)
def test_an_answer_that_is_no_answer_is_no_crash(body):
    def answer(handler, asked):
        handler.send(200, body)

    outcome, _, _ = ask(answer, tries=2)
    assert isinstance(outcome, ModelUnavailable) or outcome.text is None


def test_missing_usage_is_estimated_and_marked():
    reply, _, _ = ask(lambda handler, asked: handler.say("a word", usage=False))
    assert reply.usage.source == "estimated"
    assert reply.usage.total_input == a_request().input_estimate
    assert reply.usage.total_output > 0


def test_a_refusal_and_a_cut_off_answer_come_as_they_are():
    def refusing(handler, asked):
        handler.send(200, {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None, "refusal": "I will not."}}]})  # fmt: skip

    reply, _, _ = ask(refusing)
    assert (reply.text, reply.refusal) == (None, "I will not.")
    reply, _, _ = ask(lambda handler, asked: handler.say("half a w", finish="length"))
    assert reply.finish_reason == "length"


REFUSALS = {
    "schema": ({"message": "Invalid parameter: 'response_format' of type 'json_schema' is not supported", "param": "response_format"}, ""),
    "context": ({"message": "too long", "code": "context_length_exceeded"}, ""),
    "parameter": ({"message": "Unsupported value: 'temperature' does not support 0.2", "param": "temperature"}, "temperature"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refused_form_is_a_value(what):
    body, parameter = REFUSALS[what]
    request = a_request(reply_schema=schema_for("plan"), parameters={"temperature": 0.2})
    outcome, asked, _ = ask(after(99, status=400, body={"error": body}), request)
    assert isinstance(outcome, RequestRefused)
    assert (outcome.what, outcome.parameter) == (what, parameter)
    assert len(asked) == 1


def test_a_key_echoed_in_an_error_reaches_no_event():
    import json

    from codetape_adapters.stores.sqlite.store import SqliteStore

    with serving(
        after(99, status=401, body={"error": {"message": f"Incorrect API key provided: {KEY}. Bearer {KEY}"}})
    ) as (url, _):
        store = SqliteStore("tape.db")
        result, _ = generate({}, model=OpenAIModel("x", base_url=url), store=store)
    assert result.status == "suspended"
    assert KEY not in json.dumps(result.model_dump(mode="json"))
    assert all(KEY not in t for t in asyncio.run(store.read(result.session)).texts.values())


def old_server(schemas=False, json_mode=True, limit="max_tokens"):
    """A server of an older make: no schemas, its own name for the limit, no temperature."""

    def answer(handler, asked):
        form = (asked.get("response_format") or {}).get("type")
        if "temperature" in asked:
            handler.send(400, {"error": {"message": "temperature is not supported", "param": "temperature"}})
        elif limit not in asked:
            handler.send(
                400, {"error": {"message": f"Unsupported parameter: '{LENGTH_PARAMETER}'", "param": LENGTH_PARAMETER}}
            )
        elif (form == "json_schema" and not schemas) or (form == "json_object" and not json_mode):
            handler.send(400, {"error": {"message": f"response_format {form} is not supported"}})
        else:
            text = asked["messages"][1]["content"]
            handler.say(plan() if "Plan the script" in text else ADD_TESTS if "Write the pytest file" in text else ADD)

    return answer


@pytest.mark.parametrize("json_mode", [True, False])
def test_a_session_on_an_older_server_finds_its_form_once(json_mode):
    with serving(old_server(json_mode=json_mode)) as (url, asked):
        events = []
        model = OpenAIModel("x", base_url=url)
        result, _ = generate(
            {}, model=model, hook=lambda e, _: events.append(e), parameters={"temperature": 0.2, "seed": 1}
        )
    assert result.succeeded
    refused = [e.payload.what for e in events if e.kind == "CallRefused"]
    assert refused == ["parameter", "parameter", *["schema"] * (1 if json_mode else 2)]
    assert len(asked) == len(refused) + 3
    last = asked[-1][1]
    assert "max_tokens" in last
    assert LENGTH_PARAMETER not in last
    assert "temperature" not in last
    assert last["seed"] == 1
    planned = asked[len(refused)][1]
    assert planned.get("response_format") == ({"type": "json_object"} if json_mode else None)
    assert '"interface"' in planned["messages"][1]["content"]


def test_a_context_too_long_is_trimmed_once():
    def answer(handler, asked):
        if len(asked["messages"][1]["content"]) > 15_000:
            handler.send(400, {"error": {"message": "maximum context length", "code": "context_length_exceeded"}})
        else:
            handler.say(
                plan()
                if "Plan the script" in asked["messages"][1]["content"]
                else ADD_TESTS
                if "Write the pytest file" in asked["messages"][1]["content"]
                else ADD
            )

    with serving(answer) as (url, asked):
        result, _ = generate({}, "Add. " * 8000, model=OpenAIModel("x", base_url=url))
    assert result.succeeded
    assert "characters left out" in asked[1][1]["messages"][1]["content"]


@pytest.mark.parametrize(
    "said",
    [
        "no fence",
        "```python\nx",
        "```\na\n```\n```\nb\n```",
        block("def other(): pass"),
        block("def ("),
        "``` python extra words\ndef add(a, b): pass\n",
    ],
)
def test_fences_wrong_in_every_way_are_repaired(said):
    result, model = generate({"plan": [plan()], "code": [said, ADD], "tests": [ADD_TESTS]})
    assert result.succeeded
    assert purposes(model).count("code") == 2


def test_agents_with_other_endpoints_and_keys_live_in_one_process(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-other-1234567890abcdefghij")
    with serving(after(0)) as (one, asked_one), serving(after(0)) as (two, asked_two):
        first, second = OpenAIModel("a", base_url=one), OpenAIModel("b", base_url=two, api_key_env="OTHER_KEY")

        async def both():
            await asyncio.gather(first.ask(a_request()), second.ask(a_request()))

        asyncio.run(both())
    assert asked_one[0][0]["Authorization"] == f"Bearer {KEY}"
    assert asked_two[0][0]["Authorization"] == "Bearer sk-other-1234567890abcdefghij"
    assert (asked_one[0][1]["model"], asked_two[0][1]["model"]) == ("a", "b")


def test_local_servers_are_models_by_name(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ollama("small").name == "ollama:small"
    assert llamacpp("x", base_url=None)._base_url == LOCAL["llamacpp"]
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        OpenAIModel("x")
