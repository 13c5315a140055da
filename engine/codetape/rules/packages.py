"""Imports to packages, the policy on what may be installed, and an image's identity."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from packaging.utils import canonicalize_name

from codetape.domain.job import TEST_PACKAGES, BuildSpec
from codetape.domain.package_names import bare, valid_name
from codetape.domain.reply_shapes import Proposal
from codetape.domain.task import Config
from codetape.eventlog.session_state import SessionState
from codetape.rules.data.import_map import PINS, imports, known
from codetape.rules.rule_versions import RULES_VERSION
from codetape.rules.source_tree import tree_of

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
        tree = tree_of(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


@lru_cache(maxsize=256)
def foreign_imports(source: str, python: str) -> frozenset[str]:
    """Return what a module imports that is neither of the standard library nor a file of the session's own."""
    return frozenset(m for m in imports_of(source) if _is_foreign(m, python))


def _is_foreign(module: str, python: str) -> bool:
    top = module.partition(".")[0]
    return top not in LOCAL and top not in standard_library(python)


_MARKS = {"asyncio": "pytest_asyncio", "anyio": "anyio", "trio": "pytest_trio", "benchmark": "pytest_benchmark"}
_FIXTURES = {
    "mocker": "pytest_mock",
    "benchmark": "pytest_benchmark",
    "httpx_mock": "pytest_httpx",
    "requests_mock": "requests_mock",
}


@lru_cache(maxsize=64)
def plugins_of(tests: str) -> frozenset[str]:
    """Return the modules of the pytest plugins that a test file asks for by its marks and fixtures."""
    try:
        tree = ast.parse(tests.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    own = {f.name for f in functions}
    asked = {a.arg for f in functions if f.name.startswith("test") for a in f.args.args} - own
    marks = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _is_mark(n.value)}
    return frozenset([_MARKS[m] for m in marks if m in _MARKS] + [_FIXTURES[a] for a in asked if a in _FIXTURES])


def _is_mark(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "mark"
        and isinstance(node.value, ast.Name)
        and node.value.id == "pytest"
    )


def mapped(module: str, rules: int = RULES_VERSION) -> str:
    """Return the distribution that the map knows for an import, by its longest dotted prefix; else empty."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        if found := imports(rules).get(".".join(parts[:size])):
            return found
    return ""


@dataclass(frozen=True)
class Detection:
    """What code and tests import: packages that give it, modules that nobody knows, questions, refusals."""

    packages: tuple[str, ...]
    unknown: tuple[str, ...]
    ask: tuple[str, ...]
    denied: tuple[str, ...]


def ruling(
    package: str,
    config: Config,
    allowed: Iterable[str] = (),
    refused: Iterable[str] = (),
    rules: int = RULES_VERSION,
) -> Ruling:
    """Say whether a package may be installed: a person's word first, then the policy."""
    name = bare(package)
    if name in {bare(p) for p in refused}:
        return "deny"
    trusted = {*TEST_PACKAGES, *config.base_packages, *config.packages, *allowed}
    if name in {bare(p) for p in trusted} or config.package_policy == "allow":
        return "allow"
    if config.package_policy == "allowlist":
        return "allow" if name in {bare(p) for p in config.allowlist} else "deny"
    return "allow" if name in known(rules) else "ask"


def detect_and_track_packages(
    sources: Iterable[str],
    config: Config,
    *,
    modules: Iterable[str] = (),
    tracked: Iterable[str] = (),
    proposals: Iterable[Proposal] = (),
    allowed: Iterable[str] = (),
    refused: Iterable[str] = (),
    rules: int = RULES_VERSION,
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
    python = config.python_version
    foreign = {m for m in modules if _is_foreign(m, python)}.union(*(foreign_imports(s, python) for s in sources))
    for module in sorted(foreign):
        top = module.partition(".")[0]
        same: str = canonicalize_name(top)
        pinned = PINS.get(top, "") if rules > 2 else ""
        by_map = mapped(module, rules)
        package: str = same if same in given and not by_map else proposed.get(top) or by_map
        if not package and top in proposed:
            package = top
            refusals.add(canonicalize_name(top))
        if not package:
            unknown.add(top)
        elif bare(package) not in present or pinned:
            name = given.get(bare(package), bare(package))
            wanted[bare(package)] = pinned if pinned and name == bare(package) else wanted.get(bare(package), name)
    rulings = {p: ruling(p, config, allowed, refusals, rules) for p in wanted.values()}

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
        modules=[*session.ledger.modules, *_asked_plugins(session, tests)],
        tracked=[*session.ledger.packages, *_planned(session)],
        proposals=session.work.proposals,
        allowed=[name for name, answer in answers.items() if answer == "allow"],
        refused=[*session.ledger.refused, *(name for name, answer in answers.items() if answer == "deny")],
        rules=session.rules,
    )


def spec_of(session: SessionState) -> BuildSpec:
    """Return the environment that the run needs now."""
    found = detected(session)
    packages = {*session.the_config.base_packages, *found.packages}
    return BuildSpec(
        python_version=session.the_config.python_version,
        packages=tuple(sorted(packages)),
        system_packages=tuple(sorted({*session.the_config.system_packages, *session.ledger.system_packages})),
        commands=tuple(dict.fromkeys([*session.the_config.commands, *session.ledger.commands])),
        base=session.the_config.sandbox.base,
    )


def _asked_plugins(session: SessionState, tests: Iterable[str]) -> set[str]:
    if session.rules < 3:
        return set()
    return {module for source in (*tests, session.the_task.oracle) for module in plugins_of(source)}


def _planned(session: SessionState) -> tuple[str, ...]:
    """Return the packages that the plan names and everybody knows: a library needs them without an import (openpyxl)."""
    if session.rules < 3 or session.work.plan is None:
        return ()
    config, gone = session.the_config, {*map(bare, session.ledger.refused)}
    names = (valid_name(p) for p in session.work.plan.packages)
    allowed = (n for n in names if n in known(session.rules) and n not in gone and ruling(n, config) == "allow")
    present = {*map(bare, TEST_PACKAGES), *map(bare, config.base_packages)}
    return tuple(dict.fromkeys(n for n in allowed if n not in present))


def modules_of(package: str, session: SessionState) -> tuple[str, ...]:
    """Return the imports of code and tests that a package is needed for; its own name where there is none."""
    proposed = {p.module: p.distribution for p in session.work.proposals}
    sources = (session.work.code, session.work.tests, session.the_task.tests, session.the_task.oracle)
    found = {
        module.partition(".")[0]
        for module in {*session.ledger.modules, *(m for source in sources for m in imports_of(source))}
        if bare(proposed.get(module.partition(".")[0]) or mapped(module, session.rules) or module.partition(".")[0])
        == bare(package)
    }
    return tuple(sorted(found)) or (bare(package),)
