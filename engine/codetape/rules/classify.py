"""A report to classes of failure, by rules; signatures; and when a failure changes its class.

The rules see the report, the files and the opinions that were had; what they say is final. Where they say
nothing (`error_type` is None) the rule "in_doubt" asks for a second opinion, any other leaves it to the diagnosis.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from codetape.domain.findings import Finding
from codetape.domain.package_names import bare
from codetape.domain.reply_shapes import Opinion
from codetape.domain.report import Report, TestResult
from codetape.domain.task import ANCHOR_FILE, OUTPUT_FILE, SOLUTION_FILE, TEST_FILE, USER_FILE
from codetape.rules.assertion_claims import Claim, actual_of, agrees, claim_of, same_opinion
from codetape.rules.data.optional_dependencies import OPTIONAL
from codetape.rules.packages import LOCAL, mapped, standard_library
from codetape.rules.pytest_source import file_of, function_id, names, raises_at
from codetape.rules.rule_versions import RULES_VERSION

SESSION = "session"
"""The name of a failure that belongs to no test: the process ended, or the script failed."""
_MODULE = re.compile(r"(?:No module named|Missing optional dependency) '?([\w.]+)'?")
_PYTESTS_OWN = frozenset({"FixtureLookupError", "Failed", "UsageError", "PytestUnhandledCoroutineWarning"})
"""Exceptions that pytest raises of a test itself where no file of the job is on the stack."""
_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_COMMAND = re.compile(r"No such file or directory: '([\w.+-]+)'")
_MASKS = (
    (re.compile(r"0x[0-9a-fA-F]+"), "#"),
    (re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""), "#"),
    (re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"), "#"),
)


@dataclass(frozen=True)
class Context:
    """What the rules need beside the report.

    ``hidden`` are tests (without parameters) that run no more; ``doubted`` are examples that opinions are to judge;
    ``code`` is the program that the report is of.
    """

    files: Mapping[str, str]
    python: str
    installed: frozenset[str]
    unavailable: frozenset[str]
    opinions: tuple[Opinion, ...]
    unjudged: frozenset[str]
    hidden: frozenset[str] = frozenset()
    doubted: frozenset[str] = frozenset()
    code: str = ""
    version: int = RULES_VERSION


def signature(result: TestResult) -> str:
    """Return what makes two failures the same one: id, exception type, message with its literals masked."""
    message = result.message.splitlines()[0] if result.message else ""
    for pattern, replacement in _MASKS:
        message = pattern.sub(replacement, message)
    return f"{result.id} {result.exception} {message}"[:400]


def expected_names(files: Mapping[str, str]) -> tuple[str, ...]:
    """Return ``file::test`` for every test that the files define."""
    return tuple(f"{file}::{name}" for file, text in files.items() for name in names(text))


def missing_tests(report: Report, files: Mapping[str, str], hidden: Collection[str] = ()) -> tuple[str, ...]:
    """Return the tests that the files define and the report does not know; ``hidden`` are tests and files left out."""
    ran = {function_id(t.id) for t in report.tests}
    return tuple(
        name for name in expected_names(files) if name not in ran and name not in hidden and file_of(name) not in hidden
    )


def classify(report: Report, context: Context) -> tuple[Finding, ...]:
    """Return one finding for each failing test; one for the session, or for a file, where it failed without any.

    A report that shows no test that counts as passed always has a finding.
    """
    found = tuple(_finding(result, report, context) for result in report.failing)
    if context.version > 1:
        found = _asked_twice(found, context)
    absent = missing_tests(report, context.files, context.hidden)
    if not found and context.version > 2 and report.whole:
        return _uncollected(report, absent, context) or _nothing_passed(report, context)
    if found or (report.exit == "ok" and report.whole and not absent):
        return found
    what = {
        "timeout": "The time limit ended the run.",
        "oom": "The memory limit ended the run.",
        "pids": "The process limit ended the run.",
        "output_cap": "The output limit ended the run.",
    }.get(report.exit, "The process ended before every test had run and been reported.")
    detail = f" Not run: {', '.join(absent[:5])}." if absent else ""
    rule = report.exit if report.exit in ("timeout", "oom", "pids", "output_cap") else "not_whole"
    return (
        Finding(
            test=SESSION,
            error_type="logic",
            rule=rule,
            signature=f"{SESSION} {rule}",
            root_cause=what + detail,
        ),
    )


def _uncollected(report: Report, absent: tuple[str, ...], context: Context) -> tuple[Finding, ...]:
    """Return a finding for each file of which pytest collected less than it defines: whatever the reason, the tests' own.

    A file that was skipped for want of a module wants the module.
    """
    findings = []
    for file in dict.fromkeys(map(file_of, absent)):
        skipped = next((t for t in report.tests if t.id == file and t.outcome == "skipped"), None)
        names = ", ".join(name.partition("::")[2] for name in absent if file_of(name) == file)
        said = skipped.message if skipped else " ".join(report.warnings)
        cause = f"pytest does not collect {names[:300]}" + (f": {said[:500]}" if said else ".")
        base = {"test": file, "signature": f"{file} not_collected", "message": said[:2000]}
        part = _missing_module(said, context) if skipped else {}
        part = part or {"error_type": "test_error", "rule": "not_collected", "root_cause": cause}
        findings.append(Finding(**{**base, **part}))  # type: ignore[arg-type]  # the parts are the fields, by construction
    return tuple(findings)


def _nothing_passed(report: Report, context: Context) -> tuple[Finding, ...]:
    """Return a finding where each test was skipped, or expected to fail: nothing was verified."""
    if any(function_id(test) not in context.hidden for test in report.passed):
        return ()
    left = [t for t in report.tests if function_id(t.id) not in context.hidden]
    why = "; ".join(dict.fromkeys(t.message for t in left if t.message))
    cause = f"No test passed: {len(left)} were skipped or expected to fail" + (f" ({why[:500]})." if why else ".")
    return (
        Finding(
            test=TEST_FILE,
            error_type="test_error",
            rule="nothing_passed",
            signature=f"{TEST_FILE} nothing_passed",
            root_cause=cause,
        ),
    )


def _finding(result: TestResult, report: Report, context: Context) -> Finding:
    base = {
        "test": result.id,
        "signature": signature(result),
        "exception": result.exception,
        "message": result.message[:2000],
    }
    verdict = (
        _unfinished(result, report)
        or _import(result, context)
        or _capability(result)
        or _script(result)
        or _authority(result, context)
        or _raised(result, context)
    )
    return Finding(**{**base, **verdict})  # type: ignore[arg-type]  # the parts are the fields, by construction


Part = dict[str, object]


def _unfinished(result: TestResult, report: Report) -> Part:
    if result.outcome != "unfinished":
        return {}
    causes = {
        "timeout": "It ran into the time limit.",
        "oom": "It ran into the memory limit.",
        "pids": "It ran into the process limit.",
        "output_cap": "It ran into the output limit.",
    }
    rule = report.exit if report.exit in causes else "ended_process"
    cause = causes.get(report.exit, "The process ended while this test ran.")
    return {"error_type": "logic", "rule": rule, "root_cause": cause, "signature": f"{result.id} {rule}"}


def _import(result: TestResult, context: Context) -> Part:
    if context.version > 2 and (part := _optional(result, context)):
        return part
    if result.exception not in ("ModuleNotFoundError", "ImportError"):
        return {}
    return _missing_module(result.message, context) or (_not_here(result, context) if context.version > 2 else {})


def _optional(result: TestResult, context: Context) -> Part:
    """A library lacks one that it needs only sometimes: known ones are installed, as if they had been imported."""
    for exceptions, pattern in OPTIONAL:
        if result.exception not in exceptions or not (match := pattern.search(result.message)):
            continue
        name = match.group(1)
        names = (name, name.replace("-", "_"), bare(name).replace("-", "_"))
        module = next((n for n in names if mapped(n, context.version)), name)
        package = mapped(module, context.version)
        if package and bare(package) not in context.installed and module.partition(".")[0] not in context.unavailable:
            cause = f"The environment lacks {name}, which a library needs here."
            return {"error_type": "environment", "rule": "missing_module", "module": module, "root_cause": cause}
    return {}


def _not_here(result: TestResult, context: Context) -> Part:
    """A module of the standard library that this interpreter was built without: nothing installs it."""
    match = _MODULE.search(result.message)
    top = match.group(1).partition(".")[0].lstrip("_") if match else ""
    if not top or top in LOCAL or not {top, f"_{top}"} & standard_library(context.python):
        return {}
    in_tests = bool(result.frames) and result.frames[-1].file not in (SOLUTION_FILE,)
    kind = "test_error" if in_tests and file_of(result.id) == TEST_FILE else "logic"
    cause = f"This interpreter was built without {top}, and nothing installs it: do without it."
    return {"error_type": kind, "rule": "unavailable", "module": top, "root_cause": cause}


def _missing_module(message: str, context: Context) -> Part:
    """Return what an importing statement's message means: a module to install, or one that cannot be had."""
    match = _MODULE.search(message)
    if match is None:
        return {}
    module = match.group(1)
    top = module.partition(".")[0]
    if top in LOCAL or top in standard_library(context.python):
        return {}
    if top in context.unavailable:
        return {
            "error_type": "logic",
            "rule": "unavailable",
            "root_cause": f"{top} cannot be had: do without it.",
        }
    if bare(mapped(module, context.version) or top) in context.installed:
        return {
            "error_type": "logic",
            "rule": "wrong_module",
            "root_cause": f"{module} is no module of its package.",
        }
    return {
        "error_type": "environment",
        "rule": "missing_module",
        "module": module,
        "root_cause": f"The environment lacks {module}.",
    }


def _capability(result: TestResult) -> Part:
    if match := _LIBRARY.search(result.message):
        cause = f"The environment lacks the system library {match.group(1)}."
        return {"error_type": "environment", "rule": "missing_library", "root_cause": cause}
    if result.exception == "FileNotFoundError" and (match := _COMMAND.search(result.message)):
        last = result.frames[-1].file if result.frames else ""
        if last == SOLUTION_FILE and "." not in match.group(1):
            cause = f"The command or file {match.group(1)} is not there."
            return {"error_type": None, "rule": "missing_command", "root_cause": cause}
    return {}


def _script(result: TestResult) -> Part:
    """A test that runs the script as a program, and the program fails: the test is the messenger."""
    if result.exception in ("CalledProcessError", "TimeoutExpired") and SOLUTION_FILE in result.message:
        cause = "The script, run as a program, failed: its own words are on standard error."
        return {"error_type": "logic", "rule": "script_failed", "root_cause": cause}
    return {}


def _authority(result: TestResult, context: Context) -> Part:
    rules = {
        ANCHOR_FILE: ("anchor", "An example of the task fails."),
        USER_FILE: ("user_test", "A given test fails."),
        OUTPUT_FILE: ("declared_output", "The script, run on its samples, does not write every declared output."),
    }
    rule = rules.get(file_of(result.id))
    if rule is None:
        return {}
    part: Part = {"error_type": "logic", "rule": rule[0], "root_cause": rule[1]}
    return part | _example_judged(result, context) if result.id in context.doubted else part


def _example_judged(result: TestResult, context: Context) -> Part:
    """Two opinions on the task's words decide whether a doubted example can hold; where they do not agree, it
    stands."""
    claim = claim_of(context.files.get(file_of(result.id), ""), result, context.version)
    if claim is None or claim.call in context.unjudged:
        return {"judged": "unjudged"}
    opinions = [o for o in context.opinions if o.test == claim.call][:2]
    call: Part = {"call": claim.call, "words": opinions[-1].words if opinions else ""}
    if len(opinions) < OPINIONS:
        return {**call, "error_type": None, "rule": "in_doubt"}
    held = [agrees(o, claim.expected, claim) for o in opinions]
    if all(held):
        return {
            **call,
            "judged": "upheld",
            "root_cause": "An example of the task fails, and two readers of the task say that it holds.",
        }
    if not any(held) and same_opinion(opinions[0], opinions[1], claim):
        return {
            **call,
            "error_type": "test_error",
            "rule": "cannot_hold",
            "root_cause": "Two readers of the task agree that the example cannot hold.",
        }
    return call


def _raised(result: TestResult, context: Context) -> Part:
    last = result.frames[-1].file if result.frames else ""
    refused = last == SOLUTION_FILE and raises_at(context.code, result.frames[-1].line)
    if last == SOLUTION_FILE and context.version > 2 and (refused or result.id in context.doubted):
        claim = claim_of(context.files.get(file_of(result.id), ""), result, context.version)
        if claim is not None:  # the code refuses the call on purpose: who says that it may?
            return _claimed(claim, result, context)
    if last == SOLUTION_FILE:
        cause = f"{result.exception} is raised at line {result.frames[-1].line} of the solution."
        return {"error_type": "logic", "rule": "raised_in_solution", "root_cause": cause}
    if not last and result.exception in _PYTESTS_OWN and context.version > 2:
        cause = f"pytest cannot run the test: {result.message.strip().splitlines()[0][:300] if result.message.strip() else result.exception}."
        return {"error_type": "test_error", "rule": "not_runnable", "root_cause": cause}
    if not last:
        return {"error_type": None, "rule": "unplaced"}
    if result.exception not in ("AssertionError", "Failed"):
        cause = f"{result.exception} is raised at line {result.frames[-1].line} of the test file."
        return {"error_type": "test_error", "rule": "raised_in_test", "root_cause": cause}
    claim = claim_of(context.files.get(last, ""), result, context.version)
    if claim is None:
        return {"error_type": "logic", "rule": "other_form", "judged": "unjudged"}
    return _claimed(claim, result, context)


def _claimed(claim: Claim, result: TestResult, context: Context) -> Part:
    """Return what the opinions say of a failing claim; where there are none yet, it is in doubt."""
    opinions = [o for o in context.opinions if o.test == claim.call]
    unjudged: Part = {"call": claim.call, "error_type": "logic", "rule": "no_opinion", "judged": "unjudged"}
    if not opinions:
        in_doubt: Part = {"call": claim.call, "error_type": None, "rule": "in_doubt"}
        return unjudged if claim.call in context.unjudged else in_doubt
    part = (_judged if context.version > 1 else _judged_v1)(claim, result, opinions)
    if context.version > 2 and part["rule"] == "in_doubt" and claim.call in context.unjudged:
        return unjudged  # one reader was heard, and no other could be: asking on would never end
    return part


def _judged(claim: Claim, result: TestResult, opinions: list[Opinion]) -> Part:
    """Compare the opinions had on this call with what the code gave and what the test expects."""
    last, actual = opinions[-1], actual_of(claim, result)
    call: Part = {"call": claim.call, "words": last.words}
    says_test = any(agrees(o, claim.expected, claim) for o in opinions)
    says_code = [bool(actual) and agrees(o, actual, claim) for o in opinions]
    if says_test:
        return {
            **call,
            "error_type": "logic",
            "rule": "upheld",
            "judged": "upheld",
            "root_cause": "The specification says what the test expects.",
        }
    if last.verdict == "silent":
        return {**call, "error_type": "test_error", "rule": "silent", "root_cause": "The specification is silent."}
    if all(says_code):
        return {
            **call,
            "error_type": "test_error",
            "rule": "refuted",
            "judged": "refuted",
            "root_cause": "The specification says what the code gives, not what the test expects.",
        }
    if len(opinions) >= OPINIONS and same_opinion(opinions[-2], opinions[-1], claim):
        said = f"raises {last.value}" if last.verdict == "exception" else f"gives {last.value}"
        cause = f"Two readers of the task agree that the call {said}: neither what the code gives nor what the test expects."
        return {**call, "error_type": "test_error", "rule": "third", "root_cause": cause}
    if len(opinions) >= OPINIONS:
        return {
            **call,
            "error_type": "test_error",
            "rule": "neither",
            "root_cause": "The specification, asked twice, says neither what the code gives nor what the test expects.",
        }
    return {**call, "error_type": None, "rule": "in_doubt"}


def _judged_v1(claim: Claim, result: TestResult, opinions: list[Opinion]) -> Part:
    """As version 1 of the rules judged: the last opinion alone decides."""
    last, actual = opinions[-1], actual_of(claim, result)
    call: Part = {"call": claim.call, "words": last.words}
    if last.verdict == "silent":
        return {
            **call,
            "error_type": "test_error",
            "rule": "silent",
            "root_cause": "The specification is silent.",
        }
    if agrees(last, claim.expected, claim):
        return {
            **call,
            "error_type": "logic",
            "rule": "upheld",
            "judged": "upheld",
            "root_cause": "The specification says what the test expects.",
        }
    if actual and agrees(last, actual, claim):
        return {
            **call,
            "error_type": "test_error",
            "rule": "refuted",
            "judged": "refuted",
            "root_cause": "The specification says what the code gives, not what the test expects.",
        }
    if len(opinions) > 1:
        return {
            **call,
            "error_type": "test_error",
            "rule": "neither",
            "root_cause": "The specification, asked twice, says neither what the code gives nor what the test expects.",
        }
    return {**call, "error_type": None, "rule": "in_doubt"}


def _asked_twice(findings: tuple[Finding, ...], context: Context) -> tuple[Finding, ...]:
    """Ask again where one opinion alone, that refutes a test or finds the task silent on it, would turn a run green."""
    if any(f.error_type != "test_error" for f in findings):
        return findings
    given = Counter(o.test for o in context.opinions)
    return tuple(
        f.model_copy(update={"error_type": None, "rule": "in_doubt", "judged": "no", "root_cause": ""})
        if f.rule in ("refuted", "silent") and given[f.call] < OPINIONS and f.call not in context.unjudged
        else f
        for f in findings
    )


OPINIONS = 2  # that settle what one alone may not
