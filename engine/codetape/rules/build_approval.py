"""What a recorded environment would have done on this machine that only its user may allow: nothing of it is a tape's
to decide."""

from codetape.domain.job import TEST_PACKAGES, BuildSpec
from codetape.domain.package_names import valid_name
from codetape.domain.task import SandboxFacts
from codetape.errors import UsageError
from codetape.rules.data.debian_packages import KNOWN_SYSTEM
from codetape.rules.data.import_map import known
from codetape.rules.rule_versions import RULES_VERSION


def unapproved(spec: BuildSpec, facts: SandboxFacts) -> tuple[str, ...]:
    """Return what a recorded environment asks for beyond known packages on this sandbox's own base, each in words."""
    packages = sorted(p for p in spec.packages if valid_name(p) not in known(RULES_VERSION) | {*TEST_PACKAGES})
    system = sorted(p for p in spec.system_packages if p not in KNOWN_SYSTEM)
    return (
        *([f"the base image {spec.base}"] if spec.base and spec.base != facts.base else []),
        *(f"the command {command!r}" for command in spec.commands),
        *(f"the system package {name}" for name in system),
        *(f"the package {name}" for name in packages),
    )


def check_approved(spec: BuildSpec, facts: SandboxFacts, *, allowed: bool) -> None:
    """Raise UsageError where a recorded environment asks for what its user has not allowed."""
    if allowed or not (wanted := unapproved(spec, facts)):
        return
    more = f", and {len(wanted) - 8} more" if len(wanted) > 8 else ""
    raise UsageError(
        f"The recorded environment asks for {', '.join(text[:200] for text in wanted[:8])}{more}.",
        remedy="Look at it, then allow it with --allow-build.",
    )
