"""Names of packages: their canonical form, and which texts are no names."""

import re
from functools import lru_cache

from packaging.utils import canonicalize_name

from codetape.errors import UsageError

_SYSTEM_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{0,79}[a-z0-9+.]")  # a name that ends in - has apt remove it


def package_name(text: str) -> str:
    """Return a PEP 508 name (with its extras and version, if given) in canonical form.

    Raises UsageError for what is no package name: an option, a URL, a path.
    """
    # Slow to load, and most commands name no package.
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text.strip())
    except InvalidRequirement:
        requirement = None
    if requirement is None or requirement.url or requirement.marker or text.strip().startswith("-"):
        raise UsageError(f"{text!r} is no package name.", remedy="Give a name from the package index, such as pandas.")
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{canonicalize_name(requirement.name)}{extras}{requirement.specifier}"


def valid_name(text: str) -> str:
    """Return the canonical bare name of a package that a model proposes, or an empty string for no valid name."""
    try:
        return bare(package_name(text))
    except UsageError:
        return ""


def valid_system_name(text: str) -> bool:
    """Whether the text can be the name of a distribution's package (Debian's rules)."""
    return bool(_SYSTEM_NAME.fullmatch(text))


@lru_cache(maxsize=4096)  # a handful of names, asked for at every decision
def bare(package: str) -> str:
    """Return a requirement's name without extras and version."""
    return canonicalize_name(re.split(r"[\[<>=!~; ]", package, maxsplit=1)[0])
