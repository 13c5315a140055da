"""Expressions of a test that stand for a value known beforehand: what it expects, cases, and what names hold."""

import ast
import operator
from collections.abc import Mapping
from typing import Any

MAX_ITEMS = 10_000  # of what a multiplication may make
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_EMPTY = {"set": set, "frozenset": frozenset, "dict": dict, "list": list, "tuple": tuple, "str": str, "bytes": bytes}
_MAKERS = {"frozenset": frozenset, "set": set, "tuple": tuple, "list": list}
_FLOATS = frozenset({"inf", "-inf", "+inf", "nan", "infinity", "-infinity"})


class NotConstant(Exception):
    """An expression whose value is known only by running it."""


def constant(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """Return an expression's value, where literals, simple arithmetic and ``known`` names make it. Raises NotConstant."""
    try:
        return _value(node, known)
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError, IndexError, KeyError) as error:
        raise NotConstant from error


def is_constant(node: ast.expr, known: Mapping[str, Any]) -> bool:
    """Whether an expression's value is known beforehand."""
    try:
        constant(node, known)
    except NotConstant:
        return False
    return True


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        items = [_value(item, known) for item in node.elts]
        return {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)](items)
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key, known): _value(value, known) for key, value in pairs if key is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, known)
        if type(value) not in (int, float, complex):
            raise NotConstant
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _computed(node, known)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _made(node.func.id, [_value(argument, known) for argument in node.args])
    raise NotConstant


def _computed(node: ast.BinOp, known: Mapping[str, Any]) -> Any:
    left, right = _value(node.left, known), _value(node.right, known)
    if isinstance(node.op, ast.Pow):
        bounded = type(left) in (int, float) and type(right) in (int, float) and abs(left) < 1e6 and abs(right) < 400
        if not bounded:
            raise NotConstant
        return left**right
    if type(node.op) not in _ARITHMETIC:
        raise NotConstant
    if isinstance(node.op, ast.Mult):
        sizes = [len(side) for side in (left, right) if isinstance(side, str | bytes | list | tuple)]
        times = [abs(side) for side in (left, right) if type(side) is int]
        if sizes and (len(sizes) > 1 or not times or sizes[0] * times[0] > MAX_ITEMS):
            raise NotConstant
    if isinstance(node.op, ast.Mod) and not isinstance(left, int | float):
        raise NotConstant  # formatting may make a text of any length
    return _ARITHMETIC[type(node.op)](left, right)


def _made(name: str, arguments: list[Any]) -> Any:
    if not arguments and name in _EMPTY:
        return _EMPTY[name]()
    if name == "float" and len(arguments) == 1 and str(arguments[0]).strip().lower() in _FLOATS:
        return float(arguments[0])
    if name in _MAKERS and len(arguments) == 1 and isinstance(arguments[0], list | tuple | set | str):
        return _MAKERS[name](arguments[0])
    raise NotConstant
