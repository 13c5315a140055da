"""Failing assertions as claims: the call, what the test expects of it, and whether a value agrees.

Read are ``assert CALL == LITERAL`` (either way round, ``is`` for constants), ``== approx(LITERAL)`` and
``with pytest.raises(E): CALL``; any other form is no claim. Locals that the test assigns once are put in place,
and so are parameters, so that a call stands by itself. Where calls come before it that may change what it gives (a
method that changes its object), they are part of it: statements, the last of which is the call.
"""

import ast
import builtins
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codetape.domain.reply_shapes import Opinion
from codetape.domain.report import TestResult
from codetape.domain.task import SOLUTION_FILE
from codetape.rules.pytest_source import file_of, name_of
from codetape.rules.rule_versions import RULES_VERSION
from codetape.rules.source_tree import tree_of

_NOTHING = object()
RAISES = "raises "
"""How the text of what the code gave begins where it raised an exception."""


@dataclass(frozen=True)
class Claim:
    """What one assertion says of one call. ``relative`` and ``absolute`` are its tolerance for floats."""

    call: str
    kind: str
    expected: str
    literal_right: bool = True
    relative: float = 0.0
    absolute: float = 0.0


def claim_of(source: str, result: TestResult, rules: int = RULES_VERSION) -> Claim | None:
    """Return the claim that failed, or None where the assertion has another form or does not stand by itself."""
    try:
        return _claim(source, result, rules)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _line(result: TestResult) -> int:
    """Return the line of the test's file that a failure came through last."""
    lines = [frame.line for frame in result.frames if frame.file == file_of(result.id)]
    return lines[-1] if lines else result.frames[-1].line if result.frames else 0


def _claim(source: str, result: TestResult, rules: int) -> Claim | None:
    line = (_line(result) if rules > 2 else result.frames[-1].line) if result.frames else 0
    function = _function(ast.parse(source).body, name_of(result.id).split("::"))
    at = (
        next((n for n, s in enumerate(function.body) if s.lineno <= line <= (s.end_lineno or 0)), -1)
        if function
        else -1
    )
    if function is None or at < 0:
        return None
    known = {**_parameters(result.parameters, function, line), **_locals(function, line)}
    if all(map(_harmless, function.body[:at])):
        claim = _read(function.body[at], known, any_expression=rules > 2)
        loose = _bound_in(function) - set(known)
        if claim and _stands_alone(claim.call, source, loose):
            return claim
    if rules < 3 or not all(map(_plain, function.body[:at])):
        return None
    claim = _read(function.body[at], _parameters(result.parameters, function, line), any_expression=True)
    before = [text for statement in function.body[:at] for text in _kept(statement)]
    whole = "\n".join([*before, claim.call]) if claim else ""
    arguments = {a.arg for a in function.args.args} - {"self", *result.parameters}
    return replace(claim, call=whole) if claim and _stands_alone(whole, source, arguments) else None


def _plain(statement: ast.stmt) -> bool:
    """Whether a statement before an assertion can be told as part of what is asked: names given, calls, claims."""
    simple = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr | ast.Assert | ast.Delete | ast.Pass
    return isinstance(statement, simple)


def _kept(statement: ast.stmt) -> list[str]:
    """Return what a statement does, without what it claims."""
    if isinstance(statement, ast.Assert):
        calls = [n for n in ast.walk(statement.test) if isinstance(n, ast.Call)]
        return [ast.unparse(calls[0])] if calls else []
    if isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    ):
        return []
    return [ast.unparse(statement)]


def amended(source: str, result: TestResult, value: str) -> str:
    """Return the file with another literal in the place of what the failing assertion expects of its call.

    Empty where the expected value is not written in that assertion as a literal: behind a name, a parameter or a
    tolerance.
    """
    try:
        place = _expected_place(source, result)
        ast.literal_eval(value)
        if place is None:
            return ""
        lines = [line.encode() for line in source.split("\n")]  # the parser counts columns in bytes
        first, last = place.lineno - 1, (place.end_lineno or place.lineno) - 1
        tail = lines[last][place.end_col_offset :]
        lines[first : last + 1] = [lines[first][: place.col_offset] + value.strip().encode() + tail]
        text = b"\n".join(lines).decode()
        ast.parse(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return ""
    return text


def _expected_place(source: str, result: TestResult) -> ast.expr | None:
    line = _line(result)
    function = _function(tree_of(source).body, name_of(result.id).split("::"))
    statement = next((s for s in function.body if s.lineno <= line <= (s.end_lineno or 0)), None) if function else None
    if not isinstance(statement, ast.Assert) or not isinstance(statement.test, ast.Compare):
        return None
    for side in (statement.test.comparators[0], statement.test.left):
        try:
            ast.literal_eval(side)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        return side
    return None


def _harmless(statement: ast.stmt) -> bool:
    """Whether what stands before an assertion leaves its call to speak for itself: names given, claims made, words."""
    if isinstance(statement, ast.Assign):
        return len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
    return isinstance(statement, ast.Assert) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _function(body: list[ast.stmt], path: list[str]) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in body:
        if isinstance(node, ast.ClassDef) and len(path) > 1 and node.name == path[0]:
            return _function(node.body, path[1:])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and path == [node.name]:
            return node
    return None


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef, line: int) -> dict[str, ast.expr]:
    """Return the locals that stand for one value: assigned once, plainly, and not touched before the assertion."""
    plain = {
        node.targets[0].id: node.value
        for node in function.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.lineno < line
    }
    return {name: value for name, value in plain.items() if _untouched(name, value, function, line, stores=1)}


def _untouched(name: str, value: ast.expr, function: ast.AST, line: int, *, stores: int) -> bool:
    """Whether a name is bound so often and no more, and nothing can have changed its value before the line."""
    uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name]
    loads = [n for n in uses if isinstance(n.ctx, ast.Load) and n.lineno < line]
    bound = len([n for n in uses if not isinstance(n.ctx, ast.Load)])
    return bound == stores and (not loads or _immutable(value))


def _immutable(value: ast.expr) -> bool:
    try:
        return isinstance(ast.literal_eval(value), str | bytes | int | float | complex | bool | None)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _bound_in(function: ast.AST) -> set[str]:
    """Return the names that a function binds itself."""
    names = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}


def _parameters(
    parameters: Mapping[str, str], function: ast.FunctionDef | ast.AsyncFunctionDef, line: int
) -> dict[str, ast.expr]:
    """Return the parameters of a parametrised test that are literals, under the same rule as locals."""
    found: dict[str, ast.expr] = {}
    for name, text in parameters.items():
        try:
            ast.literal_eval(text)
            value = ast.parse(text, mode="eval").body
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if _untouched(name, value, function, line, stores=0):
            found[name] = value
    return found


class _Place(ast.NodeTransformer):
    def __init__(self, known: Mapping[str, ast.expr]) -> None:
        self.known = known
        self.depth = 0

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self.known and self.depth < 8:
            self.depth += 1
            placed = self.visit(ast.parse(ast.unparse(self.known[node.id]), mode="eval").body)
            self.depth -= 1
            return placed  # type: ignore[no-any-return]  # a visitor's return is untyped
        return node


def _read(statement: ast.stmt, known: Mapping[str, ast.expr], *, any_expression: bool = False) -> Claim | None:
    place = _Place(known)
    if isinstance(statement, ast.Assert):
        test = statement.test
        if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.Is):
            return None
        left, right = place.visit(test.left), place.visit(test.comparators[0])
        forward = _equality(left, right, True, any_expression=any_expression)
        return forward or _equality(right, left, False, any_expression=any_expression)
    if isinstance(statement, ast.With) and len(statement.items) == 1 and len(statement.body) == 1:
        context, only = statement.items[0].context_expr, statement.body[0]
        if isinstance(context, ast.Call) and _called(context) == "raises" and context.args:
            expression = getattr(only, "value", None)
            if isinstance(expression, ast.expr) and isinstance(context.args[0], ast.Name | ast.Attribute):
                call = place.visit(expression)
                return Claim(ast.unparse(call), "raises", ast.unparse(context.args[0]).rpartition(".")[2])
    return None


def _equality(call: ast.expr, value: ast.expr, literal_right: bool, *, any_expression: bool) -> Claim | None:
    if (isinstance(call, ast.Call) and _called(call) == "approx") or not (any_expression or isinstance(call, ast.Call)):
        return None
    if not any(isinstance(node, ast.Call | ast.Attribute | ast.Subscript) for node in ast.walk(call)):
        return None
    relative = absolute = 0.0
    if isinstance(value, ast.Call) and _called(value) == "approx" and value.args:
        options = {k.arg: _number(k.value) for k in value.keywords}
        placed = [_number(argument) for argument in value.args[1:3]]
        options |= dict(zip(("rel", "abs"), placed, strict=False))
        relative, absolute = options.get("rel", 1e-6), options.get("abs", 1e-12)
        value = value.args[0]
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return Claim(ast.unparse(call), "value", ast.unparse(value), literal_right, relative, absolute)


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _number(node: ast.expr) -> float:
    try:
        return float(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError):
        return 0.0


def _stands_alone(call: str, source: str, loose: set[str]) -> bool:
    """Whether the call is one of the solution, and can be understood by itself.

    Every name in it is a builtin, bound by itself, or imported; and one at least comes from the solution:
    what a file on disk holds, say, is nothing that the specification can be asked about.
    """
    tree = ast.parse(call)
    scopes = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr)
    if any(isinstance(node, scopes) for node in ast.walk(tree)):
        return False  # names of their own: what was put in place could be another one's
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
    imports = [n for n in tree_of(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {_bound(alias) for node in imports for alias in node.names}
    own = {_bound(a) for n in imports for a in n.names if getattr(n, "module", a.name) == "solution"}
    loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return (
        bool(loaded & own)
        and not (loaded - bound) & loose
        and all(name in bound | imported or hasattr(builtins, name) for name in loaded)
    )


def _bound(alias: ast.alias) -> str:
    return (alias.asname or alias.name).partition(".")[0]


def actual_of(claim: Claim, result: TestResult) -> str:
    """Return the representation of what the code gave; empty where the report does not hold it."""
    if result.frames and result.frames[-1].file == SOLUTION_FILE:
        return f"{RAISES}{result.exception}"
    if claim.kind == "raises":
        return "no exception" if "DID NOT RAISE" in result.message else ""
    if result.comparison is None:
        return ""
    return result.comparison.left if claim.literal_right else result.comparison.right


def same_opinion(one: Opinion, other: Opinion, claim: Claim) -> bool:
    """Whether two opinions say the same of a claim's call."""
    if one.verdict != other.verdict or one.verdict == "silent":
        return one.verdict == other.verdict
    if one.verdict == "exception":
        return one.value.strip().rpartition(".")[2] == other.value.strip().rpartition(".")[2]
    return agrees(one, other.value, replace(claim, kind="value"))


def agrees(opinion: Opinion, value: str, claim: Claim) -> bool:
    """Whether an opinion says the value (a representation, or an exception's name for `raises`)."""
    if value.startswith(RAISES):
        return opinion.verdict == "exception" and opinion.value.strip().rpartition(".")[2] == value.removeprefix(RAISES)
    if claim.kind == "raises":
        if value == "no exception":
            return opinion.verdict == "value"
        return opinion.verdict == "exception" and opinion.value.strip().rpartition(".")[2] == value
    if opinion.verdict != "value":
        return False
    mine, other = _value(opinion.value), _value(value)
    if mine is _NOTHING or other is _NOTHING:
        return opinion.value.strip() == value.strip() and bool(value.strip())
    return equal(mine, other, claim.relative, claim.absolute)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _NOTHING


def equal(one: Any, other: Any, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Compare by value and type; int and float compare as numbers, as ``==`` in a test does; bool is no number."""
    numbers = (int, float)
    if type(one) in numbers and type(other) in numbers:
        return bool(one == other) or math.isclose(one, other, rel_tol=relative, abs_tol=absolute)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k], relative, absolute) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b, relative, absolute) for a, b in zip(one, other, strict=True))
    return bool(one == other)
