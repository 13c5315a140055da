"""What a recorded environment would have done on this machine that only its user may allow: nothing of it is a tape's
to decide.

A recorded session's policies, answers and limits are its recorder's. Whoever continues it, runs its script, or executes
it again decides anew about everything beyond known packages on the sandbox's own base within usual limits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codetape.domain.job import TEST_PACKAGES, BuildSpec
from codetape.domain.package_names import bare, valid_name
from codetape.domain.task import Resources, SandboxFacts
from codetape.errors import UsageError
from codetape.rules.data.debian_packages import KNOWN_SYSTEM
from codetape.rules.data.import_map import known
from codetape.rules.rule_versions import RULES_VERSION

MOST = {"memory_mb": 4096, "wall_seconds": 600, "processes": 512, "disk_mb": 2048, "output_kb": 16384}
"""Upper bounds for one execution of a recorded session, unless its user allows more."""
SYSTEM, COMMAND, BASE, LIMIT = "apt:", "run:", "base:", "limit:"
"""How the subjects begin that are no Python packages: as in the questions of a session."""
_WORDS = {SYSTEM: "the system package ", COMMAND: "the command ", BASE: "the base image ", LIMIT: "the limit "}

Approve = Callable[[tuple[str, ...]], bool]
"""Puts what is wanted, in words, to the user; says whether it is allowed."""


@dataclass(frozen=True)
class Approval:
    """What this machine's user allows a recorded session to have beyond the usual.

    ``approve`` is True for all of it, or asks the user. ``subjects`` are single things (``NAME``, ``apt:NAME``,
    ``run:COMMAND``); ``packages`` and ``commands`` say that the user's own policies allow any, ``limits`` what the
    user's own settings give to an execution.
    """

    approve: bool | Approve = False
    subjects: frozenset[str] = frozenset()
    packages: bool = False
    commands: bool = False
    limits: Resources = Resources()

    def check(self, spec: BuildSpec, facts: SandboxFacts, limits: Resources | None = None) -> None:
        """Raise UsageError where a recorded environment asks for what its user has not allowed."""
        most = {name: max(usual, getattr(self.limits, name)) for name, usual in MOST.items()}
        subjects = unapproved(spec, facts, limits, most)
        wanted = tuple(_in_words(subject) for subject in subjects if not self._covers(subject))
        if not wanted or (self.approve if isinstance(self.approve, bool) else self.approve(wanted)):
            return
        more = f", and {len(wanted) - 8} more" if len(wanted) > 8 else ""
        raise UsageError(
            f"The recorded environment asks for {', '.join(text[:200] for text in wanted[:8])}{more}.",
            remedy="Look at it, then allow it with --allow-build.",
        )

    def _covers(self, subject: str) -> bool:
        if subject.startswith(COMMAND):
            return self.commands or subject in self.subjects
        if subject.startswith((BASE, LIMIT)):
            return False
        return self.packages or subject in self.subjects or bare(subject) in self.subjects


def unapproved(
    spec: BuildSpec, facts: SandboxFacts, limits: Resources | None = None, most: Mapping[str, int] = MOST
) -> tuple[str, ...]:
    """Return the subjects of what a recorded environment asks for beyond the usual."""
    packages = sorted(p for p in spec.packages if valid_name(p) not in known(RULES_VERSION) | {*TEST_PACKAGES})
    system = sorted(p for p in spec.system_packages if p not in KNOWN_SYSTEM)
    given = {name: getattr(limits, name) for name in most} if limits else {}
    above = [f"{name} {value}" for name, value in given.items() if value > most[name]]
    return (
        *([BASE + spec.base] if spec.base and spec.base != facts.base else []),
        *(COMMAND + command for command in spec.commands),
        *(SYSTEM + name for name in system),
        *packages,
        *(LIMIT + limit for limit in above),
    )


def _in_words(subject: str) -> str:
    for prefix, words in _WORDS.items():
        if subject.startswith(prefix):
            name = subject.removeprefix(prefix)
            return words + (repr(name) if prefix == COMMAND else name)
    return f"the package {subject}"
