"""Usable replies: what each purpose's answer changes in the run. Each reader gives a Step, or Unusable."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from codetape.artefacts import (
    ANCHOR_FILE,
    TEST_FILE,
    CodePlan,
    ErrorDiagnosis,
    Finding,
    Fix,
    FixVerification,
    Opinion,
    Opinions,
    Proposal,
    Proposals,
    Quarantined,
    Replacement,
    TestFailure,
)
from codetape.assertions import claim_of
from codetape.decide import remedies
from codetape.decide.builds import MAX_ASKS, without
from codetape.decide.executions import context_of, quarantined
from codetape.decide.laws import laws
from codetape.decide.step import Note, Step
from codetape.events import TestQuarantined
from codetape.packages import bare, detected, modules_of, valid_name, valid_system_name
from codetape.prompts import calls_in_doubt, required_names, whole_file
from codetape.replies import (
    Unusable,
    imported_from_solution,
    interface_names,
    python,
    read_code,
    read_json,
    read_patches,
    read_tests,
)
from codetape.run import Run
from codetape.special_cases import special_cases
from codetape.suites import apply_patches, file_of, imports_in, name_of, names, patches_of, text_of
from codetape.verdict import DISPUTES, classify

Read = Step | Unusable


def plan(run: Run, text: str) -> Read:
    """A plan offers an interface, and in it every name that the task's examples and tests use."""
    value = read_json("plan", text)
    if not isinstance(value, CodePlan):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no plan.")
    offered = interface_names(value)
    if not offered:
        return Unusable("interface", "The interface names no function.")
    if missing := [name for name in imported_from_solution(run.anchors or "") if name not in offered]:
        return Unusable("interface", f"The interface does not offer what the examples call: {', '.join(missing)}.")
    return Step("plan", work={"plan": value})


def code(run: Run, text: str) -> Read:
    """A script: taken as it is, then held against the fixes that are owed."""
    value = read_code(text, required_names(run))
    if isinstance(value, Unusable):
        return value
    asks = run.ledger.code_asks + 1
    ledger = {"code_asks": asks, "from_plan": False}
    pending = () if run.ledger.from_plan else (run.work.missing or run.work.fixes)
    if run.rules > 1 and not run.ledger.from_plan and (answered := _special_cases(run, value)):
        return _not_taken(run, answered, ledger)
    if pending and value == run.work.code and asks < MAX_ASKS:
        return Step("code", reason="unchanged", ledger=ledger, work={"missing": pending}, target="coding")
    unsettled = tuple(f for f in pending if not applied(f, value))
    verify = bool(unsettled) and value != run.work.code
    return Step(
        "code",
        ledger=ledger,
        work={"code": value, "missing": unsettled if verify else ()},
        done=("coding",),
        owes=(*(("verifying_code",) if verify else ()), "resolving", "executing")
        if not run.the_config.skip_tests
        else (*(("verifying_code",) if verify else ()), "resolving"),
    )


def _special_cases(run: Run, code: str) -> tuple[str, ...]:
    """Return the calls of failing tests that a change answers by themselves."""
    results = run.work.report.failing if run.work.report else ()
    own = [claim_of(run.work.tests, r) for r in results if file_of(r.id) == TEST_FILE and r.frames]
    return special_cases(run.work.code, code, [claim for claim in own if claim])


def _not_taken(run: Run, answered: tuple[str, ...], ledger: dict[str, Any]) -> Step:
    """A change that special-cases failing tests is a spent attempt: it and its fixes are forgotten."""
    calls = ", ".join(answered[:3])
    note = f"A change was not taken: it compares with the arguments of {calls} and returns what the test expects. A rule must be mended, not one call."
    return Step(
        "code",
        usable=False,
        reason="special_case",
        ledger=ledger,
        work={"fixes": (), "missing": (), "notes": (*run.work.notes, note)[-12:]},
        done=("coding", "verifying_code"),
        owes=("resolving", "executing"),
    )


def applied(fix: Fix, code: str) -> bool:
    """Whether comparing the texts settles that the fix is there: the old text is gone, the new is there."""
    new, old = fix.new.strip(), fix.old.strip()
    return bool(new) and new in code and (not old or old not in code or old in new)


def verify_logic_fixes_applied(run: Run, text: str) -> Read:
    """Missing fixes owe coding again, with more information, up to the limit of asks."""
    value = read_json("verify_code", text)
    if not isinstance(value, FixVerification):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no verification.")
    missing = tuple(f for f in run.work.missing if f.id in value.missing_fixes)
    again = bool(missing) and run.ledger.code_asks < MAX_ASKS
    return Step(
        "verify_code",
        reason="missing" if missing else "",
        work={"missing": missing if again else ()},
        done=("verifying_code",),
        owes=("coding",) if again else (),
    )


def tests(run: Run, text: str) -> Read:
    """A test file, vetted before it counts. What was quarantined under the same names counts anew."""
    value = read_tests(text, required_names(run))
    if isinstance(value, Unusable):
        return value
    kept = tuple(q for q in run.work.quarantined if file_of(q.test) != TEST_FILE or name_of(q.test) not in names(value))
    return Step(
        "tests",
        work={"tests": value, "quarantined": kept, "vacuous": ()},
        done=("writing_tests",),
        owes=("resolving", "vetting"),
    )


# ---- failures


def diagnose(run: Run, text: str) -> Read:
    """Root causes and fixes for all failures; classes and packages only where the rules left them open."""
    value = read_json("diagnose", text)
    if not isinstance(value, ErrorDiagnosis):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no diagnosis.")
    told = {name_of(f.test_name) or f.test_name: f for f in value.failures}
    findings = tuple(_told(f, told.get(name_of(f.test) or f.test)) for f in run.work.findings)
    at_fault = {name_of(f.test) or f.test for f in findings if f.error_type != "test_error"}
    fixes = _numbered(
        fix for f in value.failures if (name_of(f.test_name) or f.test_name) in at_fault for fix in f.fixes
    )
    open_to_model = any(f.error_type in ("environment", None) for f in run.work.findings)
    packages, system = _needs(run, value) if open_to_model else ((), ())
    step = _blaming_tests(run, _diagnosed(run, findings, fixes, packages, system, value), told)
    commands = _commands(run, value) if open_to_model else ()
    if not commands:
        return step
    owes = tuple(dict.fromkeys((*step.owes, "resolving")))
    return replace(step, owes=owes, ledger={**step.ledger, "commands": (*run.ledger.commands, *commands)})


def _blaming_tests(run: Run, step: Step, told: Mapping[str, TestFailure]) -> Step:
    """Heed a diagnosis that says `test_error`, and has no fix, where the rules say that the code is at fault.

    Own tests that are fewer than those that pass are set aside; examples are put to opinions. What it blames on the code
    alone is asked for: a question without a fix would be put in vain.
    """
    findings: tuple[Finding, ...] = step.work["findings"]
    blamed = [f for f in findings if f.error_type == "logic" and _is_blamed(told.get(name_of(f.test) or f.test))]
    if not blamed or run.rules == 1:
        return step
    report, known = run.work.report, {q.test for q in run.work.quarantined}
    minority = report is not None and remedies.is_minority(run, report, findings, known)
    if minority:
        step = remedies.set_aside(run, step, tuple(blamed), DISPUTES)
    examples = [f.test for f in blamed if file_of(f.test) == ANCHOR_FILE]
    asked = any(f.error_type == "logic" and f not in blamed for f in findings) or step.work["fixes"]
    coding = () if not asked else ("coding",)
    owes = tuple(s for s in step.owes if s != "coding")
    return replace(
        step,
        owes=(*coding, *owes, "resolving"),
        ledger={**step.ledger, "doubted": tuple(dict.fromkeys((*run.ledger.doubted, *examples)))},
    )


def _is_blamed(failure: TestFailure | None) -> bool:
    return failure is not None and failure.error_type == "test_error" and not failure.fixes


def _commands(run: Run, value: ErrorDiagnosis) -> tuple[str, ...]:
    """Return the commands that a diagnosis wants in the image, where the policy lets it want any."""
    if run.the_config.command_policy == "deny":
        return ()
    plain = [c.strip() for c in value.needs_additional_commands if c.strip() and c.isprintable() and len(c) <= 500]
    known = {*run.ledger.commands, *(r.removeprefix("run:") for r in run.ledger.refused)}
    return tuple(dict.fromkeys(c for c in plain if c not in known))[:5]


def by_rules_alone(run: Run, reason: str) -> Step:
    """Go on without a diagnosis: what the rules left open is the code's fault."""
    findings = tuple(_told(f, None) for f in run.work.findings)
    step = _diagnosed(run, findings, (), (), (), None)
    return replace(step, usable=False, reason=reason)


def _diagnosed(
    run: Run,
    findings: tuple[Finding, ...],
    fixes: tuple[Fix, ...],
    packages: tuple[str, ...],
    system: tuple[str, ...],
    value: ErrorDiagnosis | None,
) -> Step:
    learned = bool(packages or system)
    kinds = {f.error_type for f in findings}
    unmet = "environment" in kinds and not learned and not any(f.module for f in findings)
    logic = "logic" in kinds or unmet or (not learned and kinds == {"environment"} and not run.ledger.modules)
    checkpoint = run.work.checkpoint
    return Step(
        "diagnose",
        done=("diagnosing",),
        owes=(
            *(("coding",) if logic else ()),
            *(("fixing_tests",) if "test_error" in kinds else ()),
            *(("resolving",) if learned else ()),
            "executing",
        ),
        ledger={
            "packages": tuple(sorted({*run.ledger.packages, *packages})),
            "system_packages": tuple(sorted({*run.ledger.system_packages, *system})),
        },
        work={
            "diagnosis": value,
            "findings": findings,
            "fixes": fixes,
            "checkpoint": checkpoint.model_copy(update={"findings": findings}) if checkpoint else None,
        },
    )


def _told(finding: Finding, failure: TestFailure | None) -> Finding:
    """Put what the diagnosis says beside what the rules say; the rules' class is final."""
    if failure is None:
        return finding.model_copy(update={"error_type": finding.error_type or "logic"})
    cause = finding.root_cause if finding.rule in ("reclassified", "refuted", "upheld") else ""
    return finding.model_copy(
        update={
            "error_type": finding.error_type or failure.error_type,
            "root_cause": " ".join(part for part in (cause, failure.root_cause) if part)[:4000],
        }
    )


def _numbered(fixes: Iterable[Fix]) -> tuple[Fix, ...]:
    unique = dict.fromkeys((f.old, f.new, f.reason) for f in fixes if f.new.strip() or f.old.strip())
    pairs: dict[tuple[str, str], str] = {}
    for old, new, reason in unique:
        pairs.setdefault((old, new), reason)
    return tuple(
        Fix(id=f"F{n}", old=old, new=new, reason=reason) for n, ((old, new), reason) in enumerate(pairs.items(), 1)
    )


def _needs(run: Run, value: ErrorDiagnosis) -> tuple[tuple[str, ...], tuple[str, ...]]:
    present = {bare(p) for p in (*detected(run).packages, *run.ledger.refused)}
    named = {valid_name(p) for p in value.needs_language_packages} - {""}
    system = {p for p in value.needs_system_packages if valid_system_name(p) and f"apt:{p}" not in run.ledger.refused}
    return tuple(sorted(named - present)), tuple(sorted(system - {*run.ledger.system_packages}))


def second_opinion(run: Run, text: str) -> Read:
    """Opinions by label; a call without one stays unjudged. The failures are weighed again."""
    value = read_json("second_opinion", text)
    if not isinstance(value, Opinions):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply holds no opinions.")
    by_label = {o.test: o for o in value.opinions}
    calls = {f"T{n}": call for n, call in enumerate(calls_in_doubt(run), 1)}
    given = tuple(by_label[label].model_copy(update={"test": c}) for label, c in calls.items() if label in by_label)
    unjudged = tuple(call for label, call in calls.items() if label not in by_label)
    return weigh_again(run, given, unjudged)


def weigh_again(
    run: Run,
    given: tuple[Opinion, ...] = (),
    unjudged: tuple[str, ...] = (),
    *,
    usable: bool = True,
    reason: str = "",
) -> Step:
    """Classify the standing report once more, with the opinions that have come."""
    report = run.work.report
    if report is None:
        raise ValueError("there is no report to judge")
    opinions, closed = (*run.work.opinions, *given), (*run.ledger.unjudged, *unjudged)
    gone = quarantined(run) if run.rules > 1 else set()
    findings = tuple(f for f in classify(report, context_of(run, opinions, closed)) if f.test not in gone)
    base = Step(
        "judged",
        usable=usable,
        reason=reason,
        ledger={"unjudged": closed},
        work={"opinions": opinions},
        done=("judging",),
    )
    step: Step = laws(run).weighed(run, report, findings, run.work.attempts, base)
    return replace(step, about="second_opinion", done=(*step.done, *_judged(step)))


def _judged(step: Step) -> tuple[str, ...]:
    return () if "judging" in step.owes else ("judging",)


def fix_tests(run: Run, text: str) -> Read:
    """Patches to the tests at fault, or the whole file anew where the fault lies outside its tests."""
    old, asks = run.work.tests, run.ledger.fix_asks + 1
    at_fault = [f for f in run.work.findings if f.error_type == "test_error"]
    wanted = tuple(dict.fromkeys(name_of(f.test) for f in at_fault))
    if whole_file(run):
        new = read_tests(text, required_names(run))
    else:
        block = read_patches(text, wanted)
        new = block if isinstance(block, Unusable) else _patched(old, block)
    if isinstance(new, Unusable):
        return new
    unchanged = tuple(_owed_test(f) for f in at_fault if text_of(new, f.test) == text_of(old, f.test))
    same = new == old or (unchanged and not whole_file(run))
    if same and asks < MAX_ASKS:
        missing = unchanged or tuple(_owed_test(f) for f in at_fault)
        return Step("fix_tests", reason="unchanged", ledger={"fix_asks": asks}, work={"tests": new, "missing": missing}, target="fixing_tests")  # fmt: skip
    unsettled = tuple(_owed_test(f) for f in at_fault if not _says(f, text_of(new, f.test), run.work.opinions))
    vanished = _vanished(run, old, new)
    return Step(
        "fix_tests",
        ledger={"fix_asks": asks},
        work={
            "tests": new,
            "missing": unsettled,
            "quarantined": (*run.work.quarantined, *vanished),
        },
        done=("fixing_tests",),
        owes=(*(("verifying_tests",) if unsettled else ()), "resolving", "vetting", "executing"),
        notes=tuple(Note(TestQuarantined, {"test": q.test, "reason": q.reason}, {"words": q.words}) for q in vanished),
    )


def _patched(old: str, block: str) -> str | Unusable:
    try:
        return python(apply_patches(old, patches_of(block), imports_in(block)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Unusable("syntax", "The patched file is no valid Python.")


def _owed_test(finding: Finding) -> Fix:
    return Fix(id=finding.test, old="", new="", reason=finding.root_cause)


def _says(finding: Finding, text: str, opinions: tuple[Opinion, ...]) -> bool:
    """Whether the mended test's text holds the value that the specification was found to say, if one was."""
    if finding.rule not in ("refuted", "third"):
        return True
    said = [o.value.strip() for o in opinions if o.test == finding.call]
    return not said or said[-1].replace('"', "'") in text.replace('"', "'")


def _vanished(run: Run, old: str, new: str) -> tuple[Quarantined, ...]:
    known = {q.test for q in run.work.quarantined}
    ids = [f"{TEST_FILE}::{n}" for n in names(old) if n not in names(new)]
    return tuple(Quarantined(test=i, reason="vanished", words="A rewrite left it out.") for i in ids if i not in known)


def verify_tests(run: Run, text: str) -> Read:
    """Tests that are still at fault owe fixing again, up to the limit of asks."""
    value = read_json("verify_tests", text)
    if not isinstance(value, FixVerification):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no verification.")
    still = {name_of(name) or name for name in value.missing_fixes}
    missing = tuple(f for f in run.work.missing if (name_of(f.id) or f.id) in still)
    again = bool(missing) and run.ledger.fix_asks < MAX_ASKS
    return Step(
        "verify_tests",
        reason="missing" if missing else "",
        work={"missing": missing if again else ()},
        done=("verifying_tests",),
        owes=("fixing_tests",) if again else (),
    )


# ---- packages


def packages(run: Run, text: str) -> Read:
    """Proposals for unknown imports: names only; the policy decides on them next."""
    value = read_json("packages", text)
    if not isinstance(value, Proposals):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply holds no packages.")
    told = {p.module.partition(".")[0]: valid_name(p.distribution) for p in value.packages}
    new = tuple(Proposal(module=m, distribution=told.get(m, "")) for m in detected(run).unknown)
    return Step("packages", work={"proposals": (*run.work.proposals, *new)})


def replace_package(run: Run, text: str) -> Read:
    """Another distribution for the same need, or none: then the run does without."""
    value = read_json("replace_package", text)
    if not isinstance(value, Replacement):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no replacement.")
    old, new = run.ledger.replacing, valid_name(value.distribution)
    if not new or new in {*map(bare, run.ledger.refused)}:
        return without(run, (old,), "no replacement") or Step(
            "replace_package", owes=("resolving",), done=("building",)
        )
    modules = modules_of(old, run)
    kept = tuple(p for p in run.work.proposals if p.module not in modules)
    tracked = tuple(sorted({new if bare(p) == old else p for p in run.ledger.packages}))
    return Step(
        "replace_package",
        done=("building",),
        owes=("resolving",),
        ledger={
            "chain": run.ledger.chain + 1,
            "replacements": run.ledger.replacements + 1,
            "packages": tracked,
            "replacing": "",
        },
        work={"proposals": (*kept, *(Proposal(module=m, distribution=new) for m in modules))},
    )


READ: dict[str, Callable[[Run, str], Read]] = {
    "plan": plan,
    "code": code,
    "tests": tests,
    "diagnose": diagnose,
    "second_opinion": second_opinion,
    "fix_tests": fix_tests,
    "verify_code": verify_logic_fixes_applied,
    "verify_tests": verify_tests,
    "packages": packages,
    "replace_package": replace_package,
}
