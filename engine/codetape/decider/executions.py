"""Executions: what is run, whether a report solves the task, and what vetting and the oracle mean."""

from collections.abc import Iterable, Mapping

from codetape.decider.step import Step, Stop
from codetape.domain.canonical import canonical_without_floats, sha256
from codetape.domain.job import USUAL, Conditions, Job
from codetape.domain.package_names import bare
from codetape.domain.reply_shapes import Opinion
from codetape.domain.report import Report
from codetape.domain.task import ORACLE_FILE, SOLUTION_FILE
from codetape.eventlog.session_state import SessionState
from codetape.rules.classify import Context, expected_names, missing_tests
from codetape.rules.packages import spec_of
from codetape.rules.pytest_source import function_id, stub
from codetape.rules.session_view import test_files


def job(session: SessionState) -> Job:
    """Return what the state wants executed: tests against the stub or the code, the oracle, or the script."""
    purpose = {"vetting": "vet", "proving": "oracle"}.get(session.state, "run")
    if session.the_config.skip_tests and purpose == "run":
        purpose = "script"
    files = {"oracle": {ORACLE_FILE: session.the_task.oracle}, "script": {}}.get(purpose, test_files(session))
    code = stub(session.work.code) if purpose == "vet" else session.work.code
    left_out = () if purpose == "oracle" else left_out_of(session)
    return job_for(session, purpose, files, code=code, deselect=left_out)


def left_out_of(session: SessionState) -> tuple[str, ...]:
    """Return the ids of the quarantined tests: files are left out by not being laid out."""
    return tuple(q.test for q in session.work.quarantined if "::" in q.test)


def job_for(
    session: SessionState,
    purpose: str,
    files: Mapping[str, str],
    *,
    code: str = "",
    targets: Iterable[str] | None = None,
    deselect: Iterable[str] = (),
    conditions: Conditions = USUAL,
) -> Job:
    """Return an execution of files beside the session's code, or other ``code``, under what the session is set to.

    ``targets`` are the files that are run; all of them by default.
    """
    return Job.model_validate(
        {
            "purpose": purpose,
            "spec": spec_of(session),
            "files": {SOLUTION_FILE: code or session.work.code, **files},
            "targets": tuple(files if targets is None else targets),
            "deselect": tuple(deselect),
            "inputs": session.the_task.inputs,
            "outputs": session.the_task.outputs,
            "resources": session.the_config.resources,
            "env": session.the_config.env_vars,
            "conditions": conditions,
        }
    )


def nothing_to_vet(session: SessionState) -> Step | None:
    """Return the step out of vetting where there is no test, or nothing to empty; else None."""
    if not test_files(session):
        return no_tests(session, Step("vet", done=("vetting",)))
    return None


def vetted(session: SessionState) -> Step:
    """Return the step after the tests ran against the stub: those that pass there are vacuous."""
    report = report_of(session)
    at_solution = [t for t in report.failing if t.frames and t.frames[-1].file == SOLUTION_FILE]
    module_broke = any("::" not in t.id for t in at_solution)
    vacuous = () if module_broke or (report.exit != "ok" and not report.tests) else report.passed
    step = Step("vet", done=("vetting",), work={"vacuous": tuple(vacuous)})
    hidden = {function_id(test) for test in quarantined(session)}
    expected = {name for name in expected_names(test_files(session)) if name not in hidden}
    ran = {function_id(t.id) for t in report.tests}
    idle = {function_id(t) for t in vacuous} - {function_id(t.id) for t in report.failing}
    return step if (expected - idle) or not (expected & ran) else no_tests(session, step)


def no_tests(session: SessionState, step: Step) -> Step:
    """No test that counts is left: they are written again once, then the session fails."""
    if not session.ledger.rewritten:
        return Step(
            step.about,
            reason="no_tests",
            done=(*step.done, "vetting"),
            owes=("writing_tests", "resolving", "executing"),
            ledger={**step.ledger, "rewritten": True},
            work=step.work,
            notes=step.notes,
        )
    message = "No test that counts is left, and they were written anew once already."
    return Step(
        step.about, ledger=step.ledger, work=step.work, notes=step.notes, halt=Stop("failed", "no_tests", message)
    )


def quarantined(session: SessionState) -> set[str]:
    """Return the ids of the tests that run no more."""
    return {q.test for q in session.work.quarantined}


def report_of(session: SessionState) -> Report:
    """Return the report of the execution that was just closed."""
    if session.outcome is None or session.outcome.report is None:
        raise ValueError("no execution was closed")
    return session.outcome.report


def execution_key(session: SessionState, report: Report, code: str | None = None) -> str:
    """Return what a run of the tests that gave a report depended on, with other code where that is given.

    What is quarantined is part of it only where the run did not end well: leaving out the test that ended it tells more
    of
    the others, leaving out one that just failed does not.
    """
    environment = session.work.environment.name if session.work.environment else ""
    left_out = [] if report.whole and report.exit in ("ok", "tests_failed") else sorted(quarantined(session))
    on = [session.work.code if code is None else code, test_files(session), environment, left_out]
    return sha256(canonical_without_floats(on))


def plain_key(session: SessionState) -> str:
    """Return what a run of the tests depends on, whatever is quarantined."""
    return execution_key(session, Report(exit="ok", whole=True))


SETTLED = ("executing", "judging", "diagnosing", "coding", "fixing_tests")
"""States that a run in which nothing fails has nothing left for."""


def confirming_owed(session: SessionState) -> tuple[str, ...]:
    """Return what a run that passed owes before it is a success: to be confirmed."""
    return ("confirming",) if session.rules > 2 and not session.the_config.skip_tests else ()


def context_of(
    session: SessionState, opinions: tuple[Opinion, ...], unjudged: tuple[str, ...], code: str | None = None
) -> Context:
    """Return what the rules need beside a report, of other code than the present where that is given."""
    spec = spec_of(session)
    return Context(
        files=test_files(session),
        python=session.the_config.python_version,
        installed=frozenset(bare(p) for p in spec.all_packages),
        unavailable=frozenset(session.ledger.unavailable),
        opinions=opinions,
        unjudged=frozenset(unjudged),
        hidden=frozenset(function_id(test) for test in quarantined(session)),
        doubted=frozenset(session.ledger.doubted),
        code=session.work.code if code is None else code,
        version=session.rules,
    )


def solved(session: SessionState, report: Report, quarantined: set[str]) -> bool:
    """Whether the report is whole, every expected test ran, one that counts passed, and none failed."""
    if session.the_config.skip_tests:
        return report.exit == "ok" and not missing_outputs(session, report)
    hidden = {function_id(test) for test in quarantined}
    absent = missing_tests(report, test_files(session), hidden)
    bad = [t for t in report.failing if t.id not in quarantined]
    good = [t for t in report.passed if t not in quarantined and t not in session.work.vacuous]
    explained = report.exit == "ok" or (report.exit == "tests_failed" and bool(report.failing))
    return report.whole and explained and not absent and not bad and bool(good)


def missing_outputs(session: SessionState, report: Report) -> list[str]:
    """Return the declared outputs that an execution did not leave."""
    there = {o.path.partition("/")[0] for o in report.outputs}
    return [o.name for o in session.the_task.outputs if o.name not in there]


def proven(session: SessionState) -> Step:
    """Return the end: the oracle passed whole, or it did not. It is never tried again."""
    report = report_of(session)
    absent = missing_tests(report, {ORACLE_FILE: session.the_task.oracle})
    if report.exit == "ok" and report.whole and report.passed and not report.failing and not absent:
        if session.rules > 2:
            return Step("oracle", ledger={"proven": True}, target="proving")
        return Step("oracle", done=("proving",))
    failed = ", ".join(t.id for t in report.failing[:5]) or report.exit
    message = f"The tests passed, but the oracle does not: {failed}."
    return Step("oracle", usable=False, halt=Stop("failed", "oracle", message))
