"""Diagnoses: root causes, fixes, and what the environment lacks."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from codetape.decider import remedies
from codetape.decider.step import Read, Step
from codetape.domain.findings import Finding
from codetape.domain.package_names import bare, valid_name, valid_system_name
from codetape.domain.reply_shapes import ErrorDiagnosis, Fix, TestFailure
from codetape.domain.task import ANCHOR_FILE
from codetape.eventlog.session_state import SessionState
from codetape.prompts.reply_parser import Unusable, read_json
from codetape.rules.data.debian_packages import KNOWN_SYSTEM
from codetape.rules.packages import detected, ruling
from codetape.rules.pytest_source import file_of, name_of
from codetape.rules.reclassify import DISPUTES

# ---- failures


def diagnose(session: SessionState, text: str) -> Read:
    """Root causes and fixes for all failures; classes and packages only where the rules left them open."""
    value = read_json("diagnose", text)
    if not isinstance(value, ErrorDiagnosis):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no diagnosis.")
    told = {name_of(f.test_name) or f.test_name: f for f in value.failures}
    findings = tuple(_told(f, told.get(name_of(f.test) or f.test)) for f in session.work.findings)
    at_fault = {name_of(f.test) or f.test for f in findings if f.error_type != "test_error"}
    fixes = _numbered(
        fix for f in value.failures if (name_of(f.test_name) or f.test_name) in at_fault for fix in f.fixes
    )
    open_to_model = any(f.error_type in ("environment", None) for f in session.work.findings)
    if session.rules > 2:
        packages, system = _heard(session, value, open_to_model=open_to_model)
    else:
        packages, system = _needs(session, value) if open_to_model else ((), ())
    step = _blaming_tests(session, _diagnosed(session, findings, fixes, packages, system, value), told)
    commands = _commands(session, value) if open_to_model else ()
    if not commands:
        return step
    owes = tuple(dict.fromkeys((*step.owes, "resolving")))
    return replace(step, owes=owes, ledger={**step.ledger, "commands": (*session.ledger.commands, *commands)})


def _blaming_tests(session: SessionState, step: Step, told: Mapping[str, TestFailure]) -> Step:
    """Heed a diagnosis that says `test_error`, and has no fix, where the rules say that the code is at fault.

    Own tests that are fewer than those that pass are set aside; examples are put to opinions. What it blames on the
    code
    alone is asked for: a question without a fix would be put in vain.
    """
    findings: tuple[Finding, ...] = step.work["findings"]
    blamed = [f for f in findings if f.error_type == "logic" and _is_blamed(told.get(name_of(f.test) or f.test))]
    if not blamed or session.rules == 1:
        return step
    report, known = session.work.report, {q.test for q in session.work.quarantined}
    minority = report is not None and remedies.is_minority(session, report, findings, known)
    if minority:
        step = remedies.set_aside(session, step, tuple(blamed), DISPUTES)
    examples = [f.test for f in blamed if file_of(f.test) == ANCHOR_FILE]
    asked = any(f.error_type == "logic" and f not in blamed for f in findings) or step.work["fixes"]
    coding = () if not asked else ("coding",)
    owes = tuple(s for s in step.owes if s != "coding")
    return replace(
        step,
        owes=(*coding, *owes, "resolving"),
        ledger={**step.ledger, "doubted": tuple(dict.fromkeys((*session.ledger.doubted, *examples)))},
    )


def _is_blamed(failure: TestFailure | None) -> bool:
    return failure is not None and failure.error_type == "test_error" and not failure.fixes


def _commands(session: SessionState, value: ErrorDiagnosis) -> tuple[str, ...]:
    """Return the commands that a diagnosis wants in the image, where the policy lets it want any."""
    if session.the_config.command_policy == "deny":
        return ()
    plain = [c.strip() for c in value.needs_additional_commands if c.strip() and c.isprintable() and len(c) <= 500]
    known = {*session.ledger.commands, *(r.removeprefix("run:") for r in session.ledger.refused)}
    return tuple(dict.fromkeys(c for c in plain if c not in known))[:5]


def by_rules_alone(session: SessionState, reason: str) -> Step:
    """Continue without a diagnosis: what the rules left open is the code's fault."""
    findings = tuple(_told(f, None) for f in session.work.findings)
    step = _diagnosed(session, findings, (), (), (), None)
    return replace(step, usable=False, reason=reason)


def _diagnosed(
    session: SessionState,
    findings: tuple[Finding, ...],
    fixes: tuple[Fix, ...],
    packages: tuple[str, ...],
    system: tuple[str, ...],
    value: ErrorDiagnosis | None,
) -> Step:
    learned = bool(packages or system)
    kinds = {f.error_type for f in findings}
    unmet = "environment" in kinds and not learned and not any(f.module for f in findings)
    logic = "logic" in kinds or unmet or (not learned and kinds == {"environment"} and not session.ledger.modules)
    checkpoint = session.work.checkpoint
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
            "packages": tuple(sorted({*session.ledger.packages, *packages})),
            "system_packages": tuple(sorted({*session.ledger.system_packages, *system})),
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


def _needs(session: SessionState, value: ErrorDiagnosis) -> tuple[tuple[str, ...], tuple[str, ...]]:
    present = {bare(p) for p in (*detected(session).packages, *session.ledger.refused)}
    named = {valid_name(p) for p in value.needs_language_packages} - {""}
    system = {
        p for p in value.needs_system_packages if valid_system_name(p) and f"apt:{p}" not in session.ledger.refused
    }
    return tuple(sorted(named - present)), tuple(sorted(system - {*session.ledger.system_packages}))


def _heard(
    session: SessionState, value: ErrorDiagnosis, *, open_to_model: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the packages that a diagnosis asks for.

    Where the rules say what failed, only those that may be had without a question: a wrong guess stops no session.
    """
    packages, system = _needs(session, value)
    if open_to_model:
        return packages, system
    config, answers = session.the_config, dict(session.answers)
    allowed = [name for name, answer in answers.items() if answer == "allow"]
    free = tuple(p for p in packages if ruling(p, config, allowed, session.ledger.refused, session.rules) == "allow")
    may = config.package_policy == "allow"
    known = tuple(p for p in system if may or p in KNOWN_SYSTEM) if config.sandbox.system_packages else ()
    return free, known


def undiagnosed(session: SessionState, why: Unusable) -> Step:
    """Continue by the rules alone."""
    return by_rules_alone(session, why.reason)
