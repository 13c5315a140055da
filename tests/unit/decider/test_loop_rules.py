"""Given what happened, when this comes of a call, then that is decided: a row for each rule of the loop."""

import pytest

from codetape.decider import environments
from codetape.decider.commands import Execute
from codetape.domain.task import ANCHOR_FILE
from codetape.eventlog.events import CodeReverted, FailureReclassified, TestQuarantined
from codetape.prompts import context
from codetape.testing.given import Given, failed_test, raised
from tests.support import ADD, ADD_TESTS, block, diagnosis, failure, opinions, plan, proposals, verification

CODE_AGAIN = block("def add(a, b):\n    return b + a")
THIRD = block("def add(a, b):\n    return sum((a, b))")


def ready(**more):
    """A session whose first program is about to be run by tests that a stub did not pass."""
    return Given(**more).replies(plan(), ADD, ADD_TESTS).builds().reports()


def diagnosed(story, code=CODE_AGAIN):
    """The rules left it to a diagnosis; the model blames the code and writes another one."""
    return story.replies(diagnosis(failure("test_sum"), failure("test_zero")), code)


# ---- from a prompt to the first run


@pytest.mark.parametrize(
    ("replies", "then"),
    [
        ((), "plan"),
        ((plan(),), "code"),
        ((plan(), ADD), "tests"),
        ((plan(), ADD, ADD_TESTS), "build"),
        (("no plan",), "plan"),  # one repair
        (("no plan", plan()), "code"),
        (("no plan", "no plan"), "failed"),
        ((plan(), "no code", "no code"), "failed"),
        ((plan(), ADD, "no tests", "no tests"), "failed"),  # nothing is there to judge by
    ],
)
def test_what_a_reply_leads_to(replies, then):
    assert Given().replies(*replies).purpose == then


def test_examples_stand_in_for_tests_that_the_model_does_not_write():
    story = Given("Write add(a, b). add(1, 2) -> 3").replies(plan(), ADD, "no tests", "no tests")
    assert story.purpose == "build"
    assert ANCHOR_FILE in story.builds().reports().command.job.targets


def test_a_repair_says_what_was_wrong_and_is_asked_for_once():
    story = Given().replies("no plan")
    assert "JSON" in story.prompt_text
    assert story.replies("no plan").decision.reason == "unusable"


def test_tests_are_vetted_before_they_count():
    story = Given().replies(plan(), ADD, ADD_TESTS).builds()
    assert story.purpose == "vet"
    assert story.reports().purpose == "run"
    assert story.reports().purpose == "confirm"
    assert story.reports().decision.confidence == "self_tested"


# ---- what a run leads to


def test_every_test_passes_and_the_session_succeeds():
    assert ready().reports().reports().state.state == "succeeded"


def test_an_exception_of_the_code_is_left_to_a_diagnosis_and_then_to_the_code():
    story = ready().reports({"test_sum": raised("KeyError", "'x'")})
    assert story.purpose == "diagnose"
    assert story.replies(diagnosis(failure("test_sum"))).purpose == "code"


def test_without_a_usable_diagnosis_the_rules_alone_decide():
    story = ready().reports({"test_sum": raised("KeyError", "'x'")}).replies("nothing", "nothing")
    assert (story.decision.usable, story.purpose) == (False, "code")


def test_a_call_in_doubt_is_put_to_an_opinion_that_sees_no_code():
    story = ready().reports({"test_sum": failed_test("assert 4 == 3", left="4", right="3")})
    assert story.purpose == "second_opinion"
    assert "return a + b" not in story.prompt_text


def test_a_lost_call_is_made_again():
    story = ready()
    before = story.purpose
    assert story.loses_the_call().purpose == before


# ---- reverts: a change that breaks what passed, and cures nothing, is taken back


def changed(after, rules):
    """One test failed; a change of the code was made, and this came of the next run."""
    story = diagnosed(ready(rules=rules).reports({"test_sum": raised("KeyError", "'x'")}))
    return story.reports(after)


@pytest.mark.parametrize("rules", [1, 2])
def test_a_change_that_breaks_what_passed_and_cures_nothing_is_taken_back(rules):
    story = changed({"test_sum": raised("KeyError", "'x'"), "test_zero": raised("IndexError")}, rules)
    assert len(story.said(CodeReverted)) == 1
    assert story.state.work.code.strip() == ADD.strip("`").removeprefix("python").strip()


@pytest.mark.parametrize("rules", [1, 2])
def test_a_change_that_breaks_one_test_and_cures_another_stands(rules):
    story = changed({"test_zero": raised("IndexError")}, rules)
    assert story.said(CodeReverted) == []
    assert "b + a" in story.state.work.code


@pytest.mark.parametrize("rules", [1, 2])
def test_a_change_that_breaks_nothing_stands(rules):
    assert changed({"test_sum": raised("ValueError")}, rules).said(CodeReverted) == []


# ---- limits


def test_the_last_allowed_run_ends_the_session_and_a_higher_limit_reopens_it():
    story = ready(settings={"max_iterations": 1}).reports({"test_sum": raised("KeyError")})
    assert (story.state.state, story.decision.reason) == ("failed", "iterations")
    assert story.state.ledger.owed


def test_a_failure_that_outlives_the_fixes_is_tried_from_a_fresh_sample_once():
    story = diagnosed(ready().reports({"test_sum": raised("KeyError", "'x'")}))
    story.reports({"test_sum": raised("KeyError", "'x'")})
    while story.purpose in ("diagnose", "second_opinion"):
        story.replies(diagnosis(failure("test_sum")) if story.purpose == "diagnose" else opinions("3"))
    assert story.purpose == "code"


def test_a_prompt_shows_so_many_failures_and_says_how_many_more_there_are():
    names = [f"test_{n}" for n in range(context.MAX_FAILURES + 3)]
    tests = block(
        "from solution import add\n\n\n" + "\n\n\n".join(f"def {n}():\n    assert add(1, 2) == 3" for n in names)
    )
    story = Given().replies(plan(), ADD, tests).builds().reports()
    story.reports({name: raised("KeyError", name) for name in names})
    assert story.purpose == "diagnose"
    shown = [
        name
        for name in names
        if f"'{name}'" in story.prompt_text
        or f"KeyError {name}" in story.prompt_text
        or f"`test_solution.py::{name}`" in story.prompt_text
        or f"::{name}" in story.prompt_text
    ]
    assert len(shown) == context.MAX_FAILURES == 8
    assert "3 more" in story.prompt_text


# ---- environments


def importing(*modules, settings=None):
    code = block("\n".join(f"import {m}" for m in modules) + "\n\n\ndef add(a, b):\n    return a + b")
    return Given(settings={"package_policy": "allow", **(settings or {})}).replies(plan(), code, ADD_TESTS)


def test_an_import_that_nobody_knows_is_asked_of_the_model():
    story = importing("unheard_of")
    assert story.purpose == "packages"
    assert story.replies(proposals(unheard_of="unheard-of")).command.spec.packages == ("unheard-of",)


def test_a_package_beyond_the_policy_is_a_question_to_a_person():
    story = importing("unheard_of", settings={"package_policy": "known"}).replies(proposals(unheard_of="unheard-of"))
    assert (story.state.state, story.state.cause) == ("suspended", "question")


def test_a_package_that_does_not_exist_is_replaced_and_never_more_often_than_allowed_in_a_chain():
    story = importing("unheard_of").replies(proposals(unheard_of="name-0"))
    for number in range(environments.MAX_CHAIN):
        story.refuses(f"name-{number}")
        assert story.purpose == "replace_package", number
        story.replies(f'{{"distribution": "name-{number + 1}", "reason": ""}}')
    assert environments.MAX_CHAIN == 3
    story.refuses("name-3")
    assert story.purpose == "code"  # it does without


def test_packages_are_replaced_so_often_in_all_and_no_more():
    modules = [f"unheard_{n}" for n in range(environments.MAX_REPLACEMENTS // environments.MAX_CHAIN + 2)]
    story = importing(*modules).replies(proposals(**{m: m.replace("_", "-") for m in modules}))
    replaced = 0
    for number in range(100):
        if story.purpose == "build":
            wanted = sorted(p for p in story.command.spec.packages if p.startswith(("unheard-", "other-")))
            if not wanted:
                break
            story.refuses(wanted[0])
        elif story.purpose == "replace_package":
            replaced += 1
            story.replies(f'{{"distribution": "other-{number}", "reason": ""}}')
        else:
            left = [m for m in modules if m not in story.state.ledger.unavailable]
            story.replies(block("\n".join(f"import {m}" for m in left) + "\n\n\ndef add(a, b):\n    return a + b"))
        if replaced > 20 or story.purpose in ("vet", "run"):
            break
    assert replaced == environments.MAX_REPLACEMENTS == 12


def test_a_package_that_a_person_asked_for_is_not_replaced():
    story = importing("unheard_of", settings={"packages": ("unheard-of",)})
    assert story.refuses("unheard-of").state.state == "suspended"


# ---- tests at fault


WRONG_TESTS = ADD_TESTS.replace("== 3", "== 4")


def doubted(*said):
    """A test that expects 4 where the program gives 3, and what the specification is said to say."""
    story = Given().replies(plan(), ADD, WRONG_TESTS).builds().reports()
    return story.reports({"test_sum": failed_test("assert 3 == 4", left="3", right="4")}).replies(opinions(*said))


def test_a_test_that_an_opinion_refutes_twice_is_fixed():
    story = doubted("3")
    if story.purpose == "second_opinion":  # one alone may not turn a run green
        story.replies(opinions("3"))
    assert story.purpose == "fix_tests"


def test_a_test_that_an_opinion_upholds_is_the_codes_fault():
    story = doubted("4")
    assert story.purpose == "diagnose"


def test_a_test_on_which_the_specification_is_silent_runs_no_more():
    story = doubted(None)
    if story.purpose == "second_opinion":
        story.replies(opinions(None))
    assert [p.reason for p in story.said(TestQuarantined)] == ["silent"]


def test_the_facts_come_before_the_decision_that_rests_on_them():
    story = doubted(None)
    if story.purpose == "second_opinion":
        story.replies(opinions(None))
    kinds = [event.kind for event in story.events]
    assert kinds[-2:] == ["TestQuarantined", "Decided"]
    assert story.purpose == "confirm"


def test_missing_fixes_owe_coding_again_with_the_limit_of_calls():
    fixes = [("return a + b", "return int(a) + int(b)")]
    story = ready().reports({"test_sum": raised("KeyError", "'x'")})
    story.replies(diagnosis(failure("test_sum", fixes=fixes)))
    calls = 0
    while story.purpose == "code" and calls < 10:
        calls += 1
        story.replies(block(f"def add(a, b):\n    return {calls} * 0 + a + b"))
        if story.purpose == "verify_code":
            story.replies(verification(missing=["F1"]))
    assert calls == environments.MAX_ASKS == 3
    assert isinstance(story.command, Execute)


def test_a_class_that_changes_is_said():
    story = doubted("3")
    while story.purpose not in ("succeeded", "failed", "suspended") and len(story.events) < 200:
        if story.purpose == "second_opinion":
            story.replies(opinions("3"))
        elif story.purpose == "fix_tests":
            story.replies(WRONG_TESTS.replace("== 4", "== 4  # fixed", 1))
        elif story.purpose == "verify_tests":
            story.replies(verification())
        elif story.purpose == "vet":
            story.reports()
        elif story.purpose in ("run", "confirm"):
            story.reports({"test_sum": failed_test("assert 3 == 4", left="3", right="4")})
        elif story.purpose == "diagnose":
            story.replies(diagnosis(failure("test_sum")))
        else:
            story.replies(THIRD)
    assert story.said(FailureReclassified) or story.said(TestQuarantined)


def test_a_second_opinion_that_cannot_be_had_is_not_asked_for_without_end():
    """One reader agrees with neither, and no usable word comes from another: the failure is left to a diagnosis."""
    story = ready().reports({"test_sum": failed_test("assert 3 == 4", left="3", right="4")})
    story.replies(opinions("5"))
    assert story.purpose == "second_opinion"
    story.replies("no opinion", "nor here")
    assert story.purpose == "diagnose"
    assert [(f.rule, f.judged) for f in story.state.work.findings] == [("no_opinion", "unjudged")]
