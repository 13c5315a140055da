"""Failing tests for a reader, and which assertion it was."""

import pytest

from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.rules.failing_tests import failing, statement_at

SOURCE = """import pytest
from solution import f


def test_value():
    x = 2
    assert f(x) == [
        1,
        2,
    ]


def test_raises():
    with pytest.raises(ValueError):
        f(0)


def test_loop():
    for n in (1, 2):
        assert f(n) == n
"""


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (7, "assert f(x) == [1, 2]"),
        (9, "assert f(x) == [1, 2]"),
        (15, "with pytest.raises(ValueError): f(0)"),
        (20, "assert f(n) == n"),
        (5, ""),
        (99, ""),
    ],
)
def test_the_statement_at_a_line_is_the_innermost_one(line, text):
    assert statement_at(SOURCE, line) == text


def one(name, **more):
    result = TestResult(id=f"test_solution.py::{name}", outcome="failed", **more)
    report = Report(exit="tests_failed", whole=True, exit_code=1, tests=(result,))
    return failing(report, {"test_solution.py": SOURCE}, ())[0]


def test_a_failing_test_says_its_assertion_and_both_values():
    compared = Comparison(op="==", left="[1]", right="[1, 2]")
    found = one(
        "test_value", exception="AssertionError", frames=(Frame(file="test_solution.py", line=7),), comparison=compared
    )
    assert found.details == (("assertion", "assert f(x) == [1, 2]"), ("left", "[1]"), ("right", "[1, 2]"))


def test_a_failing_test_says_what_was_raised_and_where():
    frames = (Frame(file="test_solution.py", line=20), Frame(file="solution.py", line=3))
    found = one("test_loop", exception="KeyError", message="'x'\nmore", frames=frames)
    assert found.details == (("assertion", "assert f(n) == n"), ("raised", "KeyError: 'x' at solution.py:3"))
    missing = one(
        "test_raises",
        exception="Failed",
        message="DID NOT RAISE ValueError",
        frames=(Frame(file="test_solution.py", line=14),),
    )
    assert missing.details == (
        ("assertion", "with pytest.raises(ValueError): f(0)"),
        ("raised", "Failed: DID NOT RAISE ValueError"),
    )


def test_one_that_did_not_end_and_one_that_is_left_out():
    hung = TestResult(id="test_solution.py::test_value", outcome="unfinished")
    report = Report(exit="timeout", whole=False, tests=(hung,))
    assert failing(report, {}, ())[0].details == (("outcome", "it did not end"),)
    assert failing(report, {}, (hung.id,)) == ()
    assert failing(None, {}, ()) == ()
