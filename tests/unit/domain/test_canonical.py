"""The one spelling of a value: two encoders write it, and their bytes are hashed."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codetape.domain.canonical import canonical, canonical_without_floats, sha256
from codetape.domain.model_request import Message, ModelRequest
from codetape.domain.report import Report
from codetape.eventlog.session_state import Artifacts

TEXTS = st.text(st.characters(codec=None), max_size=20) | st.text('\ud800\udfff\x00\x1f\x7f\u2028"\\/é😀', max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
@example("\ud800")
@example({"é": 1, "\ud800": 2, "e": 3, "😀": 2**64, "\uffff": -(2**63)})
def test_both_encoders_spell_a_value_without_floats_alike(value):
    assert canonical_without_floats(value) == canonical(value)


def test_every_character_is_spelled_alike():
    every = "".join(map(chr, range(0x110000)))
    for start in range(0, len(every), 4096):
        part = every[start : start + 4096]
        assert canonical_without_floats([part]) == canonical([part])


def test_floats_are_why_there_are_two():
    assert canonical(1e16) != canonical_without_floats(1e16)


def kinds_in(schema):
    """Return the JSON types that a schema allows anywhere; "any" where it says nothing."""
    if not isinstance(schema, dict):
        return {"any"}
    if "$ref" in schema:
        return set()  # its definition is looked at itself
    parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("prefixItems", ())]
    parts += [schema[name] for name in ("items", "additionalProperties") if schema.get(name) not in (None, False)]
    parts += [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    own = {schema["type"]} if "type" in schema else {type(v).__name__ for v in schema.get("enum", ())}
    if "const" in schema:
        own = {type(schema["const"]).__name__}
    return own.union(*map(kinds_in, parts)) if own or parts else {"any"}


@pytest.mark.parametrize("model", [Artifacts, Report, Message])
def test_what_is_encoded_without_floats_holds_none(model):
    assert not kinds_in(model.model_json_schema(mode="serialization")) & {"number", "float", "any"}


def test_the_check_of_types_sees_a_float_wherever_it_is():
    assert "number" in kinds_in({"$defs": {"A": {"type": "array", "items": {"anyOf": [{"type": "number"}]}}}})
    assert "any" in kinds_in({"type": "object", "properties": {"a": {}}})
    assert "any" in kinds_in({"type": "object", "additionalProperties": True})


@given(
    st.lists(st.builds(Message, role=st.sampled_from(["user", "system"]), content=TEXTS), max_size=3), st.floats(0, 2)
)
def test_a_request_has_the_fingerprint_of_its_canonical_text(messages, temperature):
    request = ModelRequest(
        model="m",
        purpose="plan",
        messages=tuple(messages),
        max_output_tokens=9,
        parameters={"temperature": temperature},
    )
    try:
        whole = canonical(request.model_dump(mode="json", exclude={"purpose"}))
        expected = sha256(whole)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            _ = request.fingerprint
        return
    assert request.fingerprint == expected
