"""Tests without what they expect: a module of functions that only ask, to be evaluated where no expected value is."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from codetape.rules.blind.claim_reader import FIXTURES, MAX_CLAIMS, ClaimReader
from codetape.rules.blind.claims import BlindClaim
from codetape.rules.blind.constants import NotConstant
from codetape.rules.blind.surroundings import Surroundings
from codetape.rules.blind.syntax import ASK, GOT, Unplain
from codetape.rules.pytest_source import TestNode, nodes_of_tests


@dataclass(frozen=True)
class BlindFile:
    """A test file without its expectations. Claim n of ``claims`` is asked in ``source`` under its place among all.

    ``whole`` are the tests of which nothing but claims is left out: evaluating those is as good as running them.
    """

    source: str
    claims: tuple[BlindClaim, ...]
    whole: frozenset[str]


@lru_cache(maxsize=64)
def blind_file(source: str, first: int = 0, module: str = "solution") -> BlindFile:
    """Return a test file without what it expects; empty where no test has a plain form, or it is no Python.

    ``first`` is the number of its first claim.
    """
    try:
        return _blind(ast.parse(source.removeprefix("\ufeff")), first, module)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return BlindFile("", (), frozenset())


def _blind(tree: ast.Module, first: int, module: str) -> BlindFile:
    reader = Surroundings(tree, module)
    functions: list[ast.stmt] = []
    claims: list[BlindClaim] = []
    whole: set[str] = set()
    for test in nodes_of_tests(tree):
        reader.note_tables(test.node)
    for test in _tests(tree):
        try:
            claim_reader = ClaimReader(reader, test.name, is_method=bool(test.classes), first=first + len(claims))
            read = claim_reader.read(test.node)
        except (Unplain, NotConstant, RecursionError):
            continue
        if reader.shows_a_table(read.bodies):
            continue
        if not read.claims or len(claims) + len(read.claims) > MAX_CLAIMS:
            continue
        functions += [
            _function(f"t{len(functions) + number}", body, test.node) for number, body in enumerate(read.bodies)
        ]
        claims += read.claims
        if not claim_reader.partial:
            whole.add(test.name)
    if not claims:
        return BlindFile("", (), frozenset())
    needed = reader.needed(functions)
    tree = ast.Module(body=[*needed, *functions], type_ignores=[])
    return BlindFile(ast.unparse(ast.fix_missing_locations(tree)) + "\n", tuple(claims), frozenset(whole))


def claimed_tests(source: str) -> frozenset[str]:
    """Return the tests of a file that make a claim which can be asked blind."""
    return frozenset(claim.test for claim in blind_file(source).claims)


def _tests(tree: ast.Module) -> Iterator[TestNode]:
    """Yield the tests of a file that could be asked, each name once; classes that prepare something are left out."""
    found = [test for test in nodes_of_tests(tree) if all(map(_is_simple, test.classes))]
    bound = Counter(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )
    names = Counter(test.name for test in found)
    for test in found:
        outermost = test.classes[0].name if test.classes else test.node.name
        if bound[outermost] == names[test.name] == 1:
            yield test


def _is_simple(node: ast.ClassDef) -> bool:
    """Whether a class only groups tests: nothing is set up, and nothing inherited but unittest's assertions."""
    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    plain = all(
        (isinstance(m, ast.FunctionDef) and m.name.startswith("test"))
        or (isinstance(m, ast.Expr) and isinstance(m.value, ast.Constant))
        for m in node.body
    )
    named = node.name.startswith("Test") if not bases else bases == {"TestCase"}
    return plain and named and not node.decorator_list and not node.keywords


def _function(name: str, body: list[ast.stmt], test: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    names = (ASK, GOT, *(a.arg for a in test.args.args if a.arg in FIXTURES))
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(n) for n in names], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    kind = type(test)
    return kind(name=name, args=arguments, body=body, decorator_list=[], returns=None)
