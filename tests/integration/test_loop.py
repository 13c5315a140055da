"""The loop's rules, version 2: what a failing test leads to, each rule with the situation that it is for."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape import AutoCoderAgent
from codetape.eventlog.events import Decided, Requested, TestQuarantined
from codetape.rules.assertion_claims import Claim
from codetape.rules.special_cases import special_cases
from codetape.testing import FakeClock, MemoryStore, ScriptedModel
from tests.property.test_machine import LIMIT, live, worlds
from tests.support import (
    ADD,
    HostSandbox,
    block,
    diagnosis,
    failure,
    generate,
    opinions,
    plan,
    purposes,
    verification,
)

RIGHT = "from solution import add\n\n\ndef test_a():\n    assert add(1, 2) == 3\n\n\ndef test_b():\n    assert add(2, 2) == 4\n\n\ndef test_c():\n    assert add(3, 4) == 7\n"
ONE_WRONG = RIGHT + "\n\ndef test_d():\n    assert add(5, 5) == 11\n"
"""Three right tests, and one that expects 11 of 5 and 5."""
PROMPT = "Write add(a, b): the sum of two numbers."
EXAMPLE = PROMPT + "\n\n>>> add(1, 2)\n4\n"
"""A task whose own example is wrong."""
TIMES = block("def add(a, b):\n    return a * b")
FIRST_TRY = {"plan": [plan()], "code": [ADD], "tests": [block(ONE_WRONG)], "second_opinion": [opinions("11")]}
HARMFUL = diagnosis(failure("test_solution.py::test_d", fixes=[("return a + b", "return a * b")]))
BLAMES_THE_TEST = diagnosis(failure("test_solution.py::test_d", "test_error"))


def run(answers, prompt=PROMPT, **more):
    """Run a session; return its result, the purposes asked for, and its events."""
    events = []
    result, model = generate({**FIRST_TRY, **answers}, prompt, hook=lambda event, run: events.append(event), **more)
    return result, purposes(model), events, model


def decisions(events):
    return [(e.payload.about, e.payload.reason) for e in events if isinstance(e.payload, Decided)]


def runs(events):
    return sum(isinstance(e.payload, Requested) and e.payload.purpose == "run" for e in events)


def test_a_change_that_is_taken_back_is_a_spent_attempt_and_its_fix_is_not_asked_for_again():
    """Given right code, a wrong test that one opinion upholds, and a diagnosis whose fix breaks the rest."""
    result, asked, events, model = run({"diagnose": [HARMFUL], "code": [ADD, TIMES, TIMES, ADD]})
    assert result.succeeded
    assert result.confidence == "disputed"
    assert result.solution.code == "def add(a, b):\n    return a + b\n"
    codes = [q.messages[1].content for q in model.requests if q.purpose == "code"]
    assert not any("taken back" in text and "# The fixes to make" in text.split("taken back")[0] for text in codes)
    between = asked[asked.index("code") + 2 :]
    assert "diagnose" in between, "a revert owes a diagnosis"
    assert [q.test for q in result.quarantined] == ["test_solution.py::test_d"]
    assert Counter(asked)["diagnose"] <= 2


def test_the_report_before_a_change_does_not_stand_over_tests_that_changed_with_it():
    """Given a change of code that broke a test, and tests fixed in the same round: the old code is run against them."""
    tests = RIGHT.replace("== 7", "== 8").replace("== 4", "== four")
    answers = {
        "plan": [plan()],
        "code": [ADD, TIMES],
        "tests": [block(tests)],
        "second_opinion": [opinions("8")],
        "diagnose": [diagnosis(failure("test_solution.py::test_c", fixes=[("return a + b", "return a * b")]))],
        "fix_tests": [block("def test_b():\n    assert add(2, 3) == 5")],
    }
    _, _, events, _ = run(answers, max_iterations=4)
    reverted = next(i for i, e in enumerate(events) if e.kind == "CodeReverted")
    following = [e.payload.purpose for e in events[reverted:] if isinstance(e.payload, Requested)]
    assert following[0] == "run"


def test_an_unchanged_file_is_a_spent_attempt_and_nothing_is_run_or_counted_for_it():
    """Given a model that keeps right code against a wrong test and names no fix."""
    says_logic = diagnosis(failure("test_solution.py::test_d"))
    result, asked, events, _ = run({"diagnose": [says_logic]})
    assert result.succeeded
    assert result.confidence == "disputed"
    assert runs(events) == 1
    assert result.iterations == 1
    assert Counter(asked)["code"] <= 4


def test_a_diagnosis_that_blames_an_upheld_test_sets_it_aside_where_most_others_pass():
    result, asked, events, _ = run({"diagnose": [BLAMES_THE_TEST]})
    assert result.succeeded
    assert (result.confidence, result.iterations) == ("disputed", 1)
    assert [(q.test, q.reason) for q in result.quarantined] == [("test_solution.py::test_d", "disputed")]
    assert asked == ["plan", "code", "tests", "second_opinion", "diagnose"]
    assert result.counts.quarantined == 1


def test_a_diagnosis_that_blames_tests_is_not_believed_where_most_fail():
    """The control: the same word about three of four tests is no reason to set them aside."""
    tests = "from solution import add\n" + "".join(
        f"\n\ndef test_{n}():\n    assert add({n}, 5) == {n + 5}\n" for n in range(1, 4)
    )
    tests += "\n\ndef test_z():\n    assert add(0, 0) == 0\n"
    blamed = diagnosis(*(failure(f"test_solution.py::test_{n}", "test_error") for n in range(1, 4)))
    result, *_ = run(
        {"code": [block("def add(a, b):\n    return a - b")], "tests": [block(tests)], "diagnose": [blamed], "second_opinion": [opinions("6", "7", "8")]},
        max_iterations=4,
    )  # fmt: skip
    assert result.status == "failed"
    assert not any(q.reason in ("disputed", "outvoted") for q in result.quarantined)


def test_a_test_that_nothing_moves_is_outvoted_where_attempts_are_spent():
    """Given right code, a wrong test, and diagnoses that always blame the code."""
    always = diagnosis(failure("test_solution.py::test_d", fixes=[("return a + b", "return a + b + 0")]))
    again = block("def add(a, b):\n    return a + b + 0")
    answers = {"diagnose": [always], "code": [ADD, again, ADD], "verify_code": [verification()]}
    result, *_ = run(answers)
    assert result.succeeded
    assert [(q.test, q.reason) for q in result.quarantined] == [("test_solution.py::test_d", "outvoted")]
    assert result.confidence == "disputed"


def test_a_given_test_and_an_example_are_never_outvoted():
    given = "from solution import add\n\n\ndef test_given():\n    assert add(5, 5) == 11\n"
    says_logic = diagnosis(failure("test_user.py::test_given"))
    result, *_ = run({"tests": [block(RIGHT)], "diagnose": [says_logic]}, ask={"tests": given})
    assert result.status == "failed"
    assert result.quarantined == ()


def test_two_opinions_that_agree_on_a_third_value_mend_the_test_to_it():
    """Given wrong code (0), a wrong test (11), and two readers who both say 10."""
    wrong = block("def add(a, b):\n    return 0 if a == 5 else a + b")
    fix = diagnosis(failure("test_solution.py::test_d", fixes=[("0 if a == 5 else a + b", "a + b")]))
    result, asked, events, _ = run({"code": [wrong, ADD], "second_opinion": [opinions("10")], "diagnose": [fix]})
    assert result.succeeded
    assert result.confidence == "self_tested"
    assert "assert add(5, 5) == 10" in result.tests
    assert result.solution.code == "def add(a, b):\n    return a + b\n"
    assert "fix_tests" not in asked
    assert Counter(asked)["second_opinion"] == 2


def test_one_opinion_is_not_enough_to_bend_the_only_failing_test():
    """Given wrong code (0), a right test, an opinion that slips to 0, and a second that does not."""
    tests = block(RIGHT + "\n\ndef test_d():\n    assert add(5, 5) == 10\n")
    wrong = block("def add(a, b):\n    return 0 if a == 5 else a + b")
    fix = diagnosis(failure("test_solution.py::test_d", fixes=[("0 if a == 5 else a + b", "a + b")]))
    result, asked, _, model = run(
        {"code": [wrong, ADD], "tests": [tests], "second_opinion": [opinions("0"), opinions("10")], "diagnose": [fix]}
    )
    assert result.succeeded
    assert "assert add(5, 5) == 10" in result.tests
    questions = [q.fingerprint for q in model.requests if q.purpose == "second_opinion"]
    assert len(set(questions)) == 2, "the second reader is asked in other words"


def test_an_example_that_two_readers_find_wrong_is_set_aside_in_plain_sight():
    blames = diagnosis(failure("test_anchors.py::test_example_1", "test_error"))
    result, asked, events, _ = run(
        {"tests": [block(RIGHT)], "second_opinion": [opinions("3")], "diagnose": [blames]}, EXAMPLE
    )
    assert result.succeeded
    assert result.confidence == "disputed"
    assert [(q.test, q.reason) for q in result.quarantined] == [("test_anchors.py::test_example_1", "cannot_hold")]
    assert any(isinstance(e.payload, TestQuarantined) for e in events)
    assert Counter(asked)["second_opinion"] == 2


@pytest.mark.parametrize(("answer", "status"), [("allow", "succeeded"), ("deny", "failed")])
def test_with_strict_examples_a_person_is_asked_before_one_is_set_aside(answer, status):
    """Given an example that two readers find wrong: it stands until a person says otherwise."""
    blames = diagnosis(failure("test_anchors.py::test_example_1", "test_error"))
    answers = {**FIRST_TRY, "tests": [block(RIGHT)], "second_opinion": [opinions("3")], "diagnose": [blames]}
    agent = AutoCoderAgent(
        model=ScriptedModel(answers),
        sandbox=HostSandbox(),
        store=MemoryStore(),
        clock=FakeClock(),
        strict_examples=True,
    )
    first = agent.generate(EXAMPLE, session="s")
    assert (first.status, first.question) == ("suspended", "example:test_anchors.py::test_example_1")
    assert first.quarantined == ()
    result = asyncio.run(agent.aresume("s", answers={first.question: answer}))
    assert result.status == status
    assert bool(result.quarantined) == (answer == "allow")


def test_too_weak_tests_are_added_to_and_then_the_session_fails_by_name():
    """Given one test that notices little: further ones are asked for, and without better ones the session fails."""
    weak = block("from solution import add\n\n\ndef test_a():\n    assert add(0, 0) == 0\n")
    more = block("from solution import add\n\n\ndef test_a():\n    assert add(2, 3) == 5\n")
    result, asked, _, model = run({"tests": [weak, more]}, min_strength=0.9)
    assert result.succeeded
    assert result.evidence.strength.share >= 0.9
    assert "def test_a_2():" in result.tests
    told = [r.messages[1].content for r in model.requests if r.purpose == "tests"]
    assert "a + b becomes (a - b)" in told[1]
    lost, again, *_ = run({"tests": [weak, weak]}, min_strength=0.9)
    assert lost.status == "failed"
    assert "changes of the code" in lost.reason
    assert Counter(again)["tests"] == 3
    assert Counter(asked)["tests"] == 2


@pytest.mark.parametrize("readers", [["4"], ["4", "3"]])
def test_an_example_that_readers_do_not_reject_stops_the_session_with_a_question(readers):
    says_logic = diagnosis(failure("test_anchors.py::test_example_1"))
    result, _, events, _ = run(
        {"tests": [block(RIGHT)], "second_opinion": [opinions(v) for v in readers], "diagnose": [says_logic]}, EXAMPLE
    )
    assert result.status == "suspended"
    assert result.question == "example:test_anchors.py::test_example_1"
    assert "add(1, 2) gives 4, and the code gives 3" in result.reason
    assert runs(events) == 1


@pytest.mark.parametrize(("answer", "status"), [("allow", "succeeded"), ("deny", "failed")])
def test_a_person_settles_whether_an_example_stands(answer, status):
    answers = {**FIRST_TRY, "tests": [block(RIGHT)], "second_opinion": [opinions("4")], "diagnose": [diagnosis()]}
    store, model = MemoryStore(), ScriptedModel(answers)
    agent = AutoCoderAgent(model=model, sandbox=HostSandbox(), store=store, clock=FakeClock())
    first = agent.generate(EXAMPLE, session="s")
    before = len(model.requests)
    result = asyncio.run(agent.aresume("s", answers={first.question: answer}))
    assert result.status == status
    assert len(model.requests) == before, "a person's word is enough"
    if status == "succeeded":
        assert result.confidence == "disputed"
        assert [q.reason for q in result.quarantined] == ["dropped"]


SPECIAL = "def add(a, b):\n    if (a, b) == (5, 5):\n        return 11\n    return a + b\n"


def test_a_change_that_special_cases_a_failing_test_is_not_taken():
    fix = diagnosis(failure("test_solution.py::test_d", fixes=[("def add(a, b):", SPECIAL[:56])]))
    result, _, events, model = run({"diagnose": [fix], "code": [ADD, block(SPECIAL), block(SPECIAL), ADD]})
    assert result.solution.code == "def add(a, b):\n    return a + b\n"
    assert ("code", "special_case") in decisions(events)
    assert result.succeeded
    assert result.confidence == "disputed"
    told = [q.messages[1].content for q in model.requests if q.purpose == "diagnose"]
    assert "compares with the arguments of add(5, 5)" in told[-1]


PLAIN = "def f(a, b):\n    return a + b\n"
SPECIAL_CASES = {
    "a condition": "def f(a, b):\n    if a == 5 and b == 7:\n        return 11\n    return a + b\n",
    "a tuple": "def f(a, b):\n    if (a, b) == (5, 7):\n        return 11\n    return a + b\n",
    "an expression": "def f(a, b):\n    return 11 if a == 5 and b == 7 else a + b\n",
    "the other way round": "def f(a, b):\n    return a + b if not (a == 5 and b == 7) else 11\n",
    "a wrapper": "def _f(a, b):\n    return a + b\n\n\ndef f(*args):\n    if args == (5, 7):\n        return 11\n    return _f(*args)\n",
    "a lookup": "KNOWN = {(5, 7): 11}\n\n\ndef f(a, b):\n    return KNOWN.get((a, b), a + b)\n",
    "a membership": "def f(a, b):\n    if (a, b) in [(5, 7)]:\n        return 11\n    return a + b\n",
    "a match": "def f(a, b):\n    match a, b:\n        case 5, 7:\n            return 11\n    return a + b\n",
    "and or": "def f(a, b):\n    return (a == 5 and b == 7 and 11) or a + b\n",
    "texts": "def f(a, b):\n    if str((a, b)) == '(5, 7)':\n        return 11\n    return a + b\n",
    "nested": "def f(a, b):\n    if a == 5:\n        if b == 7:\n            return 11\n    return a + b\n",
    "what is left over": "def f(a, b):\n    if (a, b) != (5, 7):\n        return a + b\n    return 11\n",
    "arithmetic": "def f(a, b):\n    if a == 5 and b == 7:\n        return 4 + b\n    return a + b\n",
    "a try": "def f(a, b):\n    if a == 5 and b == 7:\n        try:\n            return 11\n        finally:\n            pass\n    return a + b\n",
    "an entry": "T = {}\nT[(5, 7)] = 11\n\n\ndef f(a, b):\n    return T.get((a, b), a + b)\n",
    "a variable": "def f(a, b):\n    result = a + b\n    if a == 5 and b == 7:\n        result = 11\n    return result\n",
}


@pytest.mark.parametrize("name", SPECIAL_CASES)
def test_special_cases_are_seen_in_their_usual_forms(name):
    claim = Claim("f(5, 7)", "value", "11")
    assert special_cases(PLAIN, SPECIAL_CASES[name], [claim]) == ("f(5, 7)",)
    assert special_cases(SPECIAL_CASES[name], SPECIAL_CASES[name], [claim]) == ()


@pytest.mark.parametrize(
    ("code", "call", "expected"),
    [
        ("def f(n):\n    if n == 0:\n        return 1\n    return n * f(n - 1)\n", "f(0)", "1"),
        ("def f(xs):\n    if xs == []:\n        return None\n    return max(xs)\n", "f([])", "None"),
        ("def f(n):\n    if n % 15 == 0:\n        return 'FizzBuzz'\n    return str(n)\n", "f(15)", "'FizzBuzz'"),
        ("ROMAN = {'I': 1, 'V': 5, 'X': 10}\n\n\ndef f(s):\n    return ROMAN[s]\n", "f('V')", "5"),
        ("def f(m):\n    if m in (4, 6, 9, 11):\n        return 30\n    return 31\n", "f(4)", "30"),
        ("def f(a, b):\n    return b if a == 5 else a\n", "f(5, 7)", "7"),
        ("def f(n):\n    if n == 2:\n        return True\n    return n % 2 == 1\n", "f(2)", "True"),
        ("def f(n):\n    if n % 100 in (11,):\n        return 'th'\n    return 'st'\n", "f(11)", "'th'"),
        ("def f(n):\n    return {21 % 10: 'st'}.get(n % 10, 'th')\n", "f(21)", "'st'"),
        ("def f(a, op, b):\n    if op == '+':\n        return a + b\n    return None\n", "f(1, '+', 2)", "3"),
        ("def f(c):\n    if c == '.':\n        return 'dot'\n    return c\n", "f('.')", "'dot'"),
    ],
)
def test_a_base_case_a_rule_or_a_table_is_no_special_case(code, call, expected):
    assert special_cases("def f(*a):\n    return None\n", code, [Claim(call, "value", expected)]) == ()


def test_a_failed_session_delivers_its_best_program():
    """Given a first program that passes two of three, and worse ones after it."""
    tests = RIGHT.replace("== 7", "== 8")
    worse = block("def add(a, b):\n    return 8")
    cures_and_breaks = diagnosis(failure("test_solution.py::test_c", fixes=[("return a + b", "return 8")]))
    answers = {
        "tests": [block(tests)],
        "second_opinion": [opinions("8")],
        "diagnose": [cures_and_breaks],
        "code": [ADD, worse],
    }
    given = "from solution import add\n\n\ndef test_given():\n    assert add(9, 9) == 0\n"
    result, *_ = run(answers, max_iterations=2, ask={"tests": given})
    assert result.status == "failed"
    assert result.solution.code == "def add(a, b):\n    return a + b\n"
    assert result.counts.passed == 2


# ---- laws, over random worlds


@given(worlds)
def test_no_program_is_run_twice_against_the_same_tests(drawn):
    """But for an execution whose outcome was lost, or that ended before its tests had run."""
    _, stream, *_ = live(*drawn)
    seen = Counter()
    for event, following in zip(stream.events, stream.events[1:], strict=False):
        made = isinstance(event.payload, Requested) and event.payload.purpose == "run"
        if made and following.kind == "TestsFinished" and following.payload.exit in ("ok", "tests_failed"):
            seen[event.payload.fingerprint] += following.payload.whole
    assert not [key for key, times in seen.items() if times > 1]


@given(worlds)
def test_what_is_delivered_is_never_worse_than_what_was_run_before(drawn):
    """Counted in examples and given tests passed, for those are never changed."""
    result, stream, *_ = live(*drawn)
    if result.status != "failed" or not result.report:
        return
    from codetape.domain.report import Report

    given = [
        len([t for t in Report.model_validate_json(stream.texts[e.payload.report]).passed if "test_user" in t])
        for e in stream.events
        if e.kind == "TestsFinished" and e.payload.purpose == "run"
    ]
    assert len([t for t in result.report.passed if "test_user" in t]) == max(given, default=0)


@given(worlds, st.integers(1, LIMIT))
def test_a_run_that_is_not_made_is_not_counted(drawn, limit):
    result, stream, *_ = live(*drawn, limit)
    made = [e for e in stream.events if e.kind == "TestsFinished" and e.payload.purpose in ("run", "script")]
    assert result.iterations == len(made)


@given(worlds)
def test_who_speaks_against_a_success_is_named_and_lowers_its_confidence(drawn):
    result, *_ = live(*drawn)
    doubted = [
        q for q in result.quarantined if q.reason in ("outvoted", "disputed", "neither", "cannot_hold", "dropped")
    ]
    if result.succeeded and doubted:
        assert result.confidence in ("disputed", "oracle", "untested")
    assert all(q.test.startswith(("test_solution.py", "test_anchors.py", "test_user.py")) for q in doubted)
    assert not [q for q in doubted if q.test.startswith("test_user.py")]


def test_a_second_answer_does_not_bring_back_what_the_first_set_aside():
    """Given two wrong examples, and a person who drops one after the other."""
    prompt = PROMPT + "\n\n>>> add(1, 2)\n4\n>>> add(2, 2)\n5\n"
    answers = {**FIRST_TRY, "tests": [block(RIGHT)], "second_opinion": [opinions("4", "5")], "diagnose": [diagnosis()]}
    store, model = MemoryStore(), ScriptedModel(answers)
    agent = AutoCoderAgent(model=model, sandbox=HostSandbox(), store=store, clock=FakeClock())
    result = agent.generate(prompt, session="s")
    for _ in range(2):
        assert result.status == "suspended"
        result = asyncio.run(agent.aresume("s", answers={result.question: "allow"}))
    assert result.succeeded
    assert result.confidence == "disputed"


def test_of_two_wrong_tests_one_is_disputed_and_the_other_outvoted():
    tests = block(ONE_WRONG + "\n\ndef test_e():\n    assert add(6, 6) == 13\n")
    says = diagnosis(failure("test_solution.py::test_d", "test_error"), failure("test_solution.py::test_e"))
    result, *_ = run({"tests": [tests], "second_opinion": [opinions("11", "13")], "diagnose": [says]})
    assert result.succeeded
    assert {q.test: q.reason for q in result.quarantined} == {
        "test_solution.py::test_d": "disputed",
        "test_solution.py::test_e": "outvoted",
    }


def test_a_failure_that_nobody_looked_at_is_not_voted_on_at_the_last_run():
    wrong = block("def add(a, b):\n    return 0 if a == 5 else a + b")
    tests = block(RIGHT + "\n\ndef test_d():\n    assert add(5, 5) == 10\n")
    result, asked, *_ = run({"code": [wrong], "tests": [tests]}, max_iterations=1)
    assert result.status == "failed"
    assert asked == ["plan", "code", "tests"]


def test_one_reader_who_finds_the_task_silent_turns_no_run_green():
    wrong = block("def add(a, b):\n    return a + b if a < 2 else 0")
    answers = {"code": [wrong], "tests": [block(RIGHT)], "diagnose": [diagnosis(failure("test_solution.py::test_b"))]}
    result, asked, *_ = run({**answers, "second_opinion": [opinions(None, None), opinions("4", "7")]}, max_iterations=3)
    assert result.status == "failed"
    assert Counter(asked)["second_opinion"] == 2
    both, *_ = run({**answers, "second_opinion": [opinions(None, None)]}, max_iterations=3)
    assert (both.status, both.confidence) == ("succeeded", "disputed"), "more was set aside than carries the verdict"
