"""Mutants of a program: small changes of the kind that people make. Tests that notice none of them prove little.

Read from the syntax tree and written into the text, one change each; chosen evenly over the program, the same ones each
time.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

MAX_MUTANTS = 12
MAX_CODE = 100_000  # characters of a program that is changed
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A program with one change: at ``line``, from ``before`` to ``after``."""

    line: int
    before: str
    after: str
    code: str

    @property
    def words(self) -> str:
        """Return the change in a line."""
        return f"line {self.line}: {self.before} becomes {self.after}"


@lru_cache(maxsize=32)
def mutants(code: str, most: int = MAX_MUTANTS) -> tuple[Mutant, ...]:
    """Return at most so many mutants of a program, in the order of their lines; none for text that is no Python."""
    if len(code) > MAX_CODE:
        return ()
    try:
        found = list(_all(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    step = max(1.0, len(found) / most)
    chosen = [found[int(place * step)] for place in range(min(most, len(found)))]
    return tuple(chosen)


def _all(code: str) -> Iterator[Mutant]:
    lines = [line.encode() for line in code.split("\n")]  # the parser counts columns in bytes
    seen = {code}
    changes = [change for node in _bodies(ast.parse(code)) for change in _changes(node)]
    for node, after in sorted(changes, key=lambda pair: (pair[0].lineno, pair[0].col_offset)):
        text = _spliced(lines, node, after)
        if text in seen or not _parses(text):
            continue
        seen.add(text)
        yield Mutant(node.lineno, _short(ast.unparse(node)), _short(after), text)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _bodies(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the functions of a program but for its ``main``: what runs on import, and as a script, no test of a call sees."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name != "main":
                yield node
        elif isinstance(node, ast.ClassDef):
            yield node


def _changes(root: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield each node that is changed, with its new text."""
    untouched = {id(part) for node in ast.walk(root) for part in _left_alone(node)}
    for node in ast.walk(root):
        if id(node) not in untouched and isinstance(node, ast.expr | ast.stmt):
            after = _changed(node)
            if after:
                yield node, after


def _left_alone(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what of a node is no behaviour that a test looks at: annotations, decorators, docstrings, messages of errors."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        annotations = [node.returns, *(a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg))]
        for part in [*annotations, *node.decorator_list]:
            if part is not None:
                yield from ast.walk(part)
    if isinstance(node, ast.AnnAssign):
        yield from ast.walk(node.annotation)
    if isinstance(node, ast.Raise):
        yield from ast.walk(node)
    if isinstance(node, ast.JoinedStr | ast.Slice):
        yield from ast.walk(node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield from ast.walk(node)


def _changed(node: ast.expr | ast.stmt) -> str:
    """Return a node's text with its one change; empty where it has none."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARED:
            return ast.unparse(ast.Compare(node.left, [_COMPARED[type(op)]()], node.comparators))
        case ast.BinOp(op=op) if type(op) in _COMPUTED and not _is_text(node):
            return f"({ast.unparse(ast.BinOp(node.left, _COMPUTED[type(op)](), node.right))})"
        case ast.BoolOp(op=op):
            return f"({ast.unparse(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values))})"
        case ast.UnaryOp(op=ast.Not()):
            return f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool(value)):
            return repr(not value)
        case ast.Constant(value=int(value)):
            return str(value + 1)
        case ast.AugAssign(op=op) if type(op) in _COMPUTED:
            return ast.unparse(ast.AugAssign(node.target, _COMPUTED[type(op)](), node.value))
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            return "return None"
        case ast.Expr(value=ast.Call()):
            return "pass"
        case ast.Continue():
            return "break"
        case ast.Break():
            return "continue"
    return ""


def _is_text(node: ast.BinOp) -> bool:
    """Whether an operation joins or formats texts: any other operator would only raise."""
    sides = (node.left, node.right)
    return any(
        isinstance(s, ast.JoinedStr) or (isinstance(s, ast.Constant) and isinstance(s.value, str)) for s in sides
    )


def _spliced(lines: list[bytes], node: ast.expr | ast.stmt, after: str) -> str:
    changed = list(lines)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    tail = changed[last][node.end_col_offset :]
    changed[first : last + 1] = [changed[first][: node.col_offset] + after.encode() + tail]
    return b"\n".join(changed).decode()


def _parses(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
