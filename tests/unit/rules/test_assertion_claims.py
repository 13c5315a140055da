"""What a failing assertion claims: a call, and the value that it expects."""

import pytest

from codetape.domain.reply_shapes import Opinion
from codetape.domain.report import Frame, TestResult
from codetape.domain.task import Config, SandboxFacts
from codetape.rules import pytest_source
from codetape.rules.assertion_claims import Claim, agrees, claim_of, equal

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


SOURCE = """import pytest
from solution import f, g
from pathlib import Path


def test_plain():
    assert f(1, [2]) == 3


def test_local():
    data = [1, 2]
    assert f(data) == 3


def test_approx():
    assert 3.0 == pytest.approx(f(1), abs=0.5) or True


def test_near():
    assert f(1) == pytest.approx(3.0, abs=0.5)


def test_raises():
    with pytest.raises(ValueError):
        f(-1)


def test_loose():
    assert f(1) > 2


def test_disk():
    assert Path("/var/outputs/x").read_text() == "1"


@pytest.mark.parametrize("n", [1, 2])
def test_each(n):
    assert f(n) == 3


def test_fixture(tmp_path):
    assert f(tmp_path) == 3
"""


def failing(name, **more):
    line = next(x.last for x in pytest_source.functions(SOURCE) if x.name == name.partition("[")[0])
    return TestResult(
        id=f"test_solution.py::{name}",
        outcome="failed",
        exception="AssertionError",
        frames=(Frame(file="test_solution.py", line=line),),
        **more,
    )


@pytest.mark.parametrize(
    ("name", "expected", "more"),
    [
        ("test_plain", ("f(1, [2])", "3"), {}),
        ("test_local", ("f([1, 2])", "3"), {}),
        ("test_near", ("f(1)", "3.0"), {}),
        ("test_raises", ("f(-1)", "ValueError"), {}),
        ("test_each[2]", ("f(2)", "3"), {"parameters": {"n": "2"}}),
        ("test_loose", None, {}),
        ("test_approx", None, {}),
        ("test_disk", None, {}),
        ("test_fixture", None, {}),
    ],
)
def test_claims(name, expected, more):
    claim = claim_of(SOURCE, failing(name, **more))
    assert (claim and (claim.call, claim.expected)) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        ([1], (1,), False),
        ({"a": 1.0}, {"a": 1}, True),
        ("1", 1, False),
        (0.1 + 0.2, 0.3, False),
    ],
)
def test_values_are_compared_by_value_and_type(one, other, same):
    assert equal(one, other) is same
    assert equal(other, one) is same


def test_floats_are_compared_by_the_tests_own_tolerance():
    claim = Claim("f(1)", "value", "3.0", absolute=0.5)
    assert agrees(Opinion(test="f(1)", verdict="value", value="3.4"), "3.0", claim)
    assert not agrees(Opinion(test="f(1)", verdict="value", value="3.6"), "3.0", claim)
    assert not agrees(Opinion(test="f(1)", verdict="exception", value="ValueError"), "3.0", claim)
