"""Reads one test: which claims it makes in a plain form, and what asks them without what it expects.

Statement by statement: of an assertion that compares with a known value, the expression stays and the value is taken
out; what stands before it stays; an expectation that cannot be told from what is tested keeps the whole test out.
"""

import ast
import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codetape.rules.blind.claims import BlindClaim, Expectation
from codetape.rules.blind.constants import NotConstant, constant, is_constant
from codetape.rules.blind.inputs import Inputs
from codetape.rules.blind.surroundings import Surroundings
from codetape.rules.blind.syntax import (
    Substitute,
    Unplain,
    asking,
    asserts,
    got,
    is_immutable,
    loaded,
    raising,
    shared,
    unpacked,
    written,
)

FIXTURES = frozenset({"capsys", "tmp_path"})
"""Of pytest's, those that a function may ask for without pytest."""
MAX_CLAIMS = 2000  # of one file
MAX_CASES = 500  # of one test: parameters and loops together
_MIRRORED = {"==": "==", "!=": "!=", "is": "is", "is not": "is not", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_OPERATORS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not", ast.Lt: "<", ast.Gt: ">", ast.LtE: "<=",
    ast.GtE: ">=", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_UNITTEST = {
    "assertEqual": "==", "assertEquals": "==", "assertListEqual": "==", "assertDictEqual": "==",
    "assertTupleEqual": "==", "assertSetEqual": "==", "assertMultiLineEqual": "==", "assertNotEqual": "!=",
    "assertIs": "is", "assertIsNot": "is not", "assertLess": "<", "assertLessEqual": "<=", "assertGreater": ">",
    "assertGreaterEqual": ">=",
}  # fmt: skip
_ASYNC_MARKS = frozenset({"asyncio", "anyio"})


@dataclass
class TestClaims:
    """One test, read: a body for each case of its parameters, and its claims in their order."""

    bodies: list[list[ast.stmt]] = field(default_factory=list)
    claims: list[BlindClaim] = field(default_factory=list)


class ClaimReader:
    """Reads one test. Raises Unplain where something of it cannot be asked without what it expects."""

    def __init__(self, file: Surroundings, name: str, *, is_method: bool, first: int) -> None:
        self.file, self.name, self.is_method, self.first = file, name, is_method, first
        self.result = TestClaims()
        self.known: dict[str, Any] = {}
        self.once: frozenset[str] = frozenset()
        self.shared: frozenset[str] = frozenset()
        self.partial = False
        self.assigned: dict[str, ast.expr] = {}
        self.named: set[str] = set()
        self.kept: list[ast.stmt] = []

    def read(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> TestClaims:
        """Return the test's claims, and what asks for them."""
        cases = self._cases(function)
        names = [a.arg for a in function.args.args][1 if self.is_method else 0 :]
        others = set(names) - {name for case in cases for name in case} - FIXTURES
        if others or function.args.vararg or function.args.kwarg or function.args.kwonlyargs:
            raise Unplain  # a fixture, or a form of its own
        bound = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
        inner = [n.arg for n in ast.walk(function) if isinstance(n, ast.arg) and n not in function.args.args]
        counts = Counter([*bound, *inner])
        self.once = frozenset(name for name, count in counts.items() if count == 1 and name not in inner)
        self.shared = shared(function)
        if set(counts) & {name for case in cases for name in case}:
            raise Unplain  # a parameter that is bound again
        for case in cases:
            self.known = {
                n: v for n, v in self.file.constants.items() if n not in counts and not self._may_change(n, v)
            }
            prepared = self._bind(case)
            body = self._block(function.body)
            if not body:
                raise Unplain
            self.result.bodies.append([*prepared, *body])
        if any(self.named & loaded(statement) and not self._asks_own(statement) for statement in self.kept):
            raise Unplain  # what is expected stands in something that is left
        return self.result

    def _asks_own(self, statement: ast.stmt) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self.file.own for n in ast.walk(statement))

    def _may_change(self, name: str, value: Any) -> bool:
        """Whether what a name holds could be changed between two uses: then it stands for no known value."""
        return name in self.shared and not is_immutable(value)

    def _bind(self, values: Mapping[str, Any]) -> list[ast.stmt]:
        """Let names stand for values, and return the assignments of those that may change."""
        assignments: list[ast.stmt] = []
        for name, value in values.items():
            if self._may_change(name, value):
                assignments.append(ast.Assign(targets=[ast.Name(name, ast.Store())], value=written(value)))
            else:
                self.known[name] = value
        return assignments

    def _cases(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[dict[str, Any]]:
        """Return what the parameters hold in each case, by the decorators; one case without any where there are none."""
        cases: list[dict[str, Any]] = [{}]
        for decorator in function.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            mark = ast.unparse(call.func if call else decorator).removeprefix("pytest.").removeprefix("mark.")
            if mark in _ASYNC_MARKS and isinstance(function, ast.AsyncFunctionDef):
                continue
            if (
                mark != "parametrize"
                or call is None
                or len(call.args) != 2
                or (call.keywords and any(k.arg != "ids" for k in call.keywords))
            ):
                raise Unplain
            named = constant(call.args[0], self.file.constants)
            names = [n.strip() for n in named.split(",")] if isinstance(named, str) else list(named)
            rows = [self._row(item, names) for item in self._items(call.args[1])]
            cases = [{**case, **row} for row in rows for case in cases]
            if not cases or len(cases) > MAX_CASES:
                raise Unplain
        return cases

    def _items(self, node: ast.expr) -> list[Any]:
        if isinstance(node, ast.List | ast.Tuple):
            return [self._param(item) for item in node.elts]
        items = constant(node, self.file.constants)
        if not isinstance(items, list | tuple):
            raise Unplain
        return list(items)

    def _param(self, node: ast.expr) -> Any:
        """Return one row: a value, or ``pytest.param(...)`` without marks."""
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "param":
            if any(k.arg != "id" for k in node.keywords):
                raise Unplain
            values = tuple(constant(argument, self.file.constants) for argument in node.args)
            return values if len(values) != 1 else values[0]
        return constant(node, self.file.constants)

    @staticmethod
    def _row(item: Any, names: list[str]) -> dict[str, Any]:
        if len(names) == 1:
            return {names[0]: item}
        if not isinstance(item, list | tuple) or len(item) != len(names):
            raise Unplain
        return dict(zip(names, item, strict=True))

    # ---- statements

    def _block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        body: list[ast.stmt] = []
        for statement in statements:
            body += self._statement(statement)
        return body

    def _statement(self, statement: ast.stmt) -> list[ast.stmt]:
        if isinstance(statement, ast.Pass) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            return []
        if isinstance(statement, ast.Assert):
            return self._assertion(statement.test, statement.lineno)
        if isinstance(statement, ast.Assign) and self._names_value(statement):
            return []
        if isinstance(statement, ast.For) and not statement.orelse and asserts(statement):
            return self._loop(statement)
        if isinstance(statement, ast.With) and (form := raising(statement)) is not None:
            return self._expected_exception(statement, *form)
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and self.is_method:
            method = ast.unparse(statement.value.func)
            if method.startswith("self.assert"):
                return self._unittest(method.removeprefix("self."), statement.value)
        if asserts(statement) or {"self", "pytest"} & loaded(statement):
            raise Unplain
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            function = statement.value.func
            if isinstance(function, ast.Name) and function.id == "print" and not self._asks_own(statement):
                return []
            if isinstance(function, ast.Name) and function.id not in self.file.own:
                raise Unplain  # a helper may assert, or tell
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            self.assigned[statement.targets[0].id] = statement.value
        self.kept.append(statement)
        return [self._substituted(statement)]

    def _names_value(self, statement: ast.Assign) -> bool:
        """Whether a statement only names a value; the name then stands for it, and it may be what is expected."""
        target = statement.targets[0]
        if len(statement.targets) != 1 or not isinstance(target, ast.Name) or target.id not in self.once:
            return False
        try:
            value = constant(statement.value, self.known)
        except NotConstant:
            return False
        if self._may_change(target.id, value):
            return False
        self.known[target.id] = value
        return True

    def _loop(self, statement: ast.For) -> list[ast.stmt]:
        """Unroll a loop over known cases: each asks with its own, and holds its own expectation back."""
        items = constant(statement.iter, self.known)
        names = [n.id for n in ast.walk(statement.target) if isinstance(n, ast.Name)]
        if not isinstance(items, list | tuple | dict | str) or len(items) > MAX_CASES or not set(names) <= self.once:
            raise Unplain
        before, body = self.known, list[ast.stmt]()
        for item in items:
            self.known = dict(before)
            body += self._bind(unpacked(statement.target, item))
            body += self._block(statement.body)
            if len(self.result.claims) > MAX_CLAIMS:
                raise Unplain
        self.known = before
        return body

    # ---- assertions

    def _assertion(self, test: ast.expr, line: int) -> list[ast.stmt]:
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            return [s for part in test.values for s in self._assertion(part, line)]
        parts = test.values if isinstance(test, ast.BoolOp) else [test]
        try:
            read = [self._compared(part) for part in parts]
        except (Unplain, NotConstant):
            if any(isinstance(n, ast.Call | ast.Await | ast.NamedExpr) for n in ast.walk(test)):
                raise  # what it calls may prepare what follows, and it may hold what is expected
            self.partial = True
            return []
        return self._ask([expression for expression, _ in read], [expectation for _, expectation in read], line)

    def _compared(self, test: ast.expr) -> tuple[ast.expr, Expectation]:
        if (near := self._near(test)) is not None:
            return near
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return self._sides(test.left, _OPERATORS[type(test.ops[0])], test.comparators[0])
        negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        call = test.operand if isinstance(test, ast.UnaryOp) and negated else test
        if isinstance(call, ast.Compare) and negated:
            expression, expectation = self._compared(call)
            opposite = {"==": "!=", "!=": "==", "is": "is not", "is not": "is", "in": "not in", "not in": "in"}
            if expectation.operator not in opposite or expectation.relative or expectation.absolute:
                raise Unplain
            return expression, Expectation(opposite[expectation.operator], expectation.value)
        if not self._is_own_call(call):
            raise Unplain  # a truth that something of the code's could say of itself
        return call, Expectation("false" if negated else "true", not negated)

    def _is_own_call(self, node: ast.expr) -> bool:
        """Whether an expression is what the solution itself returns."""
        call = node.value if isinstance(node, ast.Await) else node
        if not isinstance(call, ast.Call):
            return False
        function = call.func
        return isinstance(function, ast.Name) and function.id in self.file.own

    def _sides(self, left: ast.expr, by: str, right: ast.expr) -> tuple[ast.expr, Expectation]:
        for tested, other, operator in ((left, right, by), (right, left, _MIRRORED.get(by, ""))):
            if not operator or is_constant(tested, self.known):
                continue
            try:
                expectation = self._expected(operator, other)
            except NotConstant:
                continue
            if isinstance(other, ast.Name):
                self.named.add(other.id)
            return tested, expectation
        raise Unplain

    def _expected(self, by: str, node: ast.expr) -> Expectation:
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "approx" and node.args:
            if by not in ("==", "!="):
                raise NotConstant
            options = {k.arg or "": constant(k.value, self.known) for k in node.keywords}
            options |= dict(zip(("rel", "abs"), (constant(a, self.known) for a in node.args[1:3]), strict=False))
            absolute = options.get("abs")
            relative = options.get("rel", 1e-6 if absolute is None else 0.0)
            return Expectation(
                by,
                constant(node.args[0], self.known),
                float(relative or 0),
                float(1e-12 if absolute is None else absolute),
            )
        return Expectation(by, constant(node, self.known))

    def _unittest(self, method: str, call: ast.Call) -> list[ast.stmt]:
        arguments, line = call.args, call.lineno
        if method in _UNITTEST and len(arguments) >= 2:
            expression, expectation = self._sides(arguments[0], _UNITTEST[method], arguments[1])
        elif method in ("assertTrue", "assertFalse") and arguments:
            wanted = arguments[0] if method == "assertTrue" else ast.UnaryOp(ast.Not(), arguments[0])
            return self._assertion(wanted, line)
        elif method in ("assertIsNone", "assertIsNotNone") and arguments:
            by = "is" if method == "assertIsNone" else "is not"
            expression, expectation = self._sides(arguments[0], by, ast.Constant(None))
        elif method in ("assertIn", "assertNotIn") and len(arguments) >= 2:
            by = "in" if method == "assertIn" else "not in"
            expression, expectation = self._sides(arguments[0], by, arguments[1])
        elif method == "assertAlmostEqual" and len(arguments) == 2 and not call.keywords:
            expression, plain = self._sides(arguments[0], "==", arguments[1])
            expectation = Expectation("==", plain.value, 0.0, 0.5e-7)
        else:
            raise Unplain
        return self._ask([expression], [expectation], line)

    def _expected_exception(self, statement: ast.With, name: str, pattern: ast.expr | None) -> list[ast.stmt]:
        matched = constant(pattern, self.known) if pattern is not None else ""
        if not isinstance(matched, str) or len(statement.body) != 1 or asserts(statement.body[0]):
            raise Unplain
        asked = self._substituted(statement.body[0])
        number = self._claimed(ast.unparse(asked), (Expectation("raises", name, pattern=matched),), statement.lineno)
        if isinstance(asked, ast.Expr):
            asked = got(asked.value)
        return [asking(number, [asked])]

    def _ask(self, expressions: list[ast.expr], expectations: list[Expectation], line: int) -> list[ast.stmt]:
        asked = [self._substituted(e) for e in expressions]
        if any({"self", "pytest"} & loaded(e) for e in asked) or any(
            map(Inputs(self.file.own, self.assigned).tell, asked)
        ):
            raise Unplain
        number = self._claimed(" or ".join(ast.unparse(e) for e in asked), tuple(expectations), line)
        return [asking(number, [got(e) for e in asked])]

    def _near(self, test: ast.expr) -> tuple[ast.expr, Expectation] | None:
        """Return what ``abs(CALL - VALUE) < LIMIT`` and ``math.isclose(CALL, VALUE)`` claim: an approximation."""
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Lt | ast.LtE):
            left = test.left
            named = isinstance(left, ast.Call) and isinstance(left.func, ast.Name) and left.func.id == "abs"
            if isinstance(left, ast.Call) and named and len(left.args) == 1:
                inner = left.args[0]
                if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub):
                    limit = constant(test.comparators[0], self.known)
                    expression, plain = self._sides(inner.left, "==", inner.right)
                    return expression, Expectation("==", plain.value, 0.0, float(limit))
        if isinstance(test, ast.Call) and ast.unparse(test.func) in ("math.isclose", "isclose") and len(test.args) == 2:
            options = {k.arg: float(constant(k.value, self.known)) for k in test.keywords}
            expression, plain = self._sides(test.args[0], "==", test.args[1])
            return expression, Expectation("==", plain.value, options.get("rel_tol", 1e-9), options.get("abs_tol", 0.0))
        return None

    def _claimed(self, call: str, expectations: tuple[Expectation, ...], line: int) -> int:
        self.result.claims.append(BlindClaim(self.name, line, call, expectations))
        return self.first + len(self.result.claims) - 1

    def _substituted(self, node: Any) -> Any:
        """Return a copy with known values in the place of the names that the test gave them."""
        kept = self.file.constants
        local = {name: value for name, value in self.known.items() if name not in kept or value is not kept[name]}
        return ast.fix_missing_locations(Substitute(local).visit(copy.deepcopy(node)))
