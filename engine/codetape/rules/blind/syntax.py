"""Pieces of a test's syntax: what a statement binds and uses, known values written out, and how a claim is asked."""

import ast
import cmath
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

ASK, GOT = "__ask__", "__got__"
"""What the functions are handed: a context that asks the claim of a number, and what hands a value over in it."""


class Unplain(Exception):
    """A test of another form: it is run as it is, and nothing of it is asked blind."""


def bound_by(node: ast.AST) -> set[str]:
    """Return the names that a statement binds, functions' insides apart."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def loaded(node: ast.AST) -> set[str]:
    """Return the names that a statement uses."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


class Substitute(ast.NodeTransformer):
    """Puts known ``values`` in the place of the names that stand for them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return the value's expression for a name that is used and known."""
        if isinstance(node.ctx, ast.Load) and node.id in self.values:
            return written(self.values[node.id])
        return node


def written(value: Any) -> ast.expr:
    """Return the expression of a known value. Raises Unplain for one that cannot be written."""
    text = repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        text = f"float({text!r})"
    elif _holds_odd_floats(value):
        raise Unplain
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unplain from error


def _holds_odd_floats(value: Any) -> bool:
    """Whether a number that no literal can write is among the parts of a value."""
    if isinstance(value, dict):
        return any(map(_holds_odd_floats, [*value, *value.values()]))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_holds_odd_floats, value))
    return isinstance(value, float | complex) and not cmath.isfinite(value)


def got(value: ast.expr) -> ast.Expr:
    """Return the statement that hands a value over."""
    return ast.Expr(ast.Call(ast.Name(GOT, ast.Load()), [value], []))


def asking(number: int, body: list[ast.stmt]) -> ast.With:
    """Ask one claim. One that waits for an exception looks like any other."""
    return ast.With(items=[ast.withitem(ast.Call(ast.Name(ASK, ast.Load()), [ast.Constant(number)], []))], body=body)


def shared(function: ast.AST) -> frozenset[str]:
    """Return the names that are used more than once, and not only as one side of a comparison."""
    sides = {
        id(side)
        for node in ast.walk(function)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
    }
    loads = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    counts = Counter(n.id for n in loads)
    return frozenset(n.id for n in loads if counts[n.id] > 1 and id(n) not in sides)


def is_immutable(value: Any) -> bool:
    """Whether nothing of a known value can be changed."""
    if isinstance(value, tuple):
        return all(map(is_immutable, value))
    return not isinstance(value, list | dict | set)


def unpacked(target: ast.expr, item: Any) -> dict[str, Any]:
    """Return what the names of a loop's target stand for in one turn. Raises Unplain where they do not fit."""
    if isinstance(target, ast.Name):
        return {target.id: item}
    if isinstance(target, ast.Tuple | ast.List) and isinstance(item, list | tuple) and len(item) == len(target.elts):
        values: dict[str, Any] = {}
        for part, value in zip(target.elts, item, strict=True):
            values |= unpacked(part, value)
        return values
    raise Unplain


def asserts(statement: ast.stmt) -> bool:
    """Whether an assertion lies within a statement."""
    return any(
        isinstance(n, ast.Assert)
        or (isinstance(n, ast.Attribute) and n.attr.startswith("assert"))
        or (isinstance(n, ast.Call) and ast.unparse(n.func).rpartition(".")[2] in ("raises", "fail", "approx"))
        for n in ast.walk(statement)
    )


def raising(statement: ast.With) -> tuple[str, ast.expr | None] | None:
    """Return the exception's name and the pattern that ``pytest.raises`` waits for; None for another statement."""
    if len(statement.items) != 1:
        return None
    context, bound = statement.items[0].context_expr, statement.items[0].optional_vars
    if not isinstance(context, ast.Call) or bound is not None or len(context.args) != 1:
        return None
    if ast.unparse(context.func) not in ("pytest.raises", "raises", "self.assertRaises"):
        return None
    pattern = next((k.value for k in context.keywords if k.arg == "match"), None)
    if any(k.arg != "match" for k in context.keywords) or not isinstance(context.args[0], ast.Name):
        return None
    return context.args[0].id, pattern
