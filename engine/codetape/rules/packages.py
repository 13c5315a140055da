"""Imports to packages, the policy on what may be installed, and an image's identity."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from packaging.utils import canonicalize_name

from codetape.domain.job import TEST_PACKAGES
from codetape.domain.package_names import bare
from codetape.domain.reply_shapes import Proposal
from codetape.domain.task import Config
from codetape.eventlog.session_state import SessionState
from codetape.rules.data.import_map import IMPORTS, KNOWN

LOCAL = frozenset({"solution", "test_solution", "test_anchors", "test_user", "test_oracle", "conftest", "__future__"})
Ruling = Literal["allow", "ask", "deny"]


@cache
def standard_library(python: str) -> frozenset[str]:
    """Return the top-level modules of a Python version ("3.12"); of the newest known for a newer one."""
    from stdlib_list import long_versions, short_versions, stdlib_list

    known = python if python in (*short_versions, *long_versions) else short_versions[-1]
    return frozenset(name.partition(".")[0] for name in stdlib_list(known))


@lru_cache(maxsize=256)
def imports_of(source: str) -> frozenset[str]:
    """Return the dotted names that a module imports anywhere in it; nothing for text that is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def mapped(module: str) -> str:
    """Return the distribution that the map knows for an import, by its longest dotted prefix; else empty."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        if found := IMPORTS.get(".".join(parts[:size])):
            return found
    return ""


@dataclass(frozen=True)
class Detection:
    """What code and tests import: packages that give it, modules that nobody knows, questions, refusals."""

    packages: tuple[str, ...]
    unknown: tuple[str, ...]
    ask: tuple[str, ...]
    denied: tuple[str, ...]


def ruling(package: str, config: Config, allowed: Iterable[str] = (), refused: Iterable[str] = ()) -> Ruling:
    """Say whether a package may be installed: a person's word first, then the policy."""
    name = bare(package)
    if name in {bare(p) for p in refused}:
        return "deny"
    trusted = {*TEST_PACKAGES, *config.base_packages, *config.packages, *allowed}
    if name in {bare(p) for p in trusted} or config.package_policy == "allow":
        return "allow"
    if config.package_policy == "allowlist":
        return "allow" if name in {bare(p) for p in config.allowlist} else "deny"
    return "allow" if name in KNOWN else "ask"


def detect_and_track_packages(
    sources: Iterable[str],
    config: Config,
    *,
    modules: Iterable[str] = (),
    tracked: Iterable[str] = (),
    proposals: Iterable[Proposal] = (),
    allowed: Iterable[str] = (),
    refused: Iterable[str] = (),
) -> Detection:
    """Return what the sources need beside the standard library, local modules and the base packages.

    ``modules`` are imports that only a run showed; ``tracked`` are packages that stay in the image whatever the sources
    say (asked for by a person or a diagnosis).
    """
    proposed = {p.module: p.distribution for p in proposals}
    given = {bare(p): p for p in (*config.packages, *config.base_packages)}
    wanted: dict[str, str] = {bare(p): p for p in tracked}
    unknown: set[str] = set()
    refusals = {bare(p) for p in refused}
    present = {*map(bare, TEST_PACKAGES), *map(bare, config.base_packages)}
    for module in sorted({*modules, *(m for source in sources for m in imports_of(source))}):
        top = module.partition(".")[0]
        if top in LOCAL or top in standard_library(config.python_version):
            continue
        same: str = canonicalize_name(top)
        package: str = same if same in given and not mapped(module) else proposed.get(top) or mapped(module)
        if not package and top in proposed:
            package = top
            refusals.add(canonicalize_name(top))
        if not package:
            unknown.add(top)
        elif bare(package) not in present:
            wanted.setdefault(bare(package), given.get(bare(package), bare(package)))
    rulings = {p: ruling(p, config, allowed, refusals) for p in wanted.values()}

    def of(said: Ruling) -> tuple[str, ...]:
        return tuple(sorted(package for package, ruled in rulings.items() if ruled == said))

    return Detection(packages=of("allow"), unknown=tuple(sorted(unknown)), ask=of("ask"), denied=of("deny"))


def detected(session: SessionState) -> Detection:
    """Return what a run's code and tests need now, under its configuration and a person's answers."""
    answers = dict(session.answers)
    tests = [] if session.the_config.skip_tests else [session.work.tests, session.anchors or "", session.the_task.tests]
    return detect_and_track_packages(
        [session.work.code, *tests, session.the_task.oracle],
        session.the_config,
        modules=session.ledger.modules,
        tracked=session.ledger.packages,
        proposals=session.work.proposals,
        allowed=[name for name, answer in answers.items() if answer == "allow"],
        refused=[*session.ledger.refused, *(name for name, answer in answers.items() if answer == "deny")],
    )


def modules_of(package: str, session: SessionState) -> tuple[str, ...]:
    """Return the imports of code and tests that a package is needed for; its own name where there is none."""
    proposed = {p.module: p.distribution for p in session.work.proposals}
    sources = (session.work.code, session.work.tests, session.the_task.tests, session.the_task.oracle)
    found = {
        module.partition(".")[0]
        for module in {*session.ledger.modules, *(m for source in sources for m in imports_of(source))}
        if bare(proposed.get(module.partition(".")[0]) or mapped(module) or module.partition(".")[0]) == bare(package)
    }
    return tuple(sorted(found)) or (bare(package),)
