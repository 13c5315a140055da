"""The failures of a report: what the rules say of them, and what they owe."""

from dataclasses import replace

from codetape.decider.executions import (
    SETTLED,
    confirming_owed,
    context_of,
    execution_key,
    missing_outputs,
    no_tests,
    quarantined,
    solved,
)
from codetape.decider.step import Step
from codetape.domain.findings import Finding
from codetape.domain.report import IDLE, Report
from codetape.eventlog.session_state import SessionState
from codetape.rules.classify import SESSION, classify


def findings_of(session: SessionState, report: Report, code: str | None = None) -> tuple[Finding, ...]:
    """Return what the rules say of a report, of other code where that is given, with the opinions had so far."""
    if session.the_config.skip_tests:
        return script_findings(session, report)
    gone = quarantined(session)  # a report that stands still names what was set aside since
    return tuple(
        f
        for f in classify(report, context_of(session, session.work.opinions, session.ledger.unjudged, code))
        if f.test not in gone
    )


def script_findings(session: SessionState, report: Report) -> tuple[Finding, ...]:
    """Return what a failing run of the script means; it has no tests to name."""
    missing = missing_outputs(session, report)
    cause = f"The script did not write: {', '.join(missing)}." if missing else f"The script ended with {report.exit}."
    rule = "missing_output" if missing else report.exit
    return (Finding(test=SESSION, error_type="logic", rule=rule, signature=f"{SESSION} {rule}", root_cause=cause),)


def owing(session: SessionState, step: Step, findings: tuple[Finding, ...]) -> Step:
    """Return the step with what the findings owe: opinions, a diagnosis, fixed tests, packages; then a run."""
    environment = [f for f in findings if f.error_type == "environment"]
    doubt = any(f.rule == "in_doubt" and f.error_type is None for f in findings)
    asks = any(
        f.error_type == "logic" or (f.error_type is None and f.rule != "in_doubt") or f.rule == "missing_library"
        for f in findings
    )
    tests = any(f.error_type == "test_error" for f in findings)
    modules = {*session.ledger.modules, *(f.module for f in environment if f.module)}
    owes = (
        *(("judging",) if doubt else ()),
        *(("diagnosing",) if asks else ()),
        *(("fixing_tests",) if tests else ()),
        *(("resolving",) if environment else ()),
        "executing",
    )
    done = tuple(s for s in ("judging", "diagnosing", "coding", "fixing_tests") if s not in owes)
    ledger = {**step.ledger, "modules": tuple(sorted(modules))} if modules else dict(step.ledger)
    if gone := {f.module for f in findings if f.rule == "unavailable" and f.module}:
        ledger["unavailable"] = tuple(sorted({*session.ledger.unavailable, *gone}))
    return replace(step, owes=owes, done=done, ledger=ledger)


def after_quarantine(session: SessionState, report: Report, step: Step) -> Step:
    """Every failing test is quarantined: what is left decides."""
    quarantined = {q.test for q in step.work["quarantined"]}
    if solved(session, report, quarantined):
        return replace(_as_good_before(session, step, quarantined), done=SETTLED, owes=confirming_owed(session))
    idle = IDLE if session.rules > 2 else ()
    live = [
        t
        for t in report.tests
        if t.id not in quarantined and t.id not in session.work.vacuous and t.outcome not in idle
    ]
    if live:
        return replace(step, done=("judging", "diagnosing"), owes=("executing",))
    return no_tests(session, replace(step, done=("judging", "diagnosing")))


def _as_good_before(session: SessionState, step: Step, quarantined: set[str]) -> Step:
    """Return the step with the best program where what is left passes on it too: a change made for a test that is set
    aside has no reason any more."""
    best = step.work.get("best", session.work.best)
    same = best is None or best.code == step.work.get("code", session.work.code)
    if session.rules < 3 or best is None or same or best.tests != step.work.get("tests", session.work.tests):
        return step
    if not solved(session, best.report, quarantined):
        return step
    ledger = {**step.ledger, "executed": execution_key(session, best.report, best.code)}
    return replace(step, ledger=ledger, work={**step.work, "code": best.code, "report": best.report})
