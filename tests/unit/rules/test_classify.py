"""Reports to classes of failure, by rules."""

import pytest

from codetape.domain.findings import Finding
from codetape.domain.reply_shapes import Opinion
from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.domain.task import Config, SandboxFacts
from codetape.rules.classify import Context, classify, signature
from codetape.rules.normalise import normalise
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
