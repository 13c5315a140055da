"""Environments: what code and tests need, what may be installed, and what a refused build means."""

from codetape.decider import system_packages
from codetape.decider.commands import Build
from codetape.decider.step import Step, Stop
from codetape.domain.findings import ErrorType, Finding, Question
from codetape.domain.job import BuildSpec
from codetape.domain.package_names import bare
from codetape.domain.report import Environment
from codetape.domain.task import Config
from codetape.eventlog.events import BuildFinished, BuildRefused
from codetape.eventlog.session_state import SessionState
from codetape.rules.packages import detected, imports_of, modules_of, spec_of

MAX_ASKS = 3  # for code, and for test fixes, between two runs
MAX_CHAIN = 3
MAX_REPLACEMENTS = 12
_CALLS_A_ROUND = 2 * (2 + 1 + 4 * MAX_ASKS + 1 + MAX_CHAIN)
"""Of opinions, a diagnosis, code, tests and their verifications, packages and replacements: each may be repaired
once."""


def most_calls(config: Config) -> int:
    """Return a bound on the calls that a session can make: a plan and tests, then every run with every attempt between
    two."""
    rounds = config.max_logic_attempts + config.max_test_attempts + 2
    return 4 + config.max_iterations * rounds * _CALLS_A_ROUND


def resolved(session: SessionState) -> Step | None:
    """Return the step out of resolving; None where the model must be asked about unknown imports."""
    found = detected(session)
    if found.denied and (step := without(session, found.denied, "policy")):
        return step
    if found.unknown:
        return None
    if found.ask:
        return _question(found.ask[0], session)
    if session.the_config.sandbox.system_packages and (step := system_packages.settled(session)):
        return step
    spec = spec_of(session)
    if missing := _capability(session, spec):
        return Step("packages", halt=Stop("suspended", "capability", missing, "need"))
    same = session.work.environment is not None and session.work.environment.name == spec.name
    packages = tuple(sorted({*session.ledger.packages} | {p for p in found.packages if bare(p) in _tracked(session)}))
    return Step("packages", done=("resolving",), owes=() if same else ("building",), ledger={"packages": packages})


def _tracked(session: SessionState) -> set[str]:
    return {bare(p) for p in session.ledger.packages}


def _question(package: str, session: SessionState) -> Step:
    modules = ", ".join(modules_of(package, session))
    message = (
        f"The code imports {modules}, which the package {package} is said to provide. "
        f"The package policy ({session.the_config.package_policy}) does not know it: may it be installed?"
    )
    question = Question(kind="package", subject=package, reason=message)
    return Step("packages", work={"question": question}, halt=Stop("suspended", "question", message, "question"))


def _capability(session: SessionState, spec: BuildSpec) -> str:
    facts = session.the_config.sandbox
    if spec.system_packages and not facts.system_packages:
        names = ", ".join(spec.system_packages)
        return f"The {facts.name} sandbox cannot install system packages, and the script needs {names}. The docker sandbox can."
    if spec.commands and not facts.commands:
        return f"The {facts.name} sandbox runs no build commands. The docker sandbox can."
    return ""


def without(session: SessionState, packages: tuple[str, ...], why: str) -> Step | None:
    """Return the step that drops packages: the code that imports them owes coding, tests that do owe fixing.

    None where there is nothing new to drop and no ask left before the next run: the run will show what is missing.
    """
    modules = tuple(sorted({m for package in packages for m in modules_of(package, session)}))
    in_code = _imported(modules, session.work.code)
    in_tests = _imported(modules, session.work.tests)
    code = bool(in_code) and session.ledger.code_asks < MAX_ASKS
    tests = bool(in_tests) and session.ledger.fix_asks < MAX_ASKS
    known = {*packages} <= {*session.ledger.refused} and {*modules} <= {*session.ledger.unavailable}
    if known and not code and not tests:
        return None
    gone = {bare(p) for p in packages}
    return Step(
        "packages",
        reason="dropped",
        done=("building",),
        owes=(*(("coding",) if code else ()), *(("fixing_tests",) if tests else ()), "resolving"),
        ledger={
            "unavailable": tuple(sorted({*session.ledger.unavailable, *modules})),
            "refused": tuple(sorted({*session.ledger.refused, *gone})),
            "packages": tuple(p for p in session.ledger.packages if bare(p) not in gone),
            "modules": tuple(m for m in session.ledger.modules if m.partition(".")[0] not in modules),
            "chain": 0,
            "replacing": "",
        },
        work={
            "findings": (*_findings(in_code, "logic"), *_findings(in_tests, "test_error")),
            "fixes": (),
            "missing": (),
            "notes": (*session.work.notes, f"{', '.join(packages)} cannot be had ({why}): do without."),
        },
    )


def _imported(modules: tuple[str, ...], source: str) -> tuple[str, ...]:
    tops = {m.partition(".")[0] for m in imports_of(source)}
    return tuple(m for m in modules if m in tops)


def _findings(modules: tuple[str, ...], error_type: ErrorType) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            test=f"import of {module}",
            error_type=error_type,
            rule="unavailable",
            signature=f"unavailable {module}",
            root_cause=f"{module} cannot be had: do without it.",
        )
        for module in modules
    )


def build(session: SessionState) -> Build:
    """Return the build of what the run needs."""
    return Build(spec_of(session))


def built(session: SessionState) -> Step:
    """Return the step after a build: ready, a package to replace, or packages to do without."""
    outcome = session.outcome
    if outcome is None:
        raise ValueError("no build was closed")
    event = outcome.event
    if isinstance(event, BuildFinished):
        environment = Environment(name=event.image, lock=outcome.message)
        return Step("build", done=("building",), work={"environment": environment}, ledger={"chain": 0})
    if not isinstance(event, BuildRefused):
        raise TypeError(f"{type(event).__name__} closes no build")
    if event.reason in ("needs_system_packages", "needs_commands"):
        return Step("build", usable=False, halt=Stop("suspended", event.reason, outcome.message, "need"))
    if below := tuple(p for p in event.packages if p in session.ledger.system_packages):
        if {*below} & {*session.the_config.system_packages}:
            return Step("build", usable=False, halt=Stop("suspended", "base", outcome.message, "need"))
        return system_packages.dropped(session, tuple(system_packages.PACKAGE + p for p in below), event.reason)
    demanded = {bare(p) for p in (*session.the_config.base_packages, *session.the_config.packages)}
    asked = {bare(p) for p in spec_of(session).packages}
    refused_names = {bare(p) for p in event.packages} & asked
    names = tuple(sorted(refused_names - demanded)) or (() if refused_names else _newest(session))
    if not names or (event.reason != "conflict" and refused_names & demanded):
        return Step("build", usable=False, halt=Stop("suspended", "base", outcome.message, "need"))
    replaceable = event.reason in ("not_found", "no_wheel")
    if replaceable and session.ledger.chain < MAX_CHAIN and session.ledger.replacements < MAX_REPLACEMENTS:
        refused = tuple(sorted({*session.ledger.refused, names[0]}))
        ledger = {"replacing": names[0], "refused": refused}
        return Step("build", usable=False, reason=event.reason, ledger=ledger, target="replacing_package")
    step = without(session, names, event.reason)
    if step is None and set(names) <= set(
        session.ledger.refused
    ):  # dropped already, and refused again: nothing would change
        return Step("build", usable=False, halt=Stop("suspended", "base", outcome.message, "need"))
    return step or Step("build", usable=False, owes=("resolving",), done=("building",))


def _newest(session: SessionState) -> tuple[str, ...]:
    """Return what to drop where a build names no package: everything that was not there from the start."""
    base = {bare(p) for p in (*session.the_config.base_packages, *session.the_config.packages)}
    return tuple(p for p in detected(session).packages if bare(p) not in base)
