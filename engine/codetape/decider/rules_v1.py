"""The loop as version 1 of the rules had it: tapes that were recorded by it are replayed by it. Frozen.

What has not changed since is taken from the present rules. docs/decisions/0011 says what version 2 does otherwise, and
why.
"""

from dataclasses import replace

from codetape.decider import weighing
from codetape.decider.executions import SETTLED, context_of, no_tests, quarantined, report_of, solved
from codetape.decider.step import Fact, Step, Stop, owed_after
from codetape.decider.triage import owing, script_findings
from codetape.domain.canonical import canonical_without_floats, sha256
from codetape.domain.findings import Checkpoint, Finding, FixCounts, Quarantined
from codetape.domain.report import Report
from codetape.eventlog.events import CodeReverted
from codetape.eventlog.session_state import SessionState
from codetape.rules.classify import classify
from codetape.rules.reclassify import MAX_COUNTED, Reclassification, Reclassified
from codetape.rules.session_view import test_files

UNSETTLED = ("silent", "neither")


def execution_key(session: SessionState) -> str:
    """Return what a run of the tests depends on: where it is as it was, the run is not made again."""
    environment = session.work.environment.name if session.work.environment else ""
    on = [session.work.code, test_files(session), sorted(quarantined(session)), environment]
    return sha256(canonical_without_floats(on))


def standing(session: SessionState) -> Step | None:
    """Return the step where nothing changed since the last run: its report stands, the iteration counts."""
    if session.work.report is None or session.ledger.executed != execution_key(session):
        return None
    return _read(session, session.work.report, "standing")


def executed(session: SessionState) -> Step:
    """Return the step after a run of the tests, or of the script where there are none."""
    return _read(session, report_of(session), "run")


def _read(session: SessionState, report: Report, about: str) -> Step:
    """Weigh a report: solved, a change to revert, or failures with what each owes."""
    iteration = session.ledger.iteration + 1
    base = {
        "iteration": iteration,
        "executed": execution_key(session),
        "code_asks": 0,
        "fix_asks": 0,
        "from_plan": False,
        "cured": weighing.cured(session, report),
    }
    if solved(session, report, quarantined(session)):
        return Step(about, done=SETTLED, ledger=base, work={"report": report, "findings": ()})
    if halt := weighing.broken_user_tests(report):
        return Step(about, usable=False, ledger=base, work={"report": report}, halt=halt)
    if step := _reverted(session, report, base):
        return _bounded(session, step, iteration)
    findings = (
        script_findings(session, report)
        if session.the_config.skip_tests
        else classify(report, context_of(session, session.work.opinions, session.ledger.unjudged))
    )
    before = session.work.checkpoint
    code = before is not None and before.code != session.work.code
    tests = before is not None and before.tests != session.work.tests
    attempts = (
        counted(session.work.attempts, session.work.findings, code=code, tests=tests)
        if before
        else session.work.attempts
    )
    work = {
        "report": report,
        "attempts": attempts,
        "notes": (*session.work.notes, weighing.report_line(iteration, report, findings))[-12:],
    }
    return _bounded(
        session, weighed(session, report, findings, attempts, Step(about, ledger=base, work=work)), iteration
    )


def _bounded(session: SessionState, step: Step, iteration: int) -> Step:
    """The last allowed run failed: the session fails, and keeps what it owes for a resume with a higher limit."""
    passed = "executing" not in owed_after(session, step)  # what failed is quarantined, and what is left is solved
    if step.halt or passed or iteration < session.the_config.max_iterations:
        return step
    message = f"All {iteration} allowed iterations ran, and tests still fail."
    return replace(step, halt=Stop("failed", "iterations", message))


def weighed(
    session: SessionState, report: Report, findings: tuple[Finding, ...], attempts: tuple[FixCounts, ...], base: Step
) -> Step:
    """Turn findings into what is owed, after reclassification and quarantine."""
    reopenable = frozenset(c for c in session.ledger.unjudged if session.ledger.unjudged.count(c) == 1)
    result = reclassify_errors(
        findings,
        attempts,
        max_logic=session.the_config.max_logic_attempts,
        max_test=session.the_config.max_test_attempts,
        reopenable=reopenable,
    )
    gone = tuple(
        Quarantined(test=f.test, reason=f.rule, words=f.words or f.root_cause)
        for f in result.quarantine
        if f.test not in quarantined(session)
    )
    quarantined = (*session.work.quarantined, *gone)
    notes = (*base.notes, *weighing.quarantine_notes(result, gone))
    work = {
        **base.work,
        "findings": result.findings,
        "quarantined": quarantined,
        "checkpoint": Checkpoint(
            code=session.work.code, tests=session.work.tests, report=report, findings=result.findings
        ),
        "fixes": (),
        "missing": (),
        "diagnosis": None,
    }
    ledger = dict(base.ledger)
    step = Step(base.about, usable=base.usable, reason=base.reason, ledger=ledger, work=work, notes=notes)
    if result.spent and not ledger.get("cured", session.ledger.cured):
        return _fresh(session, step)
    if not result.findings:
        return after_quarantine(session, report, step)
    return owing(session, step, result.findings)


def after_quarantine(session: SessionState, report: Report, step: Step) -> Step:
    """Every failing test is quarantined: what is left decides."""
    quarantined = {q.test for q in step.work["quarantined"]}
    if solved(session, report, quarantined):
        return replace(step, done=("executing", "judging", "diagnosing"))
    live = [t for t in report.tests if t.id not in quarantined and t.id not in session.work.vacuous]
    if live:
        return replace(step, done=("judging", "diagnosing"), owes=("executing",))
    return no_tests(session, replace(step, done=("judging", "diagnosing")))


def _fresh(session: SessionState, step: Step) -> Step:
    """Both ways are spent: one sample from the plan, with the counts at zero; after that the session is stalled."""
    if session.ledger.fresh:
        message = "The same tests kept failing after every fix, and after one fresh attempt from the plan."
        return replace(step, halt=Stop("failed", "stalled", message))
    return replace(
        step,
        reason="fresh",
        owes=("coding", "resolving", "executing"),
        done=("judging", "diagnosing", "fixing_tests"),
        ledger={**step.ledger, "fresh": True, "from_plan": True},
        work={**step.work, "attempts": (), "fixes": (), "checkpoint": None},
    )


def _reverted(session: SessionState, report: Report, base: dict[str, object]) -> Step | None:
    """Return the step back where a change of code broke what had passed, and cured nothing."""
    before = session.work.checkpoint
    if before is None or before.code == session.work.code or session.the_config.skip_tests:
        return None
    broken = weighing.broken_since(session, report, before)
    if not broken or weighing.cured(session, report):
        return None
    attempt = f"A change broke {', '.join(broken[:5])} and mended nothing: it was taken back."
    attempts = counted(session.work.attempts, before.findings, code=True, tests=before.tests != session.work.tests)
    logic = any(f.error_type in ("logic", None) for f in before.findings)
    return Step(
        "run",
        reason="reverted",
        done=("judging", "diagnosing", "fixing_tests"),
        owes=("coding", "resolving", "executing") if logic else ("fixing_tests", "resolving", "executing"),
        ledger={**base, "executed": ""},
        work={
            "code": before.code,
            "report": before.report,
            "findings": before.findings,
            "attempts": attempts,
            "missing": (),
            "notes": (*session.work.notes, attempt)[-12:],
        },
        notes=(Fact(CodeReverted, {"broken": broken}, {"attempt": attempt}),),
    )


def counted(
    attempts: tuple[FixCounts, ...], before: tuple[Finding, ...], *, code: bool, tests: bool
) -> tuple[FixCounts, ...]:
    """Return the counts after a run: each earlier failure has met the changes of its kind that were made.

    Of many failures the oldest that the last run did not have are forgotten, so that a long session stays linear.
    """
    counts = {a.signature: a for a in attempts}
    for finding in before:
        old = counts.get(finding.signature, FixCounts(signature=finding.signature))
        counts[finding.signature] = old.model_copy(
            update={
                "logic": old.logic + (code and finding.error_type == "logic"),
                "test": old.test + (tests and finding.error_type == "test_error"),
                "error_type": finding.error_type,
            }
        )
    present = {finding.signature for finding in before}
    absent = [signature for signature in counts if signature not in present]
    for signature in absent[: max(0, len(counts) - MAX_COUNTED)]:
        del counts[signature]
    return tuple(counts.values())


def reclassify_errors(
    findings: tuple[Finding, ...],
    attempts: tuple[FixCounts, ...],
    *,
    max_logic: int,
    max_test: int,
    reopenable: frozenset[str],
) -> Reclassification:
    """Change the class of failures that outlived more fixes of one kind than allowed.

    A change to test_error needs an opinion that agrees, so an unjudged one is opened again for an opinion, once
    (its call is in ``reopenable``); a test that an opinion refuted never becomes logic: it is quarantined.
    """
    counts = {a.signature: a for a in attempts}
    kept: list[Finding] = []
    changed: list[Reclassified] = []
    quarantine: list[Finding] = []
    spent: list[Finding] = []
    reopened: list[str] = []
    for finding in findings:
        count = counts.get(finding.signature, FixCounts(signature=finding.signature))
        times = count.logic + count.test + 1
        if finding.rule in UNSETTLED:
            quarantine.append(finding)
            continue
        if finding.error_type == "test_error" and count.test > max_test:
            if finding.judged == "refuted":
                quarantine.append(finding)
                continue
            cause = f"The test failed {times} times, and fixing it did not help. The code could be wrong."
            new = finding.model_copy(update={"error_type": "logic", "rule": "reclassified", "root_cause": cause})
            if count.error_type != "logic":
                changed.append(Reclassified(new, "test_error", times))
            if count.logic > max_logic:
                spent.append(new)
            kept.append(new)
        elif finding.error_type == "logic" and count.logic > max_logic:
            if finding.call and finding.call in reopenable:
                reopened.append(finding.call)
                kept.append(finding.model_copy(update={"error_type": None, "rule": "in_doubt", "judged": "no"}))
                continue
            spent.append(finding)
            kept.append(finding)
        else:
            if finding.judged == "refuted" and count.error_type == "logic":
                changed.append(Reclassified(finding, "logic", times))
            kept.append(finding)
    return Reclassification(tuple(kept), tuple(changed), tuple(quarantine), tuple(spent), tuple(reopened))
