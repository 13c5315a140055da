"""Tests without what they expect, and what comes back compared strictly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.report import Evaluated
from codetape.rules.blind.blind_file import blind_file, claimed_tests
from codetape.rules.blind.values import Opaque, decoded, judged, strictly_equal

HEAD = "import pytest\nfrom solution import f, Box\n\n\n"


def claims(body, head=HEAD):
    return blind_file(head + body)


def only(body):
    found = claims(f"def test_it():\n    {body}\n").claims
    assert len(found) == 1, body
    return found[0]


def given_for(claim, *values, raised=(), message=""):
    once = Evaluated(number=0, values=values, raised=raised, message=message)
    return judged(claim, (once, once.model_copy(update={"turn": 1}))).verdict


# ---- what is taken out


@pytest.mark.parametrize(
    "body",
    [
        "assert f(1) == 'SECRET'",
        "assert 'SECRET' == f(1)",
        "want = 'SECRET'\n    assert f(1) == want",
        "assert f(1) in ('SECRET', 'x')",
        "assert f(1) == ['SECRET', {'a': 'SECRET'}]",
        "for value, want in [(1, 'SECRET'), (2, 'SECRET')]:\n        assert f(value) == want",
        "with pytest.raises(ValueError, match='SECRET'):\n        f(1)",
        "assert f(1) == 'SECRET' and f(2) == 'SECRET'",
        "assert f(1) == 'SECRET' or f(1) == 'x'",
        "assert not f(1) == 'SECRET'",
        "assert f(1) != 'SECRET', 'SECRET is wrong'",
        "print('it should be', 'SECRET')\n    assert f(1) == 'SECRET'",
        "for x, y in [(1, 'SECRET')]:\n        got = f(x)\n        print(f'{x} -> {y}')\n        assert got == y",
    ],
)
def test_nothing_expected_is_left(body):
    blind = claims(f"def test_it():\n    {body}\n")
    assert blind.claims, body
    assert "SECRET" not in blind.source
    assert "pytest" not in blind.source
    compile(blind.source, "claims.py", "exec")


def test_parameters_are_unrolled_and_hold_their_expectations_back():
    blind = claims(
        "@pytest.mark.parametrize('given, want', [(1, 'SECRET1'), pytest.param(2, 'SECRET2', id='two')])\n"
        "def test_it(given, want):\n    assert f(given) == want\n"
    )
    assert [claim.expectations[0].value for claim in blind.claims] == ["SECRET1", "SECRET2"]
    assert "SECRET" not in blind.source
    assert blind.whole == {"test_it"}


@pytest.mark.parametrize(
    "test",
    [
        "def test_it(monkeypatch):\n    assert f(1) == 2\n",
        "def test_it():\n    assert f(1) == f(2)\n",
        "def test_it():\n    assert helper(f(1))\n\n\ndef helper(value):\n    return value == 2\n",
        "@pytest.mark.skip\ndef test_it():\n    assert f(1) == 2\n",
        "def test_it():\n    box = Box()\n    assert box\n",
        "def test_it():\n    assert (f(7) == 14) is True\n",
        "def test_it():\n    assert [f(x) == 2 * x for x in range(6)] == [True] * 6\n",
        "def test_it():\n    assert max(14, f(7)) == 14\n",
        "def test_it():\n    assert f(7).startswith('14') is True\n",
        "def test_it():\n    assert f(7) - 14 == 0\n",
        "def test_it():\n    check(f(7), 14)\n    assert f(5) == 10\n\n\ndef check(got, want):\n    assert got == want\n",
        "CASES = [(7, 14)]\n\n\ndef test_it():\n    assert sum(f(x) for x, _ in CASES) == 14\n\n\ndef test_each():\n    for x, y in CASES:\n        print(x, y, CASES)\n        assert f(x) == y\n",
        "class TestIt:\n    def setup_method(self):\n        self.box = Box()\n\n    def test_it(self):\n        assert self.box.get() == 1\n",
    ],
)
def test_a_test_that_cannot_be_told_from_what_it_expects_is_not_asked(test):
    assert claims(test).claims == ()


@pytest.mark.parametrize(
    "body",
    [
        "assert abs(f(7) - 14.5) < 1e-6",
        "assert abs(14.5 - f(7)) <= 1e-6",
        "assert math.isclose(f(7), 14.5)",
        "assert f(7) == pytest.approx(14.5)",
    ],
)
def test_a_nearness_is_a_value_and_a_tolerance(body):
    blind = claims(f"import math\n\n\ndef test_it():\n    {body}\n")
    (claim,) = blind.claims
    assert "14.5" not in blind.source
    assert claim.call == "f(7)"
    assert given_for(claim, '["f", "14.5"]') == "confirmed"
    assert given_for(claim, '["f", "14.6"]') == "differs"


def test_a_claim_that_waits_for_an_exception_looks_like_any_other():
    blind = claims("def test_it():\n    with pytest.raises(ValueError):\n        f(-1)\n    assert f(1) == 2\n")
    lines = [line.strip() for line in blind.source.splitlines() if "__ask__(" in line and "def" not in line]
    assert [line.replace("0", "N").replace("1", "N") for line in lines] == ["with __ask__(N):"] * 2


def test_words_that_hold_nan_or_inf_are_plain_and_infinity_is_near_itself_alone():
    blind = claims(
        "@pytest.mark.parametrize('x, y', [('banana', 'BANANA'), ('info', 'INFO')])\ndef test_it(x, y):\n    assert f(x) == y\n"
    )
    assert len(blind.claims) == 2
    claim = only("assert f(1) == pytest.approx(float('inf'))")
    assert given_for(claim, '["f", "2.0"]') == "differs"
    assert given_for(claim, '["f", "inf"]') == "confirmed"


def test_calls_before_a_claim_stay_and_unittests_assertions_are_read():
    blind = claims(
        "import unittest\n\n\nclass Boxes(unittest.TestCase):\n    def test_it(self):\n        box = Box()\n"
        "        box.put('a')\n        self.assertEqual(box.get(), 'SECRET')\n"
    )
    assert "box.put('a')" in blind.source
    assert "SECRET" not in blind.source
    assert claimed_tests(HEAD + "def test_a():\n    assert f(1) == 2\n") == {"test_a"}


@given(st.text(max_size=200))
def test_any_text_is_read(source):
    assert isinstance(blind_file(source).claims, tuple)


# ---- what comes back


@pytest.mark.parametrize(
    ("body", "value", "verdict"),
    [
        ("assert f(1) == 2", '["i", "2"]', "confirmed"),
        ("assert f(1) == 2", '["f", "2.0"]', "confirmed"),
        ("assert f(1) == 1", "true", "unclear"),
        ("assert f(1) is True", "true", "confirmed"),
        ("assert f(1) is True", '["i", "1"]', "unclear"),
        ("assert f(1) == 2", '["o", "Anything"]', "differs"),
        ("assert f(1) == 'a'", '["i", "2"]', "differs"),
        ("assert f(1) == [1, 2]", '["t", [["i", "1"], ["i", "2"]]]', "differs"),
        ("assert f(1) == {'a': 1}", '["d", [["a", ["i", "1"]]]]', "confirmed"),
        ("assert f(1) == pytest.approx(0.1)", '["f", "0.10000001"]', "confirmed"),
        ("assert f(1) == pytest.approx(0.1)", '["f", "0.2"]', "differs"),
        ("assert f(1) > 2", '["i", "3"]', "confirmed"),
        ("assert f(1) != 2", '["o", "Anything"]', "unclear"),
        ("assert f(1)", "true", "confirmed"),
        ("assert f(1)", '["o", "Anything"]', "differs"),
        ("assert f(1) == 2", "not json", "differs"),
    ],
)
def test_values_are_compared_by_value_and_type(body, value, verdict):
    assert given_for(only(body), value) == verdict


def test_exceptions_are_compared_by_name_and_one_line_of_descent():
    claim = only("with pytest.raises(ValueError):\n        f(1)")
    assert given_for(claim, raised=("ValueError", "ValueError", "Exception", "BaseException")) == "confirmed"
    assert given_for(claim, raised=("Own", "ValueError", "Exception", "BaseException")) == "confirmed"
    assert given_for(claim, raised=("TypeError", "TypeError", "Exception", "BaseException")) == "differs"
    everything = ("All", "ValueError", "TypeError", "KeyError", "LookupError", "Exception", "BaseException")
    assert given_for(claim, raised=everything) == "unclear"
    assert given_for(claim, "null") == "differs"
    assert judged(claim, ()).verdict == "differs"


def test_evaluations_of_one_claim_must_agree():
    claim = only("assert f(1) == 2")
    first, other = Evaluated(number=0, values=('["i", "2"]',)), Evaluated(number=0, turn=1, values=('["i", "3"]',))
    assert judged(claim, (first, first.model_copy(update={"turn": 1}))).verdict == "confirmed"
    assert judged(claim, (first, other)).verdict == "differs"
    assert judged(claim, (first,)).verdict == "differs", "the code ended the other process"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(plain, plain)
def test_strict_equality_is_an_equality_and_stricter_than_pythons(one, other):
    assert strictly_equal(one, one)
    assert strictly_equal(one, other) == strictly_equal(other, one)
    assert not strictly_equal(one, other) or one == other


@given(st.text(max_size=60) | st.recursive(st.none() | st.text(max_size=3), st.lists, max_leaves=9).map(json.dumps))
def test_whatever_a_sandbox_says_is_a_value_or_opaque(text):
    value = decoded(text)
    assert isinstance(value, Opaque | str | bool | int | float | complex | bytes | list | tuple | set | frozenset | dict) or value is None or type(value).__name__ == "Fraction"  # fmt: skip
