"""Test files as text: their functions, patches to them, and the stub that they are vetted against.

Text outside the patched functions stays as it is, comments and blank lines included.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codetape.artefacts import TestFunctionPatch


@dataclass(frozen=True)
class TestFunction:
    """One test in a file: ``name`` is ``test_x`` or ``TestY::test_x``; lines are 1-based, ends included."""

    __test__ = False

    name: str
    first: int
    last: int
    indent: int
    text: str


def functions(source: str) -> tuple[TestFunction, ...]:
    """Return the tests of a file in order, as pytest's default names find them. Raises SyntaxError."""
    lines = source.splitlines()
    return tuple(_functions(ast.parse(source).body, lines, ""))


def _functions(body: list[ast.stmt], lines: list[str], owner: str) -> Iterator[TestFunction]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _functions(node.body, lines, f"{owner}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            last = node.end_lineno or node.lineno
            text = "\n".join(lines[first - 1 : last])
            yield TestFunction(owner + node.name, first, last, node.col_offset, text)


def names(source: str) -> tuple[str, ...]:
    """Return the names of a file's tests; none for text that is no Python."""
    try:
        return tuple(f.name for f in functions(source))
    except (SyntaxError, ValueError):
        return ()


def name_of(test_id: str) -> str:
    """Return the function's name within a node id: without file and parameters."""
    return test_id.partition("::")[2].partition("[")[0]


def file_of(test_id: str) -> str:
    """Return the file of a node id."""
    return test_id.partition("::")[0]


def text_of(source: str, test_id: str) -> str:
    """Return the text of the test that a node id names; empty where the file has none."""
    try:
        return next((f.text for f in functions(source) if f.name == name_of(test_id)), "")
    except (SyntaxError, ValueError):
        return ""


def patches_of(block: str) -> tuple[TestFunctionPatch, ...]:
    """Read a block of Python as patches, one for each test in it. Raises SyntaxError."""
    return tuple(TestFunctionPatch(test_name=f.name, fixed_code=f.text) for f in functions(block))


def imports_in(block: str) -> tuple[str, ...]:
    """Return the top-level import statements of a block, as text. Raises SyntaxError."""
    body = ast.parse(block).body
    return tuple(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))


def apply_patches(source: str, patches: Iterable[TestFunctionPatch], imports: Iterable[str] = ()) -> str:
    """Return the file with the named tests replaced; unknown names are left out. Raises SyntaxError."""
    wanted = {p.test_name: p.fixed_code for p in patches}
    lines = source.splitlines()
    for function in reversed(functions(source)):
        if function.name in wanted:
            fixed = _indented(wanted[function.name], function.indent)
            lines[function.first - 1 : function.last] = fixed.splitlines()
    present = set(imports_in(source))
    new = [line for line in imports if line not in present]
    at = _after_docstring(source)
    return "\n".join([*lines[:at], *new, *lines[at:]]) + "\n"


def without(source: str, tests: Iterable[str]) -> str:
    """Return the file without the named tests. A class that loses its last one keeps a ``pass``."""
    gone, lines = set(tests), source.splitlines()
    for function in reversed(functions(source)):
        if function.name in gone:
            lines[function.first - 1 : function.last] = [" " * function.indent + "pass"] if function.indent else []
    return "\n".join(lines) + "\n"


def _indented(text: str, indent: int) -> str:
    lines = text.splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(" " * indent + line[margin:] if line.strip() else "" for line in lines)


def _after_docstring(source: str) -> int:
    """Return how many lines stand before the first statement that imports may precede."""
    last = 0
    for node in ast.parse(source).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not docstring and not future:
            break
        last = node.end_lineno or last
    return last


def stub(code: str) -> str:
    """Return the solution with every function emptied: each returns None. Module code stays. Raises SyntaxError."""
    lines = code.splitlines()
    for node in reversed(list(_outermost(ast.parse(code).body))):
        body = node.body
        first, last = body[0].lineno, node.end_lineno or body[-1].lineno
        same_line = first == node.lineno
        if same_line:
            head = lines[node.lineno - 1][: body[0].col_offset]
            lines[first - 1 : last] = [f"{head}return None"]
        else:
            lines[first - 1 : last] = [" " * body[0].col_offset + "return None"]
    return "\n".join(lines) + "\n"


def _outermost(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from _outermost(node.body)


def defined_names(code: str) -> frozenset[str]:
    """Return the names that a module binds at its top level: functions, classes, assignments, imports."""
    found: set[str] = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((a.asname or a.name).partition(".")[0] for a in node.names)
        else:
            found.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return frozenset(found)
