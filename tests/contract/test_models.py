import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from codetape.playback import tape_file
from codetape.playback.recorded_model import TapeModel
from codetape.testing import ScriptedModel
from codetape.testing.contracts import ModelContract
from codetape_adapters.models.openai_compatible import OpenAIModel


class TestScripted(ModelContract):
    def make(self):
        return ScriptedModel({"code": ["a word"]})


class TestTape(ModelContract):
    def make(self):
        return TapeModel("demo", tape_file.load("demo").stream)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers, asked))
        body = {
            "id": "x", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a word"}}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25,
                      "prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 2}},
        }  # fmt: skip
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


class TestOpenAI(ModelContract):
    @pytest.fixture(autouse=True)
    def _served(self, server, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-000000000000000000000000")
        self.server = server

    def make(self):
        return OpenAIModel("small", base_url=f"http://127.0.0.1:{self.server.server_port}/v1")

    def test_the_wire(self):
        import asyncio

        schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
        request = self.request().model_copy(
            update={"reply_schema": schema, "parameters": {"temperature": 0.5, "top_k": 3}}
        )
        reply = asyncio.run(self.make().ask(request))
        headers, asked = self.server.asked[-1]
        assert headers["Authorization"] == "Bearer sk-test-000000000000000000000000"
        assert asked["model"] == "small"
        assert asked["max_completion_tokens"] == 512
        assert asked["response_format"]["json_schema"]["schema"] == schema
        assert (asked["temperature"], asked["top_k"]) == (0.5, 3)
        usage = reply.usage
        assert (usage.input, usage.cache_read, usage.output, usage.reasoning) == (12, 8, 3, 2)
        assert (usage.total_input, usage.total_output) == (20, 5)
