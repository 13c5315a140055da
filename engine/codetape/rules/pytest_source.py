"""Test files as text: their functions, patches to them, and the stub that they are vetted against.

Text outside the patched functions stays as it is, comments and blank lines included.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from codetape.domain.reply_shapes import TestFunctionPatch
from codetape.rules.data.import_map import imports
from codetape.rules.rule_versions import RULES_VERSION
from codetape.rules.source_tree import tree_of


@dataclass(frozen=True)
class TestFunction:
    """One test in a file: ``name`` is ``test_x`` or ``TestY::test_x``; lines are 1-based, ends included."""

    __test__ = False

    name: str
    first: int
    last: int
    indent: int
    text: str


@lru_cache(maxsize=256)
def functions(source: str) -> tuple[TestFunction, ...]:
    """Return the tests of a file in order, as pytest's default names find them. Raises SyntaxError.

    A name that is bound twice is the later one's, as Python has it.
    """
    lines = source.split("\n")
    found: dict[str, TestFunction] = {}
    for test in nodes_of_tests(tree_of(source.removeprefix("\ufeff"))):
        node = test.node
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        last = node.end_lineno or node.lineno
        text = "\n".join(lines[first - 1 : last])
        found[test.name] = TestFunction(test.name, first, last, node.col_offset, text)
    return tuple(sorted(found.values(), key=lambda function: function.first))


@dataclass(frozen=True)
class TestNode:
    """One test in a syntax tree, and the classes around it, the outermost first."""

    __test__ = False

    node: ast.FunctionDef | ast.AsyncFunctionDef
    classes: tuple[ast.ClassDef, ...]

    @property
    def name(self) -> str:
        """Return ``test_x`` or ``TestY::test_x``."""
        return "::".join([*(owner.name for owner in self.classes), self.node.name])


def nodes_of_tests(tree: ast.Module) -> Iterator[TestNode]:
    """Yield the tests of a module in order, as pytest's default names find them; a name may come twice."""
    yield from _nodes_of_tests(tree.body, (), _bases(tree))


def _nodes_of_tests(
    body: list[ast.stmt], classes: tuple[ast.ClassDef, ...], bases: dict[str, set[str]]
) -> Iterator[TestNode]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not _switched_off(node):
            if node.name.startswith("Test") or (not classes and _is_test_case(node.name, bases)):
                yield from _nodes_of_tests(node.body, (*classes, node), bases)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_test(node):
            yield TestNode(node, classes)


def _bases(tree: ast.Module) -> dict[str, set[str]]:
    """Return the classes that a module's classes derive from, by their last names."""
    return {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def _is_test_case(name: str, bases: dict[str, set[str]]) -> bool:
    """Whether a class is one of unittest's: pytest collects it under any name."""
    known, wanted = set[str](), {name}
    while wanted := wanted - known:
        known |= wanted
        wanted = {base for one in wanted for base in bases.get(one, ())}
    return bool(known & {"TestCase", "IsolatedAsyncioTestCase"} - bases.keys())


def _is_test(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether pytest takes a function for a test: by its name, unless it is a fixture."""
    marks = (ast.unparse(d.func if isinstance(d, ast.Call) else d).rpartition(".")[2] for d in node.decorator_list)
    return node.name.startswith("test") and "fixture" not in marks


def _switched_off(node: ast.ClassDef) -> bool:
    return any(isinstance(n, ast.Assign) and ast.unparse(n) == "__test__ = False" for n in node.body)


def names(source: str) -> tuple[str, ...]:
    """Return the names of a file's tests; none for text that is no Python."""
    try:
        return tuple(f.name for f in functions(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def name_of(test_id: str) -> str:
    """Return the function's name within a node id: without file and parameters."""
    return test_id.partition("::")[2].partition("[")[0]


def function_id(test_id: str) -> str:
    """Return a node id without its parameters."""
    return test_id.partition("[")[0]


def file_of(test_id: str) -> str:
    """Return the file of a node id."""
    return test_id.partition("::")[0]


def text_of(source: str, test_id: str) -> str:
    """Return the text of the test that a node id names; empty where the file has none."""
    try:
        return next((f.text for f in functions(source) if f.name == name_of(test_id)), "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def patches_of(block: str) -> tuple[TestFunctionPatch, ...]:
    """Read a block of Python as patches, one for each test in it. Raises SyntaxError."""
    return tuple(TestFunctionPatch(test_name=f.name, fixed_code=f.text) for f in functions(block))


def imports_in(block: str) -> tuple[str, ...]:
    """Return the top-level import statements of a block, as text. Raises SyntaxError."""
    body = tree_of(block).body
    return tuple(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))


def apply_patches(source: str, patches: Iterable[TestFunctionPatch], imports: Iterable[str] = ()) -> str:
    """Return the file with the named tests replaced; unknown names are left out. Raises SyntaxError."""
    wanted = {p.test_name: p.fixed_code for p in patches}
    lines = source.split("\n")
    for function in reversed(functions(source)):
        if function.name in wanted:
            fixed = _indented(wanted[function.name], function.indent)
            lines[function.first - 1 : function.last] = fixed.split("\n")
    present = set(imports_in(source))
    new = [line for line in imports if line not in present]
    at = _after_docstring(source)
    return "\n".join([*lines[:at], *new, *lines[at:]]).rstrip("\n") + "\n"


def with_tests(source: str, more: str) -> str:
    """Return a test file with the statements of another below it; names that are taken get a number. Raises SyntaxError."""
    taken = set(defined_names(source))
    body, imports = tree_of(more.removeprefix("\ufeff")).body, set(imports_in(source))
    added: list[str] = []
    for node in body:
        text = ast.get_source_segment(more, node) or ast.unparse(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            if ast.unparse(node) not in imports:
                added.append(text)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            decorated = [f"@{ast.unparse(decorator)}" for decorator in node.decorator_list]
            name = next(n for n in (node.name, *(f"{node.name}_{i}" for i in range(2, 1000))) if n not in taken)
            taken.add(name)
            added.append("\n".join([*decorated, text.replace(node.name, name, 1)]))
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            added.append(text)
    return source.rstrip("\n") + "\n\n\n" + "\n\n\n".join(added) + "\n" if added else source


def _indented(text: str, indent: int) -> str:
    """Move a function to an indent; one that stands there already is left as it is, its long strings with it."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    shift = indent - (len(first) - len(first.lstrip()))
    if shift >= 0:
        return "\n".join(" " * shift + line if line.strip() else line for line in text.split("\n"))
    return "\n".join(line.removeprefix(" " * -shift) for line in text.split("\n"))


def _after_docstring(source: str) -> int:
    """Return how many lines stand before the first statement that imports may precede."""
    last = 0
    for node in tree_of(source).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not docstring and not future:
            break
        last = node.end_lineno or last
    return last


def stub(code: str) -> str:
    """Return the solution with every function emptied: each returns None. Module code stays. Raises SyntaxError."""
    lines = [line.encode() for line in code.split("\n")]  # the parser counts columns in bytes
    for node in reversed(list(_outermost(tree_of(code).body))):
        if isinstance(node, ast.Lambda):
            _cut(lines, node.body, b"None")
            continue
        body = node.body
        first, last = body[0].lineno, node.end_lineno or body[-1].lineno
        if first == node.lineno:
            lines[first - 1 : last] = [lines[first - 1][: body[0].col_offset] + b"return None"]
        else:
            lines[first - 1 : last] = [b" " * body[0].col_offset + b"return None"]
    return b"\n".join(lines).decode().rstrip("\n") + "\n"


def _cut(lines: list[bytes], node: ast.expr, text: bytes) -> None:
    """Put a text in an expression's place."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    tail = lines[last][node.end_col_offset :]
    lines[first : last + 1] = [lines[first][: node.col_offset] + text + tail]


@lru_cache(maxsize=64)
def _raising_lines(code: str) -> frozenset[int]:
    try:
        found = [n for n in ast.walk(tree_of(code)) if isinstance(n, ast.Raise) and n.exc is not None]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    return frozenset(line for n in found for line in range(n.lineno, (n.end_lineno or n.lineno) + 1))


def raises_at(code: str, line: int) -> bool:
    """Whether a line of the code belongs to a statement that raises an exception on purpose."""
    return line in _raising_lines(code)


Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def _outermost(body: list[ast.stmt]) -> Iterator[Function]:
    """Yield a module's functions in order: in classes, conditions and tries too, and lambdas that are given a name."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Lambda):
            yield node.value
        elif isinstance(node, ast.ClassDef):
            yield from _outermost(node.body)
        else:
            for inner in _blocks(node):
                yield from _outermost(inner)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of a compound statement at a module's top level, in order."""
    if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
        handlers = [h.body for h in getattr(node, "handlers", [])]
        yield from [node.body, *handlers, getattr(node, "orelse", []), getattr(node, "finalbody", [])]


@lru_cache(maxsize=64)
def defined_names(code: str) -> frozenset[str]:
    """Return the names that a module binds at its top level: functions, classes, assignments, imports."""
    return frozenset(_defined(tree_of(code).body))


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((a.asname or a.name).partition(".")[0] for a in node.names)
        elif blocks := list(_blocks(node)):
            for inner in blocks:
                yield from _defined(inner)
        else:
            yield from (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def tests_another_module(source: str) -> str:
    """Return a module that a test file imports in the place of the solution; empty where it reaches the solution.

    It does so by an import, by its file's name, or by no module at all that could be another name for it.
    """
    tree = tree_of(source.removeprefix("\ufeff"))
    texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    imported: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(dict.fromkeys(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            imported["." * node.level + (node.module or "")] = None
    if any(name.partition(".")[0] == "solution" for name in imported) or any("solution" in text for text in texts):
        return ""
    known = sys.stdlib_module_names | imports(RULES_VERSION).keys() | {"pytest", "__future__"}
    return next((name for name in imported if name.partition(".")[0] not in known), "")


@lru_cache(maxsize=64)
def imported_from_solution(source: str) -> tuple[str, ...]:
    """Return the names that a test file imports from the solution."""
    try:
        tree = tree_of(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "solution")
    return tuple(dict.fromkeys(alias.name for node in found for alias in node.names if alias.name != "*"))
