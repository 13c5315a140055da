"""Declared inputs and outputs, and texts that can be hashed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.canonical import canonical, sha256, well_formed
from codetape.domain.task import Config, SandboxFacts
from codetape.errors import UsageError
from codetape.runtime.script_io import parse, read_inputs, read_outputs

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [("bool", "yes"), ("bool", ""), ("int", "1.0"), ("float", "x"), ("datetime", "soon"), ("timedelta", "1h")],
)
def test_scalars_are_read_strictly(kind, text):
    with pytest.raises(ValueError):  # noqa: PT011 - any of Python's own words
        parse(kind, text)


def test_declarations_are_checked():
    for bad in ({"x": "blob"}, {"1x": "int"}, {"x": "int:a"}, {"x": "file:/nowhere/at/all"}):
        with pytest.raises(UsageError):
            read_inputs(bad)
    with pytest.raises(UsageError, match="unknown type"):
        read_outputs({"x": "list"})


def test_samples_show_their_head_and_keep_their_hash(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\n".join(str(n) for n in range(100)))
    sample = read_inputs({"x": path})[0].sample
    assert sample.head.splitlines() == [str(n) for n in range(20)]
    assert sample.sha256 == sha256(path.read_text())
    path.write_bytes(b"\0\1")
    assert "binary" in read_inputs({"x": path})[0].sample.head


@given(st.text())
def test_every_text_can_be_hashed_once_it_is_well_formed(text):
    sha256(well_formed(text))
    assert well_formed(well_formed(text)) == well_formed(text)


def test_lone_surrogates_become_replacement_characters():
    assert well_formed("a\ud800b") == "a\ufffdb"


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans(), st.none())))
def test_canonical_json_is_one_spelling(value):
    assert canonical(json.loads(canonical(value))) == canonical(value)
    assert canonical(dict(reversed(value.items()))) == canonical(value)
