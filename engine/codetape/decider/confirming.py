"""The confirming run: before a success, and before more is paid for a failure that a second look might dissolve.

What is claimed in a plain form is evaluated where no expected value is, and compared here; the tests of another form
run once more. Both under another hash seed, time zone, folder and order. What differs is a failure like any other; a
test that passes and fails by turns counts for nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from codetape.decider import weighing
from codetape.decider.executions import job_for, left_out_of, plain_key, quarantined, report_of, solved
from codetape.decider.step import Step, Stop, quarantine_facts
from codetape.decider.triage import after_quarantine
from codetape.domain.findings import Confirmation, Quarantined, Strength
from codetape.domain.job import ONCE_MORE, OTHER, Job
from codetape.domain.report import Comparison, Frame, MutantRun, Report, TestResult
from codetape.domain.task import ORACLE_FILE, TEST_FILE
from codetape.eventlog.session_state import SessionState
from codetape.rules.blind.blind_file import blind_file
from codetape.rules.blind.claims import BlindClaim
from codetape.rules.blind.values import Judged, judged, judged_once
from codetape.rules.classify import SESSION, expected_names
from codetape.rules.mutants import mutants
from codetape.rules.pytest_source import file_of, function_id
from codetape.rules.reclassify import FLAKY
from codetape.rules.session_view import test_files

MAX_ROUNDS = 2  # of further tests, where those that there are notice too little
MAX_NAMED = 200  # tests that a confirmation names
_CONDITIONS = "under another hash seed, time zone, folder and order of tests"


@dataclass(frozen=True)
class _Claims:
    """The claims of several files together: the module that asks, and each claim with its file."""

    source: str
    claims: tuple[tuple[str, BlindClaim], ...]
    whole: frozenset[str]


def _claims(files: dict[str, str]) -> dict[str, _Claims]:
    """Return the claims of each file that has some, by the name of the file that asks them."""
    found: dict[str, _Claims] = {}
    for file, text in files.items():
        blind = blind_file(text, sum(len(claims.claims) for claims in found.values()))
        if blind.claims:
            whole = frozenset(f"{file}::{name}" for name in blind.whole)
            found[f"claims_{len(found)}.py"] = _Claims(blind.source, tuple((file, c) for c in blind.claims), whole)
    return found


def _tested(session: SessionState) -> dict[str, str]:
    """Return the files that are confirmed here: the tests, or the oracle where it was just run."""
    return {ORACLE_FILE: session.the_task.oracle} if session.state == "proving" else test_files(session)


def _key(session: SessionState) -> str:
    return ("oracle:" if session.state == "proving" else "") + plain_key(session)


def _solved(session: SessionState) -> bool:
    report = session.work.report
    return session.state == "proving" or (report is not None and solved(session, report, quarantined(session)))


def wanted(session: SessionState) -> str:
    """Return the purpose of the next execution that confirms; empty where nothing is left to confirm."""
    if session.the_config.skip_tests or not session.the_config.sandbox.confirms:
        return ""
    key, ready = _key(session), _solved(session)
    evaluates = session.the_config.sandbox.evaluates
    if ready and evaluates and session.ledger.evaluated != key and _claims(_tested(session)):
        return "evaluate"
    if session.ledger.confirmed != key and (not ready or _in_process(session)):
        return "confirm"
    return ""


def before_or_after_the_oracle(session: SessionState) -> bool:
    """Whether the oracle's claims are evaluated now, or its other tests run once more.

    The evaluation comes before the oracle itself: no program has seen the file by then, wherever it may remember things.
    """
    if session.state != "proving" or session.rules < 3:
        return False
    return session.ledger.proven or wanted(session) == "evaluate"


def _in_process(session: SessionState) -> tuple[str, ...]:
    """Return the tests that count and that no evaluation has confirmed: they run once more."""
    confirmation = session.work.oracle_confirmation if session.state == "proving" else session.work.confirmation
    blind = set(confirmation.tests) if confirmation and session.ledger.evaluated == _key(session) else set()
    gone = quarantined(session)
    report = session.work.report if session.state != "proving" else None
    if report is None:
        names: Iterable[str] = expected_names(_tested(session))
    else:
        names = (t for t in report.passed if t not in gone)
    return tuple(dict.fromkeys(name for name in map(function_id, names) if name not in blind))


def job(session: SessionState) -> Job:
    """Return the execution that confirms next."""
    purpose, files = wanted(session), _tested(session)
    conditions = ONCE_MORE if session.ledger.differing else OTHER
    if purpose == "evaluate":
        asked = {name: claims.source for name, claims in _claims(files).items()}
        if session.state != "proving":
            asked |= {f"mutant_{n}.py": mutant.code for n, mutant in enumerate(mutants(session.work.code), 1)}
        return job_for(session, purpose, asked, conditions=conditions)
    if session.state == "proving":
        return job_for(session, purpose, files, conditions=conditions)
    again = set(_in_process(session)) if _solved(session) else set()
    left_out, targets, report = left_out_of(session), tuple(files), session.work.report
    if again and report is not None:
        left_out += tuple(t.id for t in report.tests if "::" in t.id and function_id(t.id) not in again)
        targets = tuple(name for name in files if name in {file_of(test) for test in again})
    left_out = tuple(dict.fromkeys(left_out))
    return job_for(session, purpose, files, targets=targets, deselect=left_out, conditions=conditions)


def nothing_to_confirm(session: SessionState) -> Step | None:
    """Return the step out of confirming where everything is confirmed; else None."""
    if wanted(session):
        return None
    if session.state == "proving":
        return Step("proven", done=("proving",)) if session.ledger.proven else None
    return _strong_enough(session) or Step("confirm", done=("confirming",))


# ---- strength


def _strength(claims: list[BlindClaim | None], report: Report, code: str) -> Strength:
    """Return how many mutants the claims notice. ``claims`` are by their numbers; None is one that counts no more."""
    tried = mutants(code)
    runs = [run for run in report.mutants if run.number <= len(tried)]
    alive = [run for run in runs if run.ended and not _noticed(claims, run)]
    survivors = tuple(tried[run.number - 1].words for run in alive)
    return Strength(killed=len(runs) - len(alive), total=len(runs), survivors=survivors)


def _noticed(claims: list[BlindClaim | None], run: MutantRun) -> bool:
    for given in run.differing:
        claim = claims[given.number] if given.number < len(claims) else None
        if claim is not None and judged_once(claim, given).verdict == "differs":
            return True
    return False


def _strong_enough(session: SessionState) -> Step | None:
    """Return the step to further tests where too few changes of the code are noticed, or the end; None where enough are.

    Only a run that was confirmed and that passes has tests whose strength counts.
    """
    least, strength = session.the_config.min_strength, session.work.strength
    if not least or not _solved(session) or session.the_config.skip_tests:
        return None
    share = strength.share if strength else 0.0
    if share >= least:
        return None
    if session.ledger.strengthened < MAX_ROUNDS:
        ledger = {"strengthened": session.ledger.strengthened + 1, "adding": True}
        owes = ("writing_tests", "resolving", "executing")
        return Step("confirm", reason="strength", done=("confirming",), owes=owes, ledger=ledger)
    noticed = f"{strength.killed} of {strength.total}" if strength and strength.total else "none"
    message = f"The tests notice {noticed} changes of the code, and {least:.0%} were asked for."
    return Step("confirm", halt=Stop("failed", "strength", message))


# ---- evaluations


def evaluated(session: SessionState) -> Step:
    """Return the step after a blind evaluation: confirmed, or failures of the tests whose claims came out otherwise."""
    report, gone = report_of(session), {function_id(test) for test in quarantined(session)}
    numbered = [pair for claims in _claims(_tested(session)).values() for pair in claims.claims]
    by_number = {n: tuple(e for e in report.evaluated if e.number == n) for n in range(len(numbered))}
    verdicts = [
        (f"{file}::{claim.test}", claim, judged(claim, by_number[n]))
        for n, (file, claim) in enumerate(numbered)
        if f"{file}::{claim.test}" not in gone
    ]
    ledger = {"evaluated": _key(session)}
    confirmation = _confirmation(session, verdicts)
    differing = [(test, claim, verdict) for test, claim, verdict in verdicts if verdict.verdict == "differs"]
    if session.state == "proving":
        step = Step("oracle", ledger=ledger, work={"oracle_confirmation": confirmation}, target="proving")
        return _oracle_differs(step, differing) if differing else step
    if not differing:
        standing = [claim if f"{file}::{claim.test}" not in gone else None for file, claim in numbered]
        strength = _strength(standing, report, session.work.code)
        work = {"confirmation": confirmation, "strength": strength}
        return Step("evaluate", ledger=ledger, work=work, target="confirming")
    failed: dict[str, TestResult] = {}
    for test, claim, verdict in differing:
        failed.setdefault(test, _failure(session, test, claim, verdict))
    return _failed(session, Step("evaluate", ledger=ledger), tuple(failed.values()))


def _confirmation(session: SessionState, verdicts: list[tuple[str, BlindClaim, Judged]]) -> Confirmation:
    clear: dict[str, bool] = {}
    for test, _, verdict in verdicts:
        clear[test] = clear.get(test, True) and verdict.verdict == "confirmed"
    whole = {test for claims in _claims(_tested(session)).values() for test in claims.whole}
    tests = tuple(test for test, right in clear.items() if right and test in whole)
    counts = [verdict.verdict for _, _, verdict in verdicts]
    return Confirmation(blind=counts.count("confirmed"), unclear=counts.count("unclear"), tests=tests[:MAX_NAMED])


def _failure(session: SessionState, test: str, claim: BlindClaim, verdict: Judged) -> TestResult:
    """Return the failure that a claim amounts to: as if its assertion had failed."""
    expectation = claim.expectations[0]
    expected = expectation.value if expectation.operator == "raises" else repr(expectation.value)
    said = f"{claim.call} gives {verdict.actual or 'no exception'} {_CONDITIONS}, where no expected value can be seen"
    report = session.work.report
    name = next((t.id for t in report.tests if function_id(t.id) == test), test) if report else test
    return TestResult(
        id=name,
        outcome="failed",
        exception="AssertionError",
        message=f"assert {verdict.actual} {expectation.operator} {expected}: {said}"[:4000],
        traceback=f"{said}; the test expects {expectation.operator} {expected}."[:4000],
        frames=(Frame(file=file_of(test), line=claim.line),),
        comparison=Comparison(op="==", left=verdict.actual[:2000], right=str(expected)[:2000])
        if expectation.operator == "=="
        else None,
    )


def _oracle_differs(step: Step, differing: list[tuple[str, BlindClaim, Judged]]) -> Step:
    test, claim, verdict = differing[0]
    message = (
        f"The oracle does not hold where it cannot be seen: {test}: {claim.call} gives "
        f"{verdict.actual[:200] or 'no exception'} {_CONDITIONS}."
    )
    return replace(step, usable=False, target="", halt=Stop("failed", "oracle", message))


# ---- second runs


def confirmed(session: SessionState) -> Step:
    """Return the step after a second run: the same again, a flaky test, or failures."""
    report, key = report_of(session), _key(session)
    failing = _failing(session, report)
    if session.state == "proving":
        return _proven_again(session, key, failing)
    before = session.work.report
    if before is None:
        raise ValueError("there is no run to confirm")
    if not _solved(session):
        passed = {*report.passed} - quarantined(session) if report.whole else set()
        flaky = [t.id for t in before.failing if t.id in passed and file_of(t.id) == TEST_FILE]
        step = Step("confirm", ledger={"confirmed": key}, done=("confirming",), owes=("executing",))
        return _without_flaky(session, step, flaky, before) if flaky else step
    if not failing:
        return Step("confirm", ledger={"confirmed": key, "differing": ()}, target="confirming")
    if not session.ledger.differing:  # once more: what fails each time is a failure, what fails by turns is flaky
        return Step("confirm", ledger={"differing": tuple(failing)}, target="confirming")
    lasting = [test for test in failing if test in session.ledger.differing]
    flaky = [test for test in {**failing, **dict.fromkeys(session.ledger.differing)} if test not in lasting]
    base = Step("confirm", ledger={"confirmed": key, "differing": ()})
    if lasting:
        return _failed(session, base, tuple(failing[test] for test in lasting))
    own = [test for test in flaky if file_of(test) == TEST_FILE and "::" in test]
    if len(own) < len(flaky):  # an example that passes by turns shows code that cannot be relied on
        others = tuple(_by_turns(test, failing.get(test)) for test in flaky if test not in own)
        return _failed(session, base, others)
    return _without_flaky(session, replace(base, done=("confirming",)), own, before)


def _failing(session: SessionState, report: Report) -> dict[str, TestResult]:
    gone = quarantined(session) if session.state != "proving" else set()
    failing = {t.id: t for t in report.failing if t.id not in gone}
    if not failing and not (report.whole and report.exit == "ok"):
        failing[SESSION] = TestResult(id=SESSION, outcome="unfinished", message=f"The process ended {_CONDITIONS}.")
    return failing


def _by_turns(test: str, result: TestResult | None) -> TestResult:
    said = f"The test passes and fails by turns {_CONDITIONS}: what the code gives depends on chance."
    if result is None:
        return TestResult(id=test, outcome="failed", exception="AssertionError", message=said)
    return result.model_copy(update={"message": f"{result.message} {said}"[:4000]})


def _proven_again(session: SessionState, key: str, failing: dict[str, TestResult]) -> Step:
    ledger: dict[str, object] = {"confirmed": key, "differing": ()}
    if not failing:
        return Step("oracle", ledger=ledger, target="proving")
    if not session.ledger.differing:
        return Step("oracle", ledger={"differing": tuple(failing)}, target="proving")
    lasting = [test for test in failing if test in session.ledger.differing] or list(failing)
    message = f"The oracle passed, and does not {_CONDITIONS}: {', '.join(lasting[:5])}."
    return Step("oracle", usable=False, ledger=ledger, halt=Stop("failed", "oracle", message))


def _without_flaky(session: SessionState, step: Step, flaky: list[str], report: Report) -> Step:
    """Return the step that sets flaky tests aside, by name, and goes on without them."""
    words = f"It passed once and failed once, {_CONDITIONS}; the code was the same."
    gone = tuple(Quarantined(test=test, reason=FLAKY, words=words) for test in flaky)
    left = tuple(f for f in session.work.findings if f.test not in flaky)
    work = {**step.work, "findings": left, "quarantined": (*session.work.quarantined, *gone)}
    step = replace(step, work=work, notes=(*step.notes, *quarantine_facts(gone)))
    remaining = {*quarantined(session), *flaky}
    if solved(session, report, remaining) or not [t for t in report.failing if t.id not in remaining]:
        settled = after_quarantine(session, report, step)
        return replace(
            settled, done=(*settled.done, "confirming") if "confirming" not in settled.owes else settled.done
        )
    return step


def _failed(session: SessionState, step: Step, results: tuple[TestResult, ...]) -> Step:
    """Return the step on the standing report with these tests failing in it: they are weighed as any other failure."""
    report = session.work.report
    if report is None:
        raise ValueError("there is no run to confirm")
    new = {result.id: result for result in results}
    tests = (*(new.pop(t.id, t) for t in report.tests), *new.values())
    merged = report.model_copy(update={"exit": "tests_failed", "exit_code": 1, "tests": tests})
    key = _key(session)
    # no second look at this program: code that knows when it is tested would pass there
    step = replace(step, ledger={**step.ledger, "evaluated": key, "confirmed": key})
    return weighing.differed(session, merged, step)
