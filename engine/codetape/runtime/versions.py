"""What derives decisions in this process: compared with what a tape says derived its own."""

import platform

import minijinja

from codetape import __version__
from codetape.eventlog import machine
from codetape.eventlog.events import Versions
from codetape.rules import rule_versions

_DERIVING = ("rules", "machine", "host_python", "templates")


def versions() -> Versions:
    """Return the versions of this process."""
    return Versions(
        engine=__version__,
        rules=rule_versions.RULES_VERSION,
        machine=machine.VERSION,
        host_python=".".join(platform.python_version_tuple()[:2]),
        templates=f"minijinja {getattr(minijinja, '__version__', '')}".strip(),
    )


def differences(theirs: Versions | None, ours: Versions) -> tuple[str, ...]:
    """Return what may derive differently here than on a tape, each as "rules 1 there, 2 here"; the engine's is the
    last."""
    if theirs is None:
        return ()
    names = [name for name in (*_DERIVING, "engine") if _differs(name, theirs, ours)]
    return tuple(
        f"{name.replace('_', ' ')} {getattr(theirs, name)} there, {getattr(ours, name)} here" for name in names
    )


def may_drift(theirs: Versions | None, ours: Versions) -> bool:
    """Whether a decision that differs is drift: rules, machine, Python or templates are others than the tape's."""
    return theirs is not None and any(_differs(name, theirs, ours) for name in _DERIVING)


def _differs(name: str, theirs: Versions, ours: Versions) -> bool:
    """Whether a version is another one, and is not kept here beside the present one."""
    kept = (name == "rules" and theirs.rules in rule_versions.KNOWN_RULES) or (
        name == "machine" and theirs.machine in machine.TABLES
    )
    return getattr(theirs, name) != getattr(ours, name) and not kept
