"""What goes into an image below Python: system packages and commands. The policy decides, a person is asked last."""

from codetape.decider.step import Step, Stop
from codetape.domain.findings import Finding, Question
from codetape.domain.task import Config
from codetape.eventlog.session_state import SessionState
from codetape.rules.data.debian_packages import KNOWN_SYSTEM
from codetape.rules.packages import Ruling

MAX_ASKS = 3  # for code between two runs: see builds
PACKAGE, COMMAND = "apt:", "run:"
"""How the subjects of questions begin, so that a system package is never taken for one of Python's."""


def settled(session: SessionState) -> Step | None:
    """Return the question or refusal that what was learned below Python leads to; None where everything may be had."""
    for subject in _learned(session):
        said = _ruling(subject, session)
        if said == "ask":
            return _question(subject)
        if said == "deny":
            return dropped(session, (subject,), "policy")
    return None


def _learned(session: SessionState) -> tuple[str, ...]:
    config = session.the_config
    packages = [PACKAGE + name for name in session.ledger.system_packages if name not in config.system_packages]
    return (*packages, *(COMMAND + command for command in session.ledger.commands if command not in config.commands))


def _ruling(subject: str, session: SessionState) -> Ruling:
    answer = dict(session.answers).get(subject)
    if answer:
        return answer  # type: ignore[return-value]  # its values are two of a ruling's
    return _by_policy(subject, session.the_config)


def _by_policy(subject: str, config: Config) -> Ruling:
    if subject.startswith(COMMAND):
        return config.command_policy
    if config.package_policy == "allow":
        return "allow"
    if config.package_policy == "allowlist":
        return "allow" if subject in config.allowlist else "deny"
    return "allow" if subject.removeprefix(PACKAGE) in KNOWN_SYSTEM else "ask"


def _question(subject: str) -> Step:
    what = subject.removeprefix(PACKAGE).removeprefix(COMMAND)
    if subject.startswith(COMMAND):
        kind, message = (
            "command",
            f"The diagnosis wants the command {what!r} to be part of the image: may it run there?",
        )
    else:
        kind = "system_package"
        message = f"The diagnosis says that the system package {what} is missing. The package policy does not know it: may it be installed?"
    question = Question.model_validate({"kind": kind, "subject": subject, "reason": message})
    return Step("packages", work={"question": question}, halt=Stop("suspended", "question", message, "question"))


def dropped(session: SessionState, subjects: tuple[str, ...], why: str) -> Step:
    """Return the step that does without: the code that stands on it owes coding, if there is an ask left."""
    names = tuple(s.removeprefix(PACKAGE).removeprefix(COMMAND) for s in subjects)
    coding = ("coding",) if session.ledger.code_asks < MAX_ASKS else ()
    return Step(
        "packages",
        reason="dropped",
        done=("building",),
        owes=(*coding, "resolving"),
        ledger={
            "system_packages": tuple(p for p in session.ledger.system_packages if PACKAGE + p not in subjects),
            "commands": tuple(c for c in session.ledger.commands if COMMAND + c not in subjects),
            "refused": tuple(sorted({*session.ledger.refused, *subjects})),
        },
        work={
            "findings": tuple(
                Finding(
                    test=f"system package {name}",
                    error_type="logic",
                    rule="unavailable",
                    signature=f"unavailable {name}",
                    root_cause=f"{name} cannot be had: do without it.",
                )
                for name in names
            ),
            "fixes": (),
            "missing": (),
            "notes": (*session.work.notes, f"{', '.join(names)} cannot be had ({why}): do without."),
        },
    )
