"""Executions: what is run, and what a report means for the rest of the run."""

from dataclasses import replace

from codetape.artefacts import (
    ORACLE_FILE,
    SOLUTION_FILE,
    USER_FILE,
    Attempts,
    Checkpoint,
    Finding,
    Opinion,
    Quarantined,
    Report,
)
from codetape.canonical import canonical, sha256
from codetape.commands import Job
from codetape.decide.builds import spec_of
from codetape.decide.step import Halt, Note, Step, owed_after
from codetape.events import CodeReverted, FailureReclassified, TestQuarantined
from codetape.packages import bare
from codetape.prompts import test_files
from codetape.run import Run
from codetape.suites import file_of, stub, text_of
from codetape.verdict import (
    SESSION,
    Context,
    Reclassification,
    classify,
    counted,
    expected_names,
    function_id,
    missing_tests,
    reclassify_errors,
)


def job(run: Run) -> Job:
    """Return what the state wants executed: tests against the stub or the code, the oracle, or the script."""
    purpose = {"vetting": "vet", "proving": "oracle"}.get(run.state, "run")
    if run.the_config.skip_tests and purpose == "run":
        purpose = "script"
    files = {"oracle": {ORACLE_FILE: run.the_task.oracle}, "script": {}}.get(purpose, test_files(run))
    code = stub(run.work.code) if purpose == "vet" else run.work.code
    return Job.model_validate(
        {
            "purpose": purpose,
            "spec": spec_of(run),
            "files": {SOLUTION_FILE: code, **files},
            "targets": tuple(files),
            "deselect": () if purpose == "oracle" else tuple(q.test for q in run.work.quarantined if "::" in q.test),
            "inputs": run.the_task.inputs,
            "outputs": run.the_task.outputs,
            "resources": run.the_config.resources,
            "env": run.the_config.env_vars,
        }
    )


# ---- vetting


def nothing_to_vet(run: Run) -> Step | None:
    """Return the step out of vetting where there is no test, or nothing to empty; else None."""
    if not test_files(run):
        return _no_tests(run, Step("vet", done=("vetting",)))
    return None


def vetted(run: Run) -> Step:
    """Return the step after the tests ran against the stub: those that pass there are vacuous."""
    report = _report(run)
    at_solution = [t for t in report.failing if t.frames and t.frames[-1].file == SOLUTION_FILE]
    module_broke = any("::" not in t.id for t in at_solution)
    vacuous = () if module_broke or (report.exit != "ok" and not report.tests) else report.passed
    step = Step("vet", done=("vetting",), work={"vacuous": tuple(vacuous)})
    hidden = {function_id(test) for test in _quarantined(run)}
    expected = {name for name in expected_names(test_files(run)) if name not in hidden}
    ran = {function_id(t.id) for t in report.tests}
    idle = {function_id(t) for t in vacuous} - {function_id(t.id) for t in report.failing}
    return step if (expected - idle) or not (expected & ran) else _no_tests(run, step)


def _no_tests(run: Run, step: Step) -> Step:
    """No test that counts is left: they are written anew once, then the session fails."""
    if not run.ledger.rewritten:
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
    return Step(step.about, ledger=step.ledger, work=step.work, notes=step.notes, halt=Halt("failed", "no_tests", message))  # fmt: skip


def _quarantined(run: Run) -> set[str]:
    return {q.test for q in run.work.quarantined}


# ---- executing


def execution_key(run: Run) -> str:
    """Return what a run of the tests depends on: where it is as it was, the run is not made again."""
    environment = run.work.environment.name if run.work.environment else ""
    return sha256(canonical([run.work.code, test_files(run), sorted(_quarantined(run)), environment]))


def standing(run: Run) -> Step | None:
    """Return the step where nothing changed since the last run: its report stands, the iteration counts."""
    if run.work.report is None or run.ledger.executed != execution_key(run):
        return None
    return _read(run, run.work.report, "standing")


def executed(run: Run) -> Step:
    """Return the step after a run of the tests, or of the script where there are none."""
    return _read(run, _report(run), "run")


def _report(run: Run) -> Report:
    if run.outcome is None or run.outcome.report is None:
        raise ValueError("no execution was closed")
    return run.outcome.report


def context_of(run: Run, opinions: tuple[Opinion, ...], unjudged: tuple[str, ...]) -> Context:
    """Return what the rules need beside a report."""
    spec = spec_of(run)
    return Context(
        files=test_files(run),
        python=run.the_config.python_version,
        installed=frozenset(bare(p) for p in spec.all_packages),
        unavailable=frozenset(run.ledger.unavailable),
        opinions=opinions,
        unjudged=frozenset(unjudged),
        hidden=frozenset(function_id(test) for test in _quarantined(run)),
    )


def solved(run: Run, report: Report, quarantined: set[str]) -> bool:
    """Whether the report is whole, every expected test ran, one that counts passed, and none failed."""
    if run.the_config.skip_tests:
        return report.exit == "ok" and not _missing_outputs(run, report)
    hidden = {function_id(test) for test in quarantined}
    absent = {name for name in missing_tests(report, test_files(run)) if name not in hidden}
    bad = [t for t in report.failing if t.id not in quarantined]
    good = [t for t in report.passed if t not in quarantined and t not in run.work.vacuous]
    explained = report.exit == "ok" or (report.exit == "tests_failed" and bool(report.failing))
    return report.whole and explained and not absent and not bad and bool(good)


def _missing_outputs(run: Run, report: Report) -> list[str]:
    there = {o.path.partition("/")[0] for o in report.outputs}
    return [o.name for o in run.the_task.outputs if o.name not in there]


def _read(run: Run, report: Report, about: str) -> Step:
    """Weigh a report: solved, a change to revert, or failures with what each owes."""
    iteration = run.ledger.iteration + 1
    base = {
        "iteration": iteration,
        "executed": execution_key(run),
        "code_asks": 0,
        "fix_asks": 0,
        "from_plan": False,
        "cured": _cured(run, report),
    }
    if solved(run, report, _quarantined(run)):
        done = ("executing", "judging", "diagnosing", "coding", "fixing_tests")
        return Step(about, done=done, ledger=base, work={"report": report, "findings": ()})
    if halt := _broken_user_tests(report):
        return Step(about, usable=False, ledger=base, work={"report": report}, halt=halt)
    if step := _reverted(run, report, base):
        return _bounded(run, step, iteration)
    findings = (
        _script(run, report)
        if run.the_config.skip_tests
        else classify(report, context_of(run, run.work.opinions, run.ledger.unjudged))
    )
    before = run.work.checkpoint
    code = before is not None and before.code != run.work.code
    tests = before is not None and before.tests != run.work.tests
    attempts = counted(run.work.attempts, run.work.findings, code=code, tests=tests) if before else run.work.attempts
    work = {
        "report": report,
        "attempts": attempts,
        "notes": (*run.work.notes, _line(iteration, report, findings))[-12:],
    }
    return _bounded(run, weighed(run, report, findings, attempts, Step(about, ledger=base, work=work)), iteration)


def _broken_user_tests(report: Report) -> Halt | None:
    """Given tests that do not collect, by their own fault, are wrong use. The stub is no witness: only a real run is."""
    for result in report.failing:
        own = not result.frames or result.frames[-1].file == USER_FILE
        missing = result.exception in ("ModuleNotFoundError", "ImportError")
        if file_of(result.id) == USER_FILE and "::" not in result.id and own and not missing:
            message = f"The given tests do not collect: {result.exception}: {result.message[:300]}"
            return Halt("failed", "user_tests", message)
    return None


def _bounded(run: Run, step: Step, iteration: int) -> Step:
    """The last allowed run failed: the session fails, and keeps what it owes for a resume with a higher limit."""
    passed = "executing" not in owed_after(run, step)  # what failed is quarantined, and what is left is solved
    if step.halt or passed or iteration < run.the_config.max_iterations:
        return step
    message = f"All {iteration} allowed iterations ran, and tests still fail."
    return replace(step, halt=Halt("failed", "iterations", message))


def weighed(run: Run, report: Report, findings: tuple[Finding, ...], attempts: tuple[Attempts, ...], base: Step) -> Step:  # fmt: skip
    """Turn findings into what is owed, after reclassification and quarantine."""
    reopenable = frozenset(c for c in run.ledger.unjudged if run.ledger.unjudged.count(c) == 1)
    result = reclassify_errors(
        findings,
        attempts,
        max_logic=run.the_config.max_logic_attempts,
        max_test=run.the_config.max_test_attempts,
        reopenable=reopenable,
    )
    gone = tuple(
        Quarantined(test=f.test, reason=f.rule, words=f.words or f.root_cause)
        for f in result.quarantine
        if f.test not in _quarantined(run)
    )
    quarantined = (*run.work.quarantined, *gone)
    notes = (*base.notes, *_notes(result, gone))
    work = {
        **base.work,
        "findings": result.findings,
        "quarantined": quarantined,
        "checkpoint": Checkpoint(code=run.work.code, tests=run.work.tests, report=report, findings=result.findings),
        "fixes": (),
        "missing": (),
        "diagnosis": None,
    }
    ledger = dict(base.ledger)
    step = Step(base.about, usable=base.usable, reason=base.reason, ledger=ledger, work=work, notes=notes)
    if result.spent and not ledger.get("cured", run.ledger.cured):
        return _fresh(run, step)
    if not result.findings:
        return _after_quarantine(run, report, step)
    return _owing(run, step, result.findings)


def _after_quarantine(run: Run, report: Report, step: Step) -> Step:
    """Every failing test is quarantined: what is left decides."""
    quarantined = {q.test for q in step.work["quarantined"]}
    if solved(run, report, quarantined):
        return replace(step, done=("executing", "judging", "diagnosing"))
    live = [t for t in report.tests if t.id not in quarantined and t.id not in run.work.vacuous]
    if live:
        return replace(step, done=("judging", "diagnosing"), owes=("executing",))
    return _no_tests(run, replace(step, done=("judging", "diagnosing")))


def _owing(run: Run, step: Step, findings: tuple[Finding, ...]) -> Step:
    environment = [f for f in findings if f.error_type == "environment"]
    doubt = any(f.rule == "in_doubt" and f.error_type is None for f in findings)
    asks = any(
        f.error_type == "logic" or (f.error_type is None and f.rule != "in_doubt") or f.rule == "missing_library"
        for f in findings
    )
    tests = any(f.error_type == "test_error" for f in findings)
    modules = {*run.ledger.modules, *(f.module for f in environment if f.module)}
    owes = (
        *(("judging",) if doubt else ()),
        *(("diagnosing",) if asks else ()),
        *(("fixing_tests",) if tests else ()),
        *(("resolving",) if environment else ()),
        "executing",
    )
    done = tuple(s for s in ("judging", "diagnosing", "coding", "fixing_tests") if s not in owes)
    ledger = {**step.ledger, "modules": tuple(sorted(modules))} if modules else step.ledger
    return replace(step, owes=owes, done=done, ledger=ledger)


def _cured(run: Run, report: Report) -> bool:
    """Whether a test that failed before passes now; a first report cures by being the first."""
    before = run.work.checkpoint
    return before is None or any(report.outcome_of(t.id) == "passed" for t in before.report.failing)


def _fresh(run: Run, step: Step) -> Step:
    """Both ways are spent: one sample from the plan, with the counts at zero; after that the session is stalled."""
    if run.ledger.fresh:
        message = "The same tests kept failing after every fix, and after one fresh attempt from the plan."
        return replace(step, halt=Halt("failed", "stalled", message))
    return replace(
        step,
        reason="fresh",
        owes=("coding", "resolving", "executing"),
        done=("judging", "diagnosing", "fixing_tests"),
        ledger={**step.ledger, "fresh": True, "from_plan": True},
        work={**step.work, "attempts": (), "fixes": (), "checkpoint": None},
    )


def _notes(result: Reclassification, gone: tuple[Quarantined, ...]) -> tuple[Note, ...]:
    changed = tuple(
        Note(
            FailureReclassified,
            {"test": c.finding.test, "before": c.before, "after": c.finding.error_type, "times": c.times},
            {"root_cause": c.finding.root_cause},
        )
        for c in result.changed
    )
    return (
        *changed,
        *(Note(TestQuarantined, {"test": q.test, "reason": q.reason}, {"words": q.words}) for q in gone),
    )


def _reverted(run: Run, report: Report, base: dict[str, object]) -> Step | None:
    """Return the step back where a change of code broke what had passed, and cured nothing."""
    before = run.work.checkpoint
    if before is None or before.code == run.work.code or run.the_config.skip_tests:
        return None
    broken = tuple(
        t.id
        for t in report.failing
        if before.report.outcome_of(t.id) == "passed"
        and text_of(before.tests, t.id) == text_of(run.work.tests, t.id)
        and t.id not in _quarantined(run)
    )
    if not broken or _cured(run, report):
        return None
    attempt = f"A change broke {', '.join(broken[:5])} and mended nothing: it was taken back."
    attempts = counted(run.work.attempts, before.findings, code=True, tests=before.tests != run.work.tests)
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
            "notes": (*run.work.notes, attempt)[-12:],
        },
        notes=(Note(CodeReverted, {"broken": broken}, {"attempt": attempt}),),
    )


def _line(iteration: int, report: Report, findings: tuple[Finding, ...]) -> str:
    names = ", ".join(f"{f.test} ({f.exception or f.rule})" for f in findings[:5])
    more = f" and {len(findings) - 5} more" if len(findings) > 5 else ""
    return f"Run {iteration}: {len(report.passed)} passed, {len(findings)} failed: {names}{more}."


def _script(run: Run, report: Report) -> tuple[Finding, ...]:
    """Return what a failing run of the script means; it has no tests to name."""
    missing = _missing_outputs(run, report)
    cause = f"The script did not write: {', '.join(missing)}." if missing else f"The script ended with {report.exit}."
    rule = "missing_output" if missing else report.exit
    return (Finding(test=SESSION, error_type="logic", rule=rule, signature=f"{SESSION} {rule}", root_cause=cause),)


# ---- proving


def proven(run: Run) -> Step:
    """Return the end: the oracle passed whole, or it did not. It is never tried again."""
    report = _report(run)
    absent = missing_tests(report, {ORACLE_FILE: run.the_task.oracle})
    if report.exit == "ok" and report.whole and report.passed and not report.failing and not absent:
        return Step("oracle", done=("proving",))
    failed = ", ".join(t.id for t in report.failing[:5]) or report.exit
    message = f"The tests passed, but the oracle does not: {failed}."
    return Step("oracle", usable=False, halt=Halt("failed", "oracle", message))
