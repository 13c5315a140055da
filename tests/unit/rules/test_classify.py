"""Reports to classes of failure, by rules."""

import pytest

from codetape.domain.findings import Finding
from codetape.domain.reply_shapes import Opinion
from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.domain.task import Config, SandboxFacts
from codetape.rules.classify import Context, classify, signature
from codetape.rules.normalise import normalise
from codetape.rules.pytest_source import names as names_of
from codetape.rules.reclassify import reclassify_errors
from tests.unit.rules.test_assertion_claims import SOURCE, failing

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


def classified(*results, exit="tests_failed", opinions=(), unjudged=(), installed=(), unavailable=()):
    report = Report(exit=exit, whole=True, exit_code=1, collected=tuple(r.id for r in results), tests=results)
    context = Context(
        {"test_solution.py": SOURCE},
        "3.11",
        frozenset(installed),
        frozenset(unavailable),
        opinions,
        frozenset(unjudged),
    )
    return [(f.error_type, f.rule) for f in classify(report, context)]


def result(exception, message="", file="test_solution.py", name="test_plain", outcome="failed"):
    frames = (Frame(file=file, line=7),) if file else ()
    return TestResult(
        id=f"test_solution.py::{name}", outcome=outcome, exception=exception, message=message, frames=frames
    )


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (result("ModuleNotFoundError", "No module named 'numpy'"), ("environment", "missing_module")),
        (result("ImportError", "Missing optional dependency 'openpyxl'."), ("environment", "missing_module")),
        (result("ImportError", "libGL.so.1: cannot open shared object file"), ("environment", "missing_library")),
        (result("FileNotFoundError", "No such file or directory: 'ffmpeg'", "solution.py"), (None, "missing_command")),
        (result("ValueError", "x", "solution.py"), ("logic", "raised_in_solution")),
        (result("AssertionError", "x", "solution.py"), ("logic", "raised_in_solution")),
        (result("NameError", "x"), ("test_error", "raised_in_test")),
        (result("CalledProcessError", "Command 'python solution.py' failed"), ("logic", "script_failed")),
        (result("AssertionError", "x"), (None, "in_doubt")),
        (result("AssertionError", "x", name="test_loose"), ("logic", "other_form")),
        (result("OSError", "x", ""), (None, "unplaced")),
        (result("", outcome="unfinished"), ("logic", "ended_process")),
    ],
)
def test_rules_give_a_failures_class(given, verdict):
    assert classified(given) == [verdict]


def test_a_module_that_cannot_be_had_is_the_codes_problem():
    missing = result("ModuleNotFoundError", "No module named 'numpy'")
    assert classified(missing, unavailable=["numpy"]) == [("logic", "unavailable")]
    assert classified(missing, installed=["numpy"]) == [("logic", "wrong_module")]


def claimed(*values, actual="4", count=1):
    opinions = tuple(
        Opinion(test="f(1, [2])", verdict="silent" if v is None else "value", value=v or "", words="so it says")
        for v in values * count
    )
    failed = failing("test_plain", comparison=Comparison(op="==", left=actual, right="3"))
    return classified(failed, opinions=opinions)


def test_opinions_settle_what_is_in_doubt():
    assert claimed("3") == [("logic", "upheld")]
    assert claimed("4", count=2) == [("test_error", "refuted")]
    assert claimed(None) == [(None, "in_doubt")]
    assert claimed(None, count=2) == [("test_error", "silent")]
    assert claimed(None, "3") == [("logic", "upheld")]
    assert claimed("9") == [(None, "in_doubt")]
    assert claimed("9", count=2) == [("test_error", "third")]
    assert claimed("9", "8") == [("test_error", "neither")]
    assert claimed("3", "9") == claimed("9", "3") == claimed("4", "3") == [("logic", "upheld")]


def test_a_refutation_that_would_turn_a_run_green_is_asked_twice():
    assert claimed("4") == [(None, "in_doubt")]
    opinion = Opinion(test="f(1, [2])", verdict="value", value="4", words="so it says")
    failed = failing("test_plain", comparison=Comparison(op="==", left="4", right="3"))
    other = result("ValueError", "x", "solution.py", name="test_near")
    assert classified(failed, other, opinions=(opinion,)) == [
        ("test_error", "refuted"),
        ("logic", "raised_in_solution"),
    ]
    assert classified(failed, opinions=(opinion,), unjudged=["f(1, [2])"]) == [("test_error", "refuted")]


def test_signatures_mask_literals_and_nothing_else():
    one = result("ValueError", "bad value 17 at 0x7f00 for 'a b'")
    other = result("ValueError", 'bad value -3.5 at 0xdead for "c"')
    assert signature(one) == signature(other)
    assert signature(one) != signature(result("TypeError", "bad value 17"))


def test_a_refuted_test_never_becomes_logic():
    from codetape.domain.findings import FixCounts

    finding = Finding(test="t", error_type="test_error", rule="refuted", judged="refuted", signature="s")
    spent = (FixCounts(signature="s", test=2, error_type="test_error"),)
    found = reclassify_errors((finding,), spent, max_logic=1, max_test=1, reopenable=frozenset())
    assert found.quarantine == (finding,)
    assert found.changed == ()


def test_normalising_takes_out_what_changes():
    assert normalise("at 0x7f1234567890 took 1.25 s in /tmp/pytest-3/x") == "at 0x… took N s in /tmp/…"


# ---- what pytest says of tests, since version 3


def reported(*results, **more):
    report = Report(**{"exit": "ok", "whole": True, "collected": (), "tests": results, **more})
    context = Context({"test_solution.py": SOURCE}, "3.11", frozenset(), frozenset(), (), frozenset())
    return classify(report, context)


def ran(outcome, message=""):
    names = list(names_of(SOURCE))
    return [TestResult(id=f"test_solution.py::{name}", outcome=outcome, message=message) for name in names]


def test_tests_that_are_expected_to_fail_are_no_failures_and_no_successes():
    assert [f.rule for f in reported(*ran("xfailed", "not yet"))] == ["nothing_passed"]
    assert "not yet" in reported(*ran("skipped", "not yet"))[0].root_cause
    assert reported(*ran("xfailed")[1:], ran("passed")[0]) == ()


def test_what_is_not_collected_is_the_tests_fault_with_pytests_own_words():
    found = reported(ran("passed")[0], warnings=("cannot collect test class 'TestX' because it has a __init__",))
    assert [(f.test, f.error_type, f.rule) for f in found] == [("test_solution.py", "test_error", "not_collected")]
    assert "because it has a __init__" in found[0].root_cause


def test_a_file_that_is_skipped_for_want_of_a_module_wants_the_module():
    skipped = TestResult(
        id="test_solution.py", outcome="skipped", message="could not import 'numpy': No module named 'numpy'"
    )
    found = reported(skipped, exit="collection_error")
    assert [(f.error_type, f.rule, f.module) for f in found] == [("environment", "missing_module", "numpy")]


@pytest.mark.parametrize(
    ("exception", "message", "module"),
    [
        ("ImportError", "`Import openpyxl` failed.  Use pip or conda to install the openpyxl package.", "openpyxl"),
        ("ImportError", "Unable to find a usable engine; tried using: 'pyarrow', 'fastparquet'.", "pyarrow"),
        ("FeatureNotFound", "Couldn't find a tree builder with the features you requested: lxml. Do you need", "lxml"),
        ("ModuleNotFoundError", "required package 'pyarrow' not found.\n\nPlease install using", "pyarrow"),
        ("ImportError", "html5lib not found, please install it", "html5lib"),
        ("ImportError", "pip install XlsxWriter", "xlsxwriter"),
        ("ImportError", "pip install a-package-that-nobody-knows", ""),
    ],
)
def test_a_library_that_lacks_another_one_says_so_in_many_ways(exception, message, module):
    found = reported(result(exception, message, "solution.py"), exit="tests_failed")
    assert found[0].module == module


def test_a_module_that_the_interpreter_was_built_without_is_nothing_to_install():
    assert classified(result("ModuleNotFoundError", "No module named '_tkinter'", "solution.py")) == [
        ("logic", "unavailable")
    ]
    assert classified(result("ModuleNotFoundError", "No module named 'tkinter'")) == [("test_error", "unavailable")]


def test_a_fixture_that_is_not_there_is_the_tests_fault():
    assert classified(result("FixtureLookupError", "fixture 'db' not found", "", outcome="error")) == [
        ("test_error", "not_runnable")
    ]


def test_an_exception_raised_on_purpose_is_a_claim_and_one_by_accident_is_a_fault():
    code = "def add(a, b):\n    if a is None:\n        raise ValueError('no')\n    return a + b\n"
    for line, rule in ((3, "in_doubt"), (4, "raised_in_solution")):
        frames = (Frame(file="test_solution.py", line=7), Frame(file="solution.py", line=line))
        failed = TestResult(id="test_solution.py::test_plain", outcome="failed", exception="ValueError", frames=frames)
        report = Report(exit="tests_failed", whole=True, collected=(failed.id,), tests=(failed,))
        context = Context({"test_solution.py": SOURCE}, "3.11", frozenset(), frozenset(), (), frozenset(), code=code)
        assert [f.rule for f in classify(report, context)] == [rule]
