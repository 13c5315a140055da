"""What a recorded environment would have done on this machine that only its user may allow: nothing of it is a tape's to decide."""

from codetape.artefacts import SandboxFacts
from codetape.commands import BuildSpec
from codetape.errors import UsageError
from codetape.import_map import KNOWN
from codetape.packages import TEST_PACKAGES, valid_name
from codetape.system_packages import KNOWN_SYSTEM


def unapproved(spec: BuildSpec, facts: SandboxFacts) -> tuple[str, ...]:
    """Return what a recorded environment asks for beyond known packages on this sandbox's own base, each in words."""
    packages = sorted(p for p in spec.packages if valid_name(p) not in KNOWN | {*TEST_PACKAGES})
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
