"""What a verdict rests on, in numbers and in words."""

from codetape.domain.findings import Strength
from codetape.rules.evidence import Evidence, in_words
from tests.support import ADD, ADD_TESTS, block, generate, plan


def test_a_success_says_what_it_rests_on():
    prompt = "Write add(a, b).\n\n>>> add(1, 1)\n2\n"
    result, _ = generate({"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}, prompt)
    evidence = result.evidence
    assert (evidence.examples, evidence.own_tests, evidence.given_tests) == (1, 2, 0)
    assert evidence.confirmed
    assert (evidence.claims_blind, evidence.claims_unclear, evidence.in_process) == (3, 0, 0)
    assert (evidence.strength.killed, evidence.strength.total) == (2, 2)


def test_what_no_evaluation_covers_is_counted_and_confidence_follows_what_was_confirmed():
    tests = block("from solution import add\n\n\ndef test_sum(monkeypatch):\n    assert add(1, 2) == 3\n")
    result, _ = generate({"plan": [plan()], "code": [ADD], "tests": [tests]})
    assert result.succeeded
    assert (result.evidence.claims_blind, result.evidence.in_process) == (0, 1)
    assert result.evidence.strength is None


def test_an_example_that_only_pythons_equality_confirms_anchors_nothing():
    prompt = "Write is_even(n).\n\nis_even(2) == 1\n"
    code = block("def is_even(n):\n    return n % 2 == 0\n")
    tests = block("from solution import is_even\n\n\ndef test_odd():\n    assert is_even(3) is False\n")
    result, _ = generate({"plan": [plan("def is_even(n: int) -> bool")], "code": [code], "tests": [tests]}, prompt)
    assert (result.status, result.confidence) == ("succeeded", "self_tested")
    assert result.evidence.claims_unclear == 1


def test_words_leave_out_what_was_not_measured():
    assert in_words(Evidence()) == [("passed", "no test")]
    whole = Evidence(
        examples=1, own_tests=3, confirmed=True, claims_blind=4, in_process=1, oracle_in_process=True,
        strength=Strength(killed=5, total=6), flaky=("t.py::test_x",),
    )  # fmt: skip
    assert in_words(whole) == [
        ("passed", "1 example, 3 own tests"),
        ("confirmed", "4 claims blind, 1 test in process"),
        ("oracle", "in process"),
        ("strength", "5 of 6 small changes of the code noticed"),
        ("flaky", "t.py::test_x"),
    ]
