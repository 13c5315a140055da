"""Tests without what they expect: each assertion's expression, to be evaluated where no expected value is.

A test is read statement by statement. Of an assertion that compares with a known value, the expression stays and the
value is taken out; what stands before it (names, calls that prepare) stays; an expectation that cannot be told from
what is tested keeps the whole test out. What is left is a module of functions that only ask.
"""

import ast
import cmath
import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from codetape.rules.blind.constants import NotConstant, constant, is_constant

AT, GOT, RAISING = "__at__", "__got__", "__raising__"
"""What the functions are handed: say which claim is next, hand over a value, and wait for an exception."""
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


@dataclass(frozen=True)
class Expectation:
    """What one evaluated expression is held against. ``value`` is Python's own, taken from the test's source.

    ``operator`` is that of the assertion; ``raises`` wants an exception of the name ``value``, ``true`` and ``false`` a
    truth value. ``relative`` and ``absolute`` are the tolerance of an approximation, ``pattern`` that of a message.
    """

    operator: str
    value: Any
    relative: float = 0.0
    absolute: float = 0.0
    pattern: str = ""


@dataclass(frozen=True)
class BlindClaim:
    """One assertion: the test (``name`` or ``Class::name``), its line, its expressions, and what each is held against.

    It holds where one of the expectations does.
    """

    test: str
    line: int
    call: str
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True)
class BlindFile:
    """A test file without its expectations. Claim n of ``claims`` is asked in ``source`` under its place among all.

    ``whole`` are the tests of which nothing but claims is left out: evaluating those is as good as running them.
    """

    source: str
    claims: tuple[BlindClaim, ...]
    whole: frozenset[str]


class _Unplain(Exception):
    """A test of another form: it is run as it is, and nothing of it is asked blind."""


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
    reader = _FileReader(tree, module)
    functions: list[ast.stmt] = []
    claims: list[BlindClaim] = []
    whole: set[str] = set()
    for _, function, _ in _tests(tree):
        reader.note_tables(function)
    for name, function, is_method in _tests(tree):
        try:
            test = _TestReader(reader, name, is_method=is_method, first=first + len(claims))
            read = test.read(function)
        except (_Unplain, NotConstant, RecursionError):
            continue
        if reader.shows_a_table(read.bodies):
            continue
        if not read.claims or len(claims) + len(read.claims) > MAX_CLAIMS:
            continue
        functions += [
            _function(f"t{len(functions) + number}", body, function) for number, body in enumerate(read.bodies)
        ]
        claims += read.claims
        if not test.partial:
            whole.add(name)
    if not claims:
        return BlindFile("", (), frozenset())
    needed = reader.needed(functions)
    tree = ast.Module(body=[*needed, *functions], type_ignores=[])
    return BlindFile(ast.unparse(ast.fix_missing_locations(tree)) + "\n", tuple(claims), frozenset(whole))


def claimed_tests(source: str) -> frozenset[str]:
    """Return the tests of a file that make a claim which can be asked blind."""
    return frozenset(claim.test for claim in blind_file(source).claims)


def _tests(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Yield the tests of a file by name, once each; classes that prepare something are left out."""
    twice = {name for name, count in Counter(n.name for n in tree.body if hasattr(n, "name")).items() if count > 1}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test") and node.name not in twice:
                yield node.name, node, False
        elif isinstance(node, ast.ClassDef) and node.name not in twice and _is_simple(node):
            names = Counter(m.name for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef))
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name.startswith("test") and names[method.name] == 1:
                    yield f"{node.name}::{method.name}", method, True


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
    names = (AT, GOT, RAISING, *(a.arg for a in test.args.args if a.arg in FIXTURES))
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(n) for n in names], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    kind = type(test)
    return kind(name=name, args=arguments, body=body, decorator_list=[], returns=None)


class _FileReader:
    """What a file says outside its tests: imports, and names that stand for values or help tests."""

    def __init__(self, tree: ast.Module, module: str) -> None:
        self.body = [s for s in tree.body if not _is_test(s)]
        self.own = {
            (alias.asname or alias.name).partition(".")[0]
            for node in self.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
            if getattr(node, "module", None) == module or alias.name == module
        }
        bound = Counter(name for s in self.body for name in _bound(s))
        self.constants: dict[str, Any] = {}
        self.tables: set[str] = set()
        for statement in self.body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if (
                    isinstance(target, ast.Name)
                    and bound[target.id] == 1
                    and is_constant(statement.value, self.constants)
                ):
                    self.constants[target.id] = constant(statement.value, self.constants)

    def note_tables(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Remember the names that stand for cases: what is expected is among them."""
        for node in ast.walk(function):
            if isinstance(node, ast.For):
                self.tables |= _loaded(node.iter)
        for decorator in function.decorator_list:
            self.tables |= _loaded(decorator)

    def shows_a_table(self, bodies: list[list[ast.stmt]]) -> bool:
        """Whether what is left of a test, or a helper of it, uses a name that stands for cases."""
        kept = [*(s for body in bodies for s in body)]
        left = {name for s in [*kept, *self.needed(kept)] for name in _loaded(s)}
        return bool(left & self.tables & self.constants.keys())

    def needed(self, functions: Iterable[ast.stmt]) -> list[ast.stmt]:
        """Return the statements of the file that these functions use: every other one could hold what is expected."""
        wanted = {name for f in functions for name in _loaded(f)}
        while True:
            kept = [s for s in self.body if _bound(s) & wanted and not _is_pytest(s)]
            more = wanted | {name for s in kept for name in _loaded(s)}
            if more == wanted:
                return kept
            wanted = more


def _is_test(statement: ast.stmt) -> bool:
    name = getattr(statement, "name", "")
    return name.startswith("test") or (
        isinstance(statement, ast.ClassDef)
        and (
            name.startswith("Test")
            or bool({"TestCase"} & {ast.unparse(base).rpartition(".")[2] for base in statement.bases})
        )
    )


def _is_pytest(statement: ast.stmt) -> bool:
    """Whether a statement brings pytest in: nothing of it is where code is evaluated."""
    return isinstance(statement, ast.Import | ast.ImportFrom) and (
        (getattr(statement, "module", "") or "").partition(".")[0] == "pytest"
        or any(alias.name.partition(".")[0] == "pytest" for alias in statement.names)
    )


def _bound(node: ast.AST) -> set[str]:
    """Return the names that a statement binds, functions' insides apart."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}


def _loaded(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


@dataclass
class _Read:
    """One test, read: a body for each case of its parameters, and its claims in their order."""

    bodies: list[list[ast.stmt]] = field(default_factory=list)
    claims: list[BlindClaim] = field(default_factory=list)


class _TestReader:
    """Reads one test. Raises _Unplain where something of it cannot be asked without what it expects."""

    def __init__(self, file: _FileReader, name: str, *, is_method: bool, first: int) -> None:
        self.file, self.name, self.is_method, self.first = file, name, is_method, first
        self.result = _Read()
        self.known: dict[str, Any] = {}
        self.once: frozenset[str] = frozenset()
        self.shared: frozenset[str] = frozenset()
        self.partial = False
        self.assigned: dict[str, ast.expr] = {}
        self.named: set[str] = set()
        self.kept: list[ast.stmt] = []

    def read(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> _Read:
        """Return the test's claims, and what asks for them."""
        cases = self._cases(function)
        names = [a.arg for a in function.args.args][1 if self.is_method else 0 :]
        others = set(names) - {name for case in cases for name in case} - FIXTURES
        if others or function.args.vararg or function.args.kwarg or function.args.kwonlyargs:
            raise _Unplain  # a fixture, or a form of its own
        bound = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)]
        inner = [n.arg for n in ast.walk(function) if isinstance(n, ast.arg) and n not in function.args.args]
        counts = Counter([*bound, *inner])
        self.once = frozenset(name for name, count in counts.items() if count == 1 and name not in inner)
        self.shared = _shared(function)
        if set(counts) & {name for case in cases for name in case}:
            raise _Unplain  # a parameter that is bound again
        for case in cases:
            self.known = {
                n: v for n, v in self.file.constants.items() if n not in counts and not self._may_change(n, v)
            }
            prepared = self._bind(case)
            body = self._block(function.body)
            if not body:
                raise _Unplain
            self.result.bodies.append([*prepared, *body])
        if any(self.named & _loaded(statement) and not self._asks_own(statement) for statement in self.kept):
            raise _Unplain  # what is expected stands in something that is left
        return self.result

    def _asks_own(self, statement: ast.stmt) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self.file.own for n in ast.walk(statement))

    def _may_change(self, name: str, value: Any) -> bool:
        """Whether what a name holds could be changed between two uses: then it stands for no known value."""
        return name in self.shared and not _is_immutable(value)

    def _bind(self, values: Mapping[str, Any]) -> list[ast.stmt]:
        """Let names stand for values, and return the assignments of those that may change."""
        assignments: list[ast.stmt] = []
        for name, value in values.items():
            if self._may_change(name, value):
                assignments.append(ast.Assign(targets=[ast.Name(name, ast.Store())], value=_written(value)))
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
                raise _Unplain
            named = constant(call.args[0], self.file.constants)
            self.file.tables |= _loaded(call.args[1])
            names = [n.strip() for n in named.split(",")] if isinstance(named, str) else list(named)
            rows = [self._row(item, names) for item in self._items(call.args[1])]
            cases = [{**case, **row} for row in rows for case in cases]
            if not cases or len(cases) > MAX_CASES:
                raise _Unplain
        return cases

    def _items(self, node: ast.expr) -> list[Any]:
        if isinstance(node, ast.List | ast.Tuple):
            return [self._param(item) for item in node.elts]
        items = constant(node, self.file.constants)
        if not isinstance(items, list | tuple):
            raise _Unplain
        return list(items)

    def _param(self, node: ast.expr) -> Any:
        """Return one row: a value, or ``pytest.param(...)`` without marks."""
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "param":
            if any(k.arg != "id" for k in node.keywords):
                raise _Unplain
            values = tuple(constant(argument, self.file.constants) for argument in node.args)
            return values if len(values) != 1 else values[0]
        return constant(node, self.file.constants)

    @staticmethod
    def _row(item: Any, names: list[str]) -> dict[str, Any]:
        if len(names) == 1:
            return {names[0]: item}
        if not isinstance(item, list | tuple) or len(item) != len(names):
            raise _Unplain
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
        if isinstance(statement, ast.For) and not statement.orelse and _asserts(statement):
            return self._loop(statement)
        if isinstance(statement, ast.With) and (form := _raising(statement)) is not None:
            return self._expected_exception(statement, *form)
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and self.is_method:
            method = ast.unparse(statement.value.func)
            if method.startswith("self.assert"):
                return self._unittest(method.removeprefix("self."), statement.value)
        if _asserts(statement) or {"self", "pytest"} & _loaded(statement):
            raise _Unplain
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            function = statement.value.func
            if isinstance(function, ast.Name) and function.id == "print" and not self._asks_own(statement):
                return []
            if isinstance(function, ast.Name) and function.id not in self.file.own:
                raise _Unplain  # a helper may assert, or tell
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
        self.file.tables |= _loaded(statement.iter)
        names = [n.id for n in ast.walk(statement.target) if isinstance(n, ast.Name)]
        if not isinstance(items, list | tuple | dict | str) or len(items) > MAX_CASES or not set(names) <= self.once:
            raise _Unplain
        before, body = self.known, list[ast.stmt]()
        for item in items:
            self.known = dict(before)
            body += self._bind(_unpacked(statement.target, item))
            body += self._block(statement.body)
            if len(self.result.claims) > MAX_CLAIMS:
                raise _Unplain
        self.known = before
        return body

    # ---- assertions

    def _assertion(self, test: ast.expr, line: int) -> list[ast.stmt]:
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            return [s for part in test.values for s in self._assertion(part, line)]
        parts = test.values if isinstance(test, ast.BoolOp) else [test]
        try:
            read = [self._compared(part) for part in parts]
        except (_Unplain, NotConstant):
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
                raise _Unplain
            return expression, Expectation(opposite[expectation.operator], expectation.value)
        if not self._is_own_call(call):
            raise _Unplain  # a truth that something of the code's could say of itself
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
        raise _Unplain

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
            raise _Unplain
        return self._ask([expression], [expectation], line)

    def _expected_exception(self, statement: ast.With, name: str, pattern: ast.expr | None) -> list[ast.stmt]:
        matched = constant(pattern, self.known) if pattern is not None else ""
        if not isinstance(matched, str) or len(statement.body) != 1 or _asserts(statement.body[0]):
            raise _Unplain
        asked = self._substituted(statement.body[0])
        number = self._claimed(ast.unparse(asked), (Expectation("raises", name, pattern=matched),), statement.lineno)
        if isinstance(asked, ast.Expr):
            asked = _got(asked.value)
        return [_asking(number, [asked])]

    def _ask(self, expressions: list[ast.expr], expectations: list[Expectation], line: int) -> list[ast.stmt]:
        asked = [self._substituted(e) for e in expressions]
        if any({"self", "pytest"} & _loaded(e) for e in asked) or any(map(self._tells, asked)):
            raise _Unplain
        number = self._claimed(" or ".join(ast.unparse(e) for e in asked), tuple(expectations), line)
        return [_asking(number, [_got(e) for e in asked])]

    def _tells(self, node: ast.expr) -> bool:
        """Whether an expression holds a value that is no input of the code: it could be, or tell, what is expected.

        Inputs are what the code's own functions, and methods of its objects, are called with, and what is looked up.
        """
        if isinstance(node, ast.Constant | ast.Lambda):
            return True
        if isinstance(node, ast.Call):
            return self._call_tells(node)
        if isinstance(node, ast.Subscript):
            return self._tells(node.value)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            compares = any(isinstance(n, ast.Compare) for part in parts for n in ast.walk(part))
            return compares or any(map(self._tells, parts))
        return any(self._tells(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))

    def _call_tells(self, node: ast.Call) -> bool:
        function = node.func
        if isinstance(function, ast.Name):
            if function.id in self.file.own:
                return False
            first = node.args[:1] if function.id == "round" else node.args
            flags = [
                k.value
                for k in node.keywords
                if not (isinstance(k.value, ast.Constant) and type(k.value.value) is bool)
            ]
            return any(map(self._tells, [*first, *flags]))
        if isinstance(function, ast.Attribute) and self._is_own_object(function.value):
            return self._tells(function.value)
        receiver = [function.value] if isinstance(function, ast.Attribute) else [function]
        return any(map(self._tells, [*receiver, *node.args]))

    def _is_own_object(self, node: ast.expr) -> bool:
        """Whether an expression is an object of one of the code's classes: its methods are called with inputs."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                return node.func.id in self.file.own and node.func.id[:1].isupper()
            node = node.func if isinstance(node, ast.Call) else node.value
        if not isinstance(node, ast.Name):
            return False
        value = self.assigned.get(node.id)
        return value is None or self._is_own_object(value)

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
        return ast.fix_missing_locations(_Substitute(local).visit(copy.deepcopy(node)))


class _Substitute(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self.values:
            return _written(self.values[node.id])
        return node


def _written(value: Any) -> ast.expr:
    """Return the expression of a known value. Raises _Unplain for one that cannot be written."""
    text = repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        text = f"float({text!r})"
    elif _holds_odd_floats(value):
        raise _Unplain
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Unplain from error


def _holds_odd_floats(value: Any) -> bool:
    """Whether a number that no literal can write is among the parts of a value."""
    if isinstance(value, dict):
        return any(map(_holds_odd_floats, [*value, *value.values()]))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_holds_odd_floats, value))
    return isinstance(value, float | complex) and not cmath.isfinite(value)


def _got(value: ast.expr) -> ast.Expr:
    return ast.Expr(ast.Call(ast.Name(GOT, ast.Load()), [value], []))


def _asking(number: int, body: list[ast.stmt]) -> ast.With:
    """Ask one claim. One that waits for an exception looks like any other."""
    return ast.With(
        items=[ast.withitem(ast.Call(ast.Name(RAISING, ast.Load()), [ast.Constant(number)], []))], body=body
    )


def _shared(function: ast.AST) -> frozenset[str]:
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


def _is_immutable(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_immutable, value))
    return not isinstance(value, list | dict | set)


def _unpacked(target: ast.expr, item: Any) -> dict[str, Any]:
    if isinstance(target, ast.Name):
        return {target.id: item}
    if isinstance(target, ast.Tuple | ast.List) and isinstance(item, list | tuple) and len(item) == len(target.elts):
        values: dict[str, Any] = {}
        for part, value in zip(target.elts, item, strict=True):
            values |= _unpacked(part, value)
        return values
    raise _Unplain


def _asserts(statement: ast.stmt) -> bool:
    """Whether an assertion lies within a statement."""
    return any(
        isinstance(n, ast.Assert)
        or (isinstance(n, ast.Attribute) and n.attr.startswith("assert"))
        or (isinstance(n, ast.Call) and ast.unparse(n.func).rpartition(".")[2] in ("raises", "fail", "approx"))
        for n in ast.walk(statement)
    )


def _raising(statement: ast.With) -> tuple[str, ast.expr | None] | None:
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
