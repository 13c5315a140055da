"""Examples of prompts as tests that no call may change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.task import Config, SandboxFacts
from codetape.rules import pytest_source
from codetape.rules.prompt_examples import as_tests, extract

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (">>> f(1)\n2\n", [("f(1)", "2", "value")]),
        ("so f(1, 'a') -> [1, 2], and more", [("f(1, 'a')", "[1, 2]", "value")]),
        ("`f(2)` returns 3.", [("f(2)", "3", "value")]),
        ("f(2) == 2.5.", [("f(2)", "2.5", "value")]),
        (">>> f(0)\nTraceback (most recent call last):\nValueError: no\n", [("f(0)", "ValueError", "raises")]),
        (">>> f(1)\n<X object>\n", [("f(1)", "<X object>", "repr")]),
        ("f(x) -> 3", []),
        ("def f(a) -> int: something", []),
        ("a table -> a list", []),
        ("f(1) -> the sum", []),
    ],
)
def test_examples_are_taken_by_rule(prompt, expected):
    assert [(a.call, a.expected, a.kind) for a in extract.extract(prompt)] == expected


def test_anchors_become_tests_with_their_preparation():
    text = as_tests.test_file(extract.extract(">>> x = [3]\n>>> total(x)\n3\n"))
    assert "from solution import total" in text
    assert "    x = [3]\n    assert total(x) == 3" in text


@given(st.text())
def test_any_prompt_gives_valid_python_or_nothing(prompt):
    text = as_tests.test_file(extract.extract(prompt))
    assert not text or pytest_source.names(text)
