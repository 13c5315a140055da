"""Replies read into values, or into what to say of them to the model."""

import json

from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.task import Config, SandboxFacts
from codetape.prompts import reply_parser
from codetape.runtime.prompt_pack_files import load_pack

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


def test_schemas_in_the_pack_are_those_of_the_models():
    pack = load_pack()
    for purpose in reply_parser.SHAPES:
        assert json.loads(pack[f"schemas/{purpose}.json"]) == reply_parser.schema_for(purpose)


@given(st.text())
def test_any_reply_is_read_or_unusable(text):
    for purpose in reply_parser.SHAPES:
        reply_parser.read_json(purpose, text)
    reply_parser.read_code(text, ["f"])
    reply_parser.read_tests(text, ["f"])
    reply_parser.read_patches(text, ["test_a"])


def test_the_words_of_a_repair_are_ours():
    found = reply_parser.read_json("plan", '{"description": 1}')
    assert "description" in found.detail
    assert "pydantic" not in found.detail.lower()
    assert reply_parser.read_code("```\ndef f(:\n```", []).detail == "Line 1 of the code is no valid Python."
