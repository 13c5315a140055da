"""Where inputs lie in the sandbox: under the names of their files, as far as no two would have one name."""

import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st
from pydantic import ValidationError

from codetape.domain.script_args import file_names, flags
from codetape.domain.task import Input, Output, Sample


def given(name, file="", value=None):
    sample = Sample(path=f"/home/me/{file or name}", sha256="0" * 64, size=1, head="", file=file) if not value else None
    return Input(name=name, type="file" if sample else "int", sample=sample, value=value)


def test_a_file_keeps_its_name_and_ending():
    inputs = (given("book", "prices 2026.xlsx"), given("old"), given("n", value="3"))
    assert file_names(inputs) == {"book": "prices 2026.xlsx", "old": "old"}
    assert flags(inputs) == ("--book=/var/inputs/prices 2026.xlsx", "--old=/var/inputs/old", "--n=3")


def test_where_two_would_have_one_name_the_inputs_names_take_its_place_and_endings_stay():
    same = (given("a", "data.csv.gz"), given("b", "data.csv.gz"))
    assert file_names(same) == {"a": "a.csv.gz", "b": "b.csv.gz"}
    assert file_names((given("a", "b"), given("b", "c.txt"))) == {"a": "a", "b": "c.txt"}
    assert file_names((given("a", "a"),)) == {"a": "a"}
    three = file_names((given("x", "n.csv"), given("y", "n.csv"), given("z", "x.csv")))
    assert three == {"x": "x.csv", "y": "y.csv", "z": "z.csv"}
    assert file_names((given("x", "\U0001f600" * 100),)) == {"x": "x"}  # 400 bytes


@given_by(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["a", "b", "a.csv", "b.csv", "n.csv", "c"])),
        unique_by=lambda p: p[0],
    )
)
def test_no_two_inputs_are_one_file_and_none_has_anothers_name(pairs):
    names = file_names(given(name, file) for name, file in pairs)
    assert len({*names.values()}) == len(names)
    assert all(file == name or file not in names for name, file in names.items())


@pytest.mark.parametrize("file", ["../x", "a/b", ".stdin", ".", "..", "x\0", "x\n", "y" * 121])
def test_a_name_from_a_tape_is_no_path(file):
    with pytest.raises(ValidationError):
        given("a", file)


def test_an_output_may_have_an_ending():
    assert Output(name="summary.csv.gz", type="file").name == "summary.csv.gz"
    for name in ("../x", "a/b", "x.", ".x", "a.b.c.d", "x.\u00e9"):
        with pytest.raises(ValidationError):
            Output(name=name, type="file")
