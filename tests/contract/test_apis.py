"""Each API that is spoken, through a server on loopback that speaks it: a session, its replay, its spend, its limits.

The servers are written from the public references; no paid endpoint was tried.
"""

import asyncio
import json

import pytest

import codetape
from codetape.api import spend
from codetape.domain.model_request import Message
from codetape.errors import ModelUnavailable, UsageError
from codetape.eventlog.events import Answered
from codetape.ports import RECEIVING, Reply, RequestRefused
from codetape.testing import FakeSandbox, MemoryStore, contracts
from codetape_adapters.models.anthropic_messages import AnthropicModel
from codetape_adapters.models.openai_compatible import OpenAIModel
from tests.contract.test_openai_faults import a_request, at_once
from tests.servers import serving
from tests.support import ADD, ADD_TESTS, plan

REPLIES = {"plan": plan(), "code": ADD, "tests": ADD_TESTS}


def text_of(asked):
    if "input" in asked:
        return asked["input"][-1]["content"]
    content = asked["messages"][-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def purpose_of(asked):
    form = (asked.get("text") or {}).get("format") or (asked.get("response_format") or {}).get("json_schema") or {}
    tools = asked.get("tools") or [{}]
    return (
        form.get("name") or tools[0].get("name") or ("tests" if "Write the pytest file" in text_of(asked) else "code")
    )


class Chat:
    path, api = "/v1/chat/completions", "chat"
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "completion_tokens_details": {"reasoning_tokens": 5}}  # fmt: skip

    @staticmethod
    def model(url, **options):
        return OpenAIModel("x", base_url=f"{url}/v1", api="chat", **options)

    @classmethod
    def body(cls, text, *, cut=False, structured=False):
        message = {"role": "assistant", "content": text, "reasoning_content": "I add."}
        choice = {"index": 0, "finish_reason": "length" if cut else "stop", "message": message}
        return {"object": "chat.completion", "model": "m", "choices": [choice], "usage": cls.usage}


class Responses:
    path, api = "/v1/responses", "responses"
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "output_tokens_details": {"reasoning_tokens": 5}}  # fmt: skip

    @staticmethod
    def model(url, **options):
        return OpenAIModel("x", base_url=f"{url}/v1", api="responses", **options)

    @classmethod
    def body(cls, text, *, cut=False, structured=False):
        output = [
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "I add."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
        ]
        more = (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
            if cut
            else {"status": "completed"}
        )
        return {"object": "response", "model": "m", "output": output, "error": None, "usage": cls.usage, **more}


class Messages:
    path, api = "/v1/messages", "messages"
    usage = {"input_tokens": 60, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 10, "output_tokens": 20}

    @staticmethod
    def model(url, **options):
        return AnthropicModel("x", base_url=url, **options)

    @classmethod
    def body(cls, text, *, cut=False, structured=False):
        answer = (
            {"type": "tool_use", "id": "t", "name": "n", "input": json.loads(text)}
            if structured
            else {"type": "text", "text": text}
        )
        content = [{"type": "thinking", "thinking": "I add.", "signature": "s"}, answer]
        return {
            "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": "max_tokens" if cut else "tool_use" if structured else "end_turn", "usage": cls.usage,
        }  # fmt: skip


APIS = [Chat, Responses, Messages]
every_api = pytest.mark.parametrize("api", APIS, ids=lambda api: api.api)


def answering(api, seen):
    def answer(handler, asked):
        seen.append((handler.path, asked))
        handler.send(200, api.body(REPLIES[purpose_of(asked)], structured=bool(asked.get("tools"))))

    return answer


def asked_of(api, answer, request=None, **options):
    with serving(answer) as (url, asked):
        try:
            model = api.model(url.removesuffix("/v1"), **{"sleep": at_once, **options})
            made = asyncio.run(model.ask(request or a_request()))
        except ModelUnavailable as error:
            made = error
    return made, asked


@every_api
def test_a_session_goes_through_is_replayed_and_its_spend_is_the_servers_own_count(api):
    seen, store = [], MemoryStore()
    with serving(answering(api, seen)) as (url, _):
        agent = codetape.AutoCoderAgent(model=api.model(url.removesuffix("/v1")), sandbox=FakeSandbox(), store=store)
        result = agent.generate("Write add(a, b), the sum of two numbers.", session="s")
    assert result.succeeded
    assert {path for path, _ in seen} == {api.path}
    assert (result.config.api, result.config.server.startswith("http://127.0.0.1")) == (api.api, True)
    assert codetape.replay("s", store=store).drift == ()  # and no divergence, which is raised
    counts = api.usage
    sent = sum(
        counts.get(k, 0)
        for k in ("prompt_tokens", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    got = counts.get("completion_tokens") or counts["output_tokens"]
    spent = spend("s", store=store).total
    assert (spent.input + spent.cache_read + spent.cache_write, spent.output + spent.reasoning) == (3 * sent, 3 * got)
    stream = asyncio.run(store.read("s"))
    answers = [e.payload for e in stream.events if isinstance(e.payload, Answered)]
    assert [stream.texts[a.reasoning] for a in answers] == ["I add."] * 3


@every_api
def test_instructions_form_and_limit_are_where_the_api_has_them(api):
    seen = []
    request = a_request(reply_schema={"type": "object", "properties": {}}, parameters={"temperature": 0})
    made, _ = asked_of(api, answering(api, seen), request)
    asked = seen[0][1]
    assert isinstance(made, Reply)
    assert json.loads(made.text) == json.loads(REPLIES["plan"])
    assert asked["temperature"] == 0
    assert request.max_output_tokens in (
        asked.get("max_completion_tokens"),
        asked.get("max_output_tokens"),
        asked.get("max_tokens"),
    )
    assert purpose_of(asked) == "plan"
    assert "Be brief." in json.dumps(asked)


def test_what_stays_the_same_is_cached_and_how_much_was_read_is_told():
    seen = []
    turns = (
        Message(role="system", content="Be brief."), Message(role="user", content="Plan."),
        Message(role="assistant", content="No."), Message(role="user", content="Again."),
    )  # fmt: skip
    made, _ = asked_of(Messages, answering(Messages, seen), a_request(purpose="code", messages=turns))
    asked = seen[0][1]
    marked = [
        block
        for part in (asked["system"], *(m["content"] for m in asked["messages"]))
        for block in part
        if "cache_control" in block
    ]
    assert [block["text"] for block in marked] == ["Be brief.", "Plan."]
    assert (made.usage.input, made.usage.cache_read, made.usage.cache_write, made.usage.output) == (60, 30, 10, 20)


@every_api
def test_a_reply_that_was_cut_off_says_so(api):
    made, _ = asked_of(api, lambda handler, asked: handler.send(200, api.body("x", cut=True)))
    assert (made.finish_reason, made.text) == ("length", "x")


@every_api
@pytest.mark.parametrize("status", [429, 500, 529])
def test_what_passes_is_tried_again_and_what_may_be_billed_is_counted(api, status):
    left = [2]

    def answer(handler, asked):
        left[0] -= 1
        if left[0] >= 0:
            handler.send(
                status,
                {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
                [("Retry-After", "0")],
            )
        else:
            handler.send(200, api.body("x"))

    made, asked = asked_of(api, answer)
    assert (made.text, len(asked), made.unanswered) == ("x", 3, 2 if status >= 500 else 0)


@every_api
def test_a_wrong_key_is_told_at_once(api):
    made, asked = asked_of(
        api,
        lambda handler, _: handler.send(
            401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
        ),
    )
    assert isinstance(made, ModelUnavailable)
    assert (len(asked), made.remedy) == (1, "Check the key.")


@every_api
def test_a_limit_on_the_output_is_believed(api):
    words = "max_tokens: 512 > 300, which is the maximum allowed number of output tokens"
    made, _ = asked_of(
        api, lambda handler, _: handler.send(400, {"error": {"message": words, "type": "invalid_request_error"}})
    )
    assert isinstance(made, RequestRefused)
    assert (made.what, made.cap) == ("output", 300)


@every_api
@pytest.mark.parametrize(
    "body", [[], {}, "x", None, {"output": "x"}, {"content": 5}, {"choices": 5}, {"output": [5], "status": "failed"}]
)
def test_json_of_another_shape_is_a_bad_answer(api, body):
    made, asked = asked_of(api, lambda handler, _: handler.send(200, json.dumps(body).encode()), tries=2)
    assert isinstance(made, ModelUnavailable)
    assert len(asked) == 2


STREAMS = {
    Chat: [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "ab"}}], "model": "m"},
        {"choices": [{"index": 0, "delta": {"content": "cd"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": Chat.usage},
    ],
    Responses: [
        {"type": "response.output_text.delta", "delta": "ab"},
        {"type": "response.completed", "response": Responses.body("abcd")},
    ],
    Messages: [
        {
            "type": "message_start",
            "message": {"type": "message", "content": [], "model": "m", "usage": {"input_tokens": 60}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ab"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "cd"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
    ],
}


@every_api
def test_a_reply_that_was_streamed_unasked_is_put_together(api):
    data = "".join(f"event: e\ndata: {json.dumps(event)}\n\n" for event in STREAMS[api]) + "data: [DONE]\n\n"
    made, _ = asked_of(api, lambda handler, _: handler.send(200, data.encode()))
    assert (made.text, made.finish_reason, made.usage.source) == ("abcd", "stop", "provider")
    assert made.usage.total_output == 20


def streamed(api, *, until=None):
    """Send the events of a reply one by one, and break off after some of them."""

    def answer(handler, asked):
        assert asked["stream"] is True
        events = STREAMS[api]
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for event in events[:until]:
            handler.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            handler.wfile.flush()
        handler.close_connection = True

    return answer


@every_api
def test_a_reply_is_told_of_while_it_comes(api):
    told = []
    mark = RECEIVING.set(told.append)
    try:
        made, asked = asked_of(api, streamed(api), stream=True)
    finally:
        RECEIVING.reset(mark)
    assert (made.text, made.finish_reason, made.usage.source, made.usage.total_output) == (
        "abcd",
        "stop",
        "provider",
        20,
    )
    assert told == sorted(told)
    assert told[-1] > 100
    if api is Chat:
        assert asked[0][1]["stream_options"] == {"include_usage": True}


@every_api
def test_a_stream_that_breaks_off_is_tried_again_possibly_billed_and_leaves_what_came(api):
    turns = []

    def answer(handler, asked):
        turns.append(1)
        streamed(api, until=1 if api is not Messages else 3)(handler, asked) if len(turns) == 1 else streamed(api)(
            handler, asked
        )

    made, asked = asked_of(api, answer, stream=True)
    assert (made.text, len(asked), made.unanswered) == ("abcd", 2, 1)
    assert "broke off" in made.tries[0]
    assert api is Responses or "ab" in made.tries[0]


@every_api
def test_an_error_within_a_stream_is_the_providers_own(api):
    data = 'data: {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}\n\n'
    made, asked = asked_of(api, lambda handler, _: handler.send(200, data.encode()), stream=True, tries=2)
    assert isinstance(made, ModelUnavailable)
    assert "too busy" in str(made)
    assert len(asked) == 2


def test_the_providers_own_servers_stream_and_others_do_where_they_are_told(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    for make in (OpenAIModel, AnthropicModel):
        assert make("x")._streams
        assert not make("x", stream=False)._streams
        assert not make("x", base_url="http://127.0.0.1:9/v1")._streams
        assert make("x", base_url="http://127.0.0.1:9/v1", stream=True)._streams


class Spoken(contracts.ModelContract):
    """The contract of every model, through one API."""

    api = Chat

    @pytest.fixture(autouse=True)
    def _server(self):
        with serving(answering(self.api, [])) as (url, _):
            self.url = url.removesuffix("/v1")
            yield

    def make(self):
        return self.api.model(self.url)


class TestChat(Spoken):
    api = Chat


class TestResponses(Spoken):
    api = Responses


class TestMessages(Spoken):
    api = Messages


def test_openai_itself_is_asked_for_responses_and_others_for_chat(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert OpenAIModel("x").api == "responses"
    assert OpenAIModel("x", base_url="http://127.0.0.1:9/v1").api == "chat"
    with pytest.raises(UsageError, match="no API"):
        OpenAIModel("x", api="telepathy")


def test_a_session_continues_by_the_api_that_it_was_made_by(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    down, seen, store = [True], [], tmp_path / "t.db"

    def answer(handler, asked):
        if down[0]:
            handler.send(401, {"error": {"message": "no"}})
        else:
            answering(Responses, seen)(handler, asked)

    with serving(answer) as (url, _):
        agent = codetape.AutoCoderAgent(
            model="openai:x", base_url=url, model_options={"api": "responses"}, sandbox=FakeSandbox(), store=store
        )
        assert agent.generate("Write add(a, b).", session="s").status == "suspended"
        down[0] = False
        assert codetape.resume("s", store=store, base_url=url, sandbox=FakeSandbox()).succeeded
    assert {path for path, _ in seen} == {"/v1/responses"}


@pytest.mark.parametrize(
    "address", ["http://u:p@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?api_key=x", "http://127.0.0.1/v1?Token=x"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(address):
    for make in (OpenAIModel, AnthropicModel):
        with pytest.raises(UsageError) as told:
            make("x", base_url=address)
        assert "--api-key-env" in told.value.remedy
        assert "u:p" not in str(told.value)
        assert "=x" not in str(told.value)
