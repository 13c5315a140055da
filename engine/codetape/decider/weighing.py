"""Reports of test runs: what each means for the rest of the run."""

from dataclasses import replace

from codetape.decider.executions import (
    SETTLED,
    confirming_owed,
    execution_key,
    plain_key,
    quarantined,
    report_of,
    solved,
)
from codetape.decider.remedies import (
    ask_person,
    best_of,
    better,
    is_drawn,
    looks_right,
    outvoted,
    spent,
    told,
    vote,
)
from codetape.decider.step import Fact, Step, Stop, owed_after, quarantine_facts
from codetape.decider.triage import after_quarantine, findings_of, owing
from codetape.domain.findings import EXAMPLE, Checkpoint, Finding, FixCounts, Quarantined
from codetape.domain.report import Report
from codetape.domain.task import USER_FILE
from codetape.eventlog.events import CodeReverted, FailureReclassified
from codetape.eventlog.session_state import SessionState
from codetape.rules.assertion_claims import amended
from codetape.rules.pytest_source import file_of, text_of
from codetape.rules.reclassify import DROPPED, TESTS_ALONE, UNSETTLED, Reclassification, counted, reclassify_errors

MAX_TRIED, SHORT = 64, 16  # runs that are remembered, so that none is made twice, and characters of each one's key


def standing(session: SessionState) -> Step | None:
    """Return the step where a run would tell nothing new, for the same was made: it is neither made nor counted.

    Whatever was asked for since the last report is a spent attempt.
    """
    report = session.work.report
    key = execution_key(session, report) if report else ""
    if report is None or (key != session.ledger.executed and key[:SHORT] not in session.ledger.tried):
        return None
    base: dict[str, object] = {"code_asks": 0, "fix_asks": 0, "from_plan": False, "cured": False, "executed": key}
    if key != session.ledger.executed:  # a program that failed before the last one did
        stands = [stand for stand in (session.work.checkpoint, session.work.best) if stand is not None]
        same = next((s for s in stands if (s.code, s.tests) == (session.work.code, session.work.tests)), None)
        if same is None and stands:
            attempt = "A change led back to a program that had failed already: it was not run again."
            return _taken_back(session, stands[0], base, "standing", attempt)
        if same is None:
            return None
        report = same.report
    if solved(session, report, quarantined(session)):
        owes = confirming_owed(session)
        return Step("standing", done=SETTLED, owes=owes, ledger=base, work={"report": report, "findings": ()})
    again = confirming_owed(session) and session.the_config.sandbox.confirms
    if key == session.ledger.executed and again and session.ledger.confirmed != plain_key(session):
        return Step("standing", owes=("confirming",))  # a second look, before more is paid for the same failure
    attempts = counted(session.work.attempts, session.work.findings, code=True, tests=True)
    step = Step("standing", ledger=base, work={"report": report, "attempts": attempts})
    return weighed(session, report, findings_of(session, report), attempts, step)


def executed(session: SessionState) -> Step:
    """Return the step after a run of the tests, or of the script where there are none."""
    return _read(session, report_of(session), "run")


def _read(session: SessionState, report: Report, about: str) -> Step:
    """Weigh a report: solved, a change to revert, or failures with what each owes."""
    iteration, key = session.ledger.iteration + 1, execution_key(session, report)
    base: dict[str, object] = {
        "iteration": iteration,
        "executed": key,
        "code_asks": 0,
        "fix_asks": 0,
        "from_plan": False,
        "cured": cured(session, report),
    }
    before = session.work.checkpoint
    code = before is not None and before.code != session.work.code
    tests = before is not None and before.tests != session.work.tests
    attempts = counted(session.work.attempts, session.work.findings, code=code, tests=tests) if before else ()
    if solved(session, report, quarantined(session)):
        owes = confirming_owed(session)
        work = {"report": report, "findings": (), **({"attempts": attempts} if owes else {})}
        return Step(about, done=SETTLED, owes=owes, ledger=base, work=work)
    findings = findings_of(session, report)
    if halt := broken_user_tests(report) or _uncollected_user_tests(session, findings):
        return Step(about, usable=False, ledger=base, work={"report": report}, halt=halt)
    base["tried"] = (*session.ledger.tried, key[:SHORT])[-MAX_TRIED:]
    if step := _reverted(session, report, base):
        return _bounded(session, step, iteration)
    work = {
        "report": report,
        "attempts": attempts,
        "notes": (*session.work.notes, report_line(iteration, report, findings))[-12:],
    }
    return _bounded(
        session, weighed(session, report, findings, attempts, Step(about, ledger=base, work=work)), iteration
    )


def broken_user_tests(report: Report) -> Stop | None:
    """Given tests that cannot be imported, by their own fault, are wrong use.

    The stub is no witness: only a real run is.
    """
    for result in report.failing:
        own = not result.frames or result.frames[-1].file == USER_FILE
        missing = result.exception in ("ModuleNotFoundError", "ImportError")
        if file_of(result.id) == USER_FILE and "::" not in result.id and own and not missing:
            message = f"The given tests do not collect: {result.exception}: {result.message[:300]}"
            return Stop("failed", "user_tests", message)
    return None


def _uncollected_user_tests(session: SessionState, findings: tuple[Finding, ...]) -> Stop | None:
    """Given tests that pytest does not collect are wrong use too."""
    for finding in findings if session.rules > 2 else ():
        if finding.test == USER_FILE and finding.rule == "not_collected":
            return Stop("failed", "user_tests", f"Of the given tests, {finding.root_cause}")
    return None


def _bounded(session: SessionState, step: Step, iteration: int) -> Step:
    """The last allowed run failed: what own tests claim against the rest is set aside, or the session fails.

    It keeps what it owes for a resume with a higher limit.
    """
    passed = "executing" not in owed_after(session, step)  # what failed is quarantined, and what is left is solved
    if step.halt or passed or iteration < session.the_config.max_iterations:
        return step
    message = f"All {iteration} allowed iterations ran, and tests still fail."
    step = best_of(session, step, last=True)
    stands = "tests" not in step.work and step.work.get("checkpoint") is not None  # no report stands over changed tests
    if stands and (aside := outvoted(session, step)) and _met(session, step, aside):
        return vote(session, step, aside)
    said = f"{message}{looks_right(session, step)}" if step.work.get("checkpoint") is not None else message
    return replace(step, halt=Stop("failed", "iterations", said))


def _met(session: SessionState, step: Step, findings: tuple[Finding, ...]) -> bool:
    """Whether each failure has outlived the attempts at it: what was never judged or met by a change is not voted
    on."""
    counts = {a.signature: a.logic for a in step.work.get("attempts", session.work.attempts)}
    return all(counts.get(f.signature, 0) > session.the_config.max_logic_attempts for f in findings)


def weighed(
    session: SessionState, report: Report, findings: tuple[Finding, ...], attempts: tuple[FixCounts, ...], base: Step
) -> Step:
    """Turn findings into what is owed, after reclassification and quarantine. ``base`` may set the code back."""
    kept = _kept_by_a_person(session)
    findings = tuple(_kept(f) if f.test in kept else f for f in findings)
    reopenable = frozenset(c for c in session.ledger.unjudged if session.ledger.unjudged.count(c) == 1)
    result = reclassify_errors(
        findings,
        attempts,
        max_logic=session.the_config.max_logic_attempts,
        max_test=session.the_config.max_test_attempts,
        reopenable=reopenable,
    )
    known = quarantined(session)
    quarantine = tuple(f for f in (*result.quarantine, *_dropped(session, result.findings)) if f.test not in known)
    gone = tuple(Quarantined(test=f.test, reason=_reason(f), words=f.words or f.root_cause) for f in quarantine)
    left = tuple(f for f in result.findings if f not in quarantine and f.test not in known)
    code = base.work.get("code", session.work.code)
    stand = Checkpoint(code=code, tests=session.work.tests, report=report, findings=left)
    work = {
        **base.work,
        "findings": left,
        "quarantined": (*session.work.quarantined, *gone),
        "checkpoint": stand,
        "best": better(session, stand, {*known, *(q.test for q in gone)}),
        "fixes": (),
        "missing": (),
        "diagnosis": None,
    }
    step = replace(base, ledger=dict(base.ledger), work=work, notes=(*base.notes, *quarantine_notes(result, gone)))
    if asked := _for_a_person(session, result.quarantine):
        return ask_person(session, replace(step, work={**work, "quarantined": session.work.quarantined}), asked)
    if not left:
        return after_quarantine(session, report, step)
    if mended := _amended(session, report, left):
        return replace(
            step,
            work={**step.work, "tests": mended},
            owes=("resolving", "vetting", "executing"),
            done=("judging", "diagnosing", "coding", "fixing_tests"),
        )
    doubt = any(f.rule == "in_doubt" for f in left)
    if result.spent and not doubt and not step.ledger.get("cured", session.ledger.cured):
        return spent(session, step)
    return owing(session, step, left)


def _for_a_person(session: SessionState, quarantine: tuple[Finding, ...]) -> Finding | None:
    """Return an example that readers take for wrong, where a person wants to be asked, and has not answered yet."""
    if not session.the_config.strict_examples:
        return None
    answers = dict(session.answers)
    return next((f for f in quarantine if f.rule == "cannot_hold" and EXAMPLE + f.test not in answers), None)


def differed(session: SessionState, report: Report, step: Step) -> Step:
    """Return the step after a confirming run that came out otherwise: ``report`` is the standing one, with what failed
    then failing in it."""
    findings = findings_of(session, report)
    note = report_line(session.ledger.iteration, report, findings)
    work = {**step.work, "report": report, "notes": (*session.work.notes, f"Run again elsewhere. {note}")[-12:]}
    step = replace(step, ledger={**step.ledger, "cured": False}, work=work)  # what passed does not last
    step = weighed(session, report, findings, session.work.attempts, step)
    step = _bounded(session, step, session.ledger.iteration)
    return replace(step, done=(*step.done, "confirming"))


def _kept_by_a_person(session: SessionState) -> set[str]:
    """Return the tests that a person said stand, whoever else calls them wrong."""
    if session.rules < 3:
        return set()
    return {subject.removeprefix(EXAMPLE) for subject, answer in session.answers if answer == "deny"}


def _kept(finding: Finding) -> Finding:
    """Return a failure of a test that a person said stands: the code's fault."""
    update = {
        "error_type": "logic",
        "rule": "upheld",
        "judged": "upheld",
        "root_cause": "A person said that it stands.",
    }
    return finding.model_copy(update=update)


def _reason(finding: Finding) -> str:
    known = finding.rule in (*UNSETTLED, *TESTS_ALONE) or finding.judged == "refuted"
    return finding.rule if known else DROPPED


def _dropped(session: SessionState, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return the failing examples that a person said may be set aside."""
    answers = dict(session.answers)
    return tuple(f for f in findings if answers.get(EXAMPLE + f.test) == "allow")


def _amended(session: SessionState, report: Report, findings: tuple[Finding, ...]) -> str:
    """Return the test file with what two opinions agree on in the place of wrong expectations; empty where there are
    none."""
    results, tests = {t.id: t for t in report.tests}, session.work.tests
    for finding in findings:
        said = [o for o in session.work.opinions if o.test == finding.call]
        if finding.rule == "third" and said and said[-1].verdict == "value" and finding.test in results:
            tests = amended(tests, results[finding.test], said[-1].value) or tests
    return tests if tests != session.work.tests else ""


def cured(session: SessionState, report: Report) -> bool:
    """Whether a test that failed before passes now; a first report cures by being the first."""
    before = session.work.checkpoint
    return before is None or any(report.outcome_of(t.id) == "passed" for t in before.report.failing)


def broken_since(session: SessionState, report: Report, before: Checkpoint) -> tuple[str, ...]:
    """Return the tests in force that passed at the checkpoint, fail now, and say the same as then."""
    return tuple(
        t.id
        for t in report.failing
        if before.report.outcome_of(t.id) == "passed"
        and text_of(before.tests, t.id) == text_of(session.work.tests, t.id)
        and t.id not in quarantined(session)
    )


def quarantine_notes(result: Reclassification, gone: tuple[Quarantined, ...]) -> tuple[Fact, ...]:
    """Return the facts of a reclassification: changed classes, and tests that run no more."""
    changed = tuple(
        Fact(
            FailureReclassified,
            {"test": c.finding.test, "before": c.before, "after": c.finding.error_type, "times": c.times},
            {"root_cause": c.finding.root_cause},
        )
        for c in result.changed
    )
    return (
        *changed,
        *quarantine_facts(gone),
    )


def _reverted(session: SessionState, report: Report, base: dict[str, object]) -> Step | None:
    """Return the step back where a change of code cured nothing, and broke what had passed or changed nothing to be
    seen."""
    before = session.work.checkpoint
    if before is None or before.code == session.work.code or session.the_config.skip_tests:
        return None
    broken = broken_since(session, report, before)
    if cured(session, report) or not (broken or _nothing_to_see(session, report, before)):
        return None
    what = f"A change broke {', '.join(broken[:5])} and" if broken else "A change"
    attempt = f"{what} mended nothing: it was taken back."
    note = Fact(CodeReverted, {"broken": broken}, {"attempt": attempt})
    return _taken_back(session, before, base, "run", attempt, note)


def _nothing_to_see(session: SessionState, report: Report, before: Checkpoint) -> bool:
    """Whether a change left every test as it was: what failed fails in the same words."""
    if session.rules < 3 or before.tests != session.work.tests or is_drawn(session, session.work.code):
        return False
    return told(report) == told(before.report)


def _taken_back(
    session: SessionState, before: Checkpoint, base: dict[str, object], about: str, attempt: str, *notes: Fact
) -> Step:
    """Return the step back to the code before a change: a spent attempt, whose fixes are forgotten.

    The earlier report is weighed again; where the tests were changed since, it does not stand, and they are run.
    """
    changed = before.tests != session.work.tests
    attempts = counted(session.work.attempts, before.findings, code=True, tests=changed)
    work = {
        "code": before.code,
        "attempts": attempts,
        "fixes": (),
        "missing": (),
        "diagnosis": None,
        "notes": (*session.work.notes, attempt)[-12:],
    }
    step = Step(about, reason="reverted", work=work, notes=notes)
    if changed:
        return replace(
            step,
            ledger=base,
            done=("judging", "diagnosing", "coding", "fixing_tests"),
            owes=("resolving", "executing"),
        )
    ledger = {**base, "executed": execution_key(session, before.report, before.code)}
    step = replace(step, ledger=ledger, work={**work, "report": before.report})
    findings = findings_of(session, before.report, before.code)
    return weighed(session, before.report, findings, attempts, step)


def report_line(iteration: int, report: Report, findings: tuple[Finding, ...]) -> str:
    """Return a run in one line, for the prompts that follow."""
    names = ", ".join(f"{f.test} ({f.exception or f.rule})" for f in findings[:5])
    more = f" and {len(findings) - 5} more" if len(findings) > 5 else ""
    return f"Run {iteration}: {len(report.passed)} passed, {len(findings)} failed: {names}{more}."
