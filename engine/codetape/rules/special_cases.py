"""Changes that answer a failing test by its own arguments, in the place of fixing what is behind it.

Read from the syntax tree: a condition, a match, a lookup or an expression that compares with the arguments of a failing
call, and gives what its test expects. A base case (nothing, zero, one) is none, and neither is a table that holds more.
"""

import ast
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from codetape.rules.assertion_claims import Claim, equal
from codetape.rules.source_tree import tree_of

_NOTHING = object()
_EDGES: tuple[Any, ...] = (None, True, False, -1, 0, 1, 2, 0.0, 1.0, "", b"", [], (), {}, set())
"""Values that honest code compares with: those of base cases. So it does with single characters."""


@dataclass(frozen=True)
class _Case:
    """One branch: the literals that it compares with, each alone or as one of a set, and the literals that it gives."""

    compared: tuple[tuple[Any, ...], ...]
    given: tuple[Any, ...]


def special_cases(old: str, new: str, claims: Iterable[Claim]) -> tuple[str, ...]:
    """Return the calls that the new code answers by their arguments, and the old code does not."""
    wanted = [(claim, *_read(claim)) for claim in claims if claim.kind == "value"]
    known = [(claim, arguments, expected) for claim, arguments, expected in wanted if expected is not _NOTHING]
    if not known:
        return ()
    everything = [v for _, arguments, _ in known for v in (*arguments, arguments, list(arguments), *_texts(arguments))]
    before, after = _cases(old), _cases(new)

    def answered(cases: tuple[_Case, ...], arguments: tuple[Any, ...], expected: Any) -> bool:
        return any(_answers(case, arguments, expected, everything) for case in cases)

    return tuple(c.call for c, a, e in known if answered(after, a, e) and not answered(before, a, e))


def _read(claim: Claim) -> tuple[tuple[Any, ...], Any]:
    """Return a claim's arguments and what it expects; _NOTHING where one of them is no literal."""
    try:
        call = ast.parse(claim.call, mode="eval").body
        if not isinstance(call, ast.Call) or (not call.args and not call.keywords):
            return (), _NOTHING
        arguments = tuple(ast.literal_eval(a) for a in (*call.args, *(k.value for k in call.keywords)))
        return arguments, ast.literal_eval(claim.expected)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return (), _NOTHING


def _answers(case: _Case, arguments: tuple[Any, ...], expected: Any, everything: list[Any]) -> bool:
    """Whether a branch is for these arguments alone, and gives what is expected of them."""
    if not any(_same(value, expected) for value in case.given):
        return False
    own = [group for group in case.compared if all(any(_same(v, one) for one in everything) for v in group)]
    values = [value for group in own for value in group]
    whole = any(_same(v, form) for v in values for form in (arguments, list(arguments), repr(arguments)))
    if whole and not (len(arguments) > 1 and all(map(_edge, arguments))):
        return True
    telling = [a for a in arguments if not _edge(a)]
    return bool(telling) and all(any(_same(v, text) for v in values for text in (a, repr(a), str(a))) for a in telling)


def _texts(arguments: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(text for a in (*arguments, arguments) for text in (repr(a), str(a)))


def _same(one: Any, other: Any) -> bool:
    try:
        return equal(one, other)
    except RecursionError:
        return False


def _edge(value: Any) -> bool:
    return (isinstance(value, str) and len(value) == 1) or any(_same(value, edge) for edge in _EDGES)


@lru_cache(maxsize=64)  # what is new at one change is old at the next
def _cases(code: str) -> tuple[_Case, ...]:
    """Return the branches of a module."""
    try:
        tree = tree_of(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return (*_conditions(tree, ()), *_expressions(list(ast.walk(tree))))


def _expressions(nodes: list[ast.AST]) -> Iterator[_Case]:
    """Yield the branches of all but if statements."""
    reduced = _asked_of_a_reduction(nodes)
    for node in nodes:
        if isinstance(node, ast.IfExp):
            yield _Case(_compared(node.test), tuple(_literals([node.body])))
            yield _Case(_compared(node.test), tuple(_literals([node.orelse])))
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            yield _Case(_compared(node), tuple(_literals(node.values)))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            yield _Case((tuple(_literals([node.targets[0].slice])),), tuple(_literals([node.value])))
        elif isinstance(node, ast.Dict) and node not in reduced:
            keys = tuple(_literals([k for k in node.keys if k is not None]))
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None and len(keys) == len(node.keys):
                    yield _Case(((*_literals([key]), *keys),), tuple(_literals([value])))
        elif isinstance(node, ast.Match):
            yield from (_Case(_matched(case), tuple(_given(case.body, {}))) for case in node.cases)


def _conditions(node: ast.AST, outer: tuple[tuple[Any, ...], ...]) -> Iterator[_Case]:
    """Yield the branches of if statements, each with the conditions around it."""
    if isinstance(node, ast.If):
        within = (*outer, *_compared(node.test))
        bound = _bound(node.test)
        yield _Case(within, tuple(_given(node.body, bound)))
        for statement in node.body:
            yield from _conditions(statement, within)
        for statement in node.orelse:
            yield from _conditions(statement, outer)
        return
    for name in ("body", "orelse", "finalbody"):
        yield from _left_over(getattr(node, name, None))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # no expression holds a statement
            yield from _conditions(child, outer)


def _left_over(body: Any) -> Iterator[_Case]:
    """Yield what a block gives where an early return for all other values was passed: ``if x != 7: return x``, then
    49."""
    if not isinstance(body, list):
        return
    for statement, following in pairwise(body):
        unequal = isinstance(statement, ast.If) and [n for n in ast.walk(statement.test) if isinstance(n, ast.NotEq)]
        if unequal and isinstance(statement, ast.If):
            yield _Case(_compared(statement.test, ast.NotEq), tuple(_given([following, *statement.orelse], {})))


def _given(body: list[ast.stmt], bound: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the values that a block returns, yields or assigns: literals, and what they come to where ``bound`` names
    are known."""
    for statement in body:
        value = getattr(statement, "value", None)
        value = value.value if isinstance(value, ast.Yield) else value
        if isinstance(statement, ast.Return | ast.Assign | ast.AnnAssign | ast.Expr) and isinstance(value, ast.expr):
            yield from _literals([value])
            if isinstance(value, ast.BinOp):
                yield from _computed(value, bound)
        elif isinstance(statement, ast.Try | ast.With | ast.For):
            yield from _given(statement.body, bound)


def _bound(test: ast.expr) -> dict[str, Any]:
    """Return the names that a condition holds to one literal."""
    found: dict[str, Any] = {}
    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
            for name, side in ((node.left, node.comparators[0]), (node.comparators[0], node.left)):
                if isinstance(name, ast.Name):
                    found.update((name.id, value) for value in _literals([side]))
    return found


def _computed(node: ast.expr, bound: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what simple arithmetic of numbers comes to."""
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
    if isinstance(node, ast.Name):
        if isinstance(bound.get(node.id), int | float):
            yield bound[node.id]
    elif isinstance(node, ast.BinOp) and type(node.op) in operators:
        sides = [next(_computed(side, bound), None) for side in (node.left, node.right)]
        if None not in sides:
            yield operators[type(node.op)](*sides)
    else:
        yield from (value for value in _literals([node]) if isinstance(value, int | float) and abs(value) < 1e12)


def _asked_of_a_reduction(nodes: list[ast.AST]) -> set[ast.AST]:
    """Return the tables that are asked for something computed of an argument: ``{1: "st"}.get(n % 10)`` is a rule."""
    tables: dict[str, ast.AST] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict):
            tables[node.targets[0].id] = node.value
    found: set[ast.AST] = set()
    for node in nodes:
        table: ast.AST | None = None
        key: ast.expr | None = None
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            table, key = node.func.value, node.args[0]
        elif isinstance(node, ast.Subscript):
            table, key = node.value, node.slice
        if isinstance(key, ast.BinOp):
            table = tables.get(table.id, table) if isinstance(table, ast.Name) else table
            found |= {table} if table is not None else set()
    return found


def _literals(nodes: Iterable[ast.expr]) -> Iterator[Any]:
    for node in nodes:
        try:
            yield ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue


def _compared(test: ast.expr, kind: type[ast.cmpop] = ast.Eq) -> tuple[tuple[Any, ...], ...]:
    """Return the literals that a condition compares with by an operator: those of one membership together."""
    found: list[tuple[Any, ...]] = []
    for node in ast.walk(test):
        if not isinstance(node, ast.Compare):
            continue
        for by, side in zip(node.ops, node.comparators, strict=True):
            if any(isinstance(one, ast.BinOp) for one in (node.left, side)):
                continue  # a rule over what is computed of an argument
            if isinstance(by, kind | ast.Is):
                found += [(value,) for value in _literals([node.left, side])]
                tuples = [s for s in (node.left, side) if isinstance(s, ast.Tuple)]
                found += [(value,) for s in tuples for value in _literals(s.elts)]
            elif isinstance(by, ast.In) and isinstance(side, ast.Tuple | ast.List | ast.Set | ast.Dict):
                elements = side.keys if isinstance(side, ast.Dict) else side.elts
                found.append(tuple(_literals([e for e in elements if e is not None])))
    return tuple(found)


def _matched(case: ast.match_case) -> tuple[tuple[Any, ...], ...]:
    patterns = [node for node in ast.walk(case.pattern) if isinstance(node, ast.MatchValue | ast.MatchSingleton)]
    values = [tuple(_literals([p.value])) if isinstance(p, ast.MatchValue) else (p.value,) for p in patterns]
    return (*values, *(_compared(case.guard) if case.guard else ()))
