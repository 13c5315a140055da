"""A verified script as one that runs anywhere: its results go where the caller says, and not to the sandbox's folder.

Where a script names /var/outputs itself, that text alone is replaced by the folder of results; in the sandbox, where
nothing else is said, it is the same folder. So what was verified there is what runs elsewhere. A script in which not
every such text can be replaced is left as it is: it would write to two places.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

from codetape.domain.script_args import OUTPUTS

VARIABLE, FLAG = "CODETAPE_OUTPUTS", "--output-dir"
MAX_SCRIPT = 200_000  # characters; a longer script is left as it is
_NAME = "_codetape_outputs"
_PREAMBLE = f'''\
# Results go to the folder of {FLAG}, else of {VARIABLE}, else {OUTPUTS} where it exists, else the current one.
import os as {_NAME}_os
import sys as {_NAME}_sys

if __name__ == "__main__":
    for {_NAME}_at, {_NAME} in enumerate({_NAME}_sys.argv):
        if {_NAME}.split("=")[0] == "{FLAG}" and ("=" in {_NAME} or {_NAME}_at + 1 < len({_NAME}_sys.argv)):
            {_NAME} = {_NAME}_sys.argv[{_NAME}_at : {_NAME}_at + (1 if "=" in {_NAME} else 2)]
            {_NAME}_os.environ["{VARIABLE}"] = {_NAME}[-1].removeprefix("{FLAG}=")
            del {_NAME}_sys.argv[{_NAME}_at : {_NAME}_at + len({_NAME})]
            break
{_NAME} = {_NAME}_os.environ.get("{VARIABLE}") or ("{OUTPUTS}" if {_NAME}_os.path.isdir("{OUTPUTS}") else ".")
if __name__ == "__main__":
    {_NAME}_os.makedirs({_NAME}, exist_ok=True)
'''
# from Python 3.12 on an f-string is several tokens, the first of which stands for it
_LITERALS = [number for number, name in tokenize.tok_name.items() if name in ("STRING", "FSTRING_START")]


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


class _Unfit(Exception):
    """A text in the sandbox's folder that no expression can stand for."""


def portable(code: str) -> str:
    """Return a script that writes declared outputs into a folder of the caller's; unchanged where it cannot be done, or
    where the script has such a flag itself."""
    if FLAG in code or _NAME in code or len(code) > MAX_SCRIPT:
        return code
    try:
        tree = ast.parse(code)
        data = code.encode()
        edits = [] if VARIABLE in code else list(_edits(tree, data))
        lines = data.splitlines(keepends=True)
        at = sum(map(len, lines[: _preamble_line(tree, lines)]))
        for edit in sorted([*edits, _Edit(at, at, f"{_PREAMBLE}\n")], reverse=True):
            data = data[: edit.start] + edit.text.encode() + data[edit.end :]
        changed = data.decode()
        compile(changed, "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError, _Unfit):
        return code
    return changed


def _preamble_line(tree: ast.Module, lines: list[bytes]) -> int:
    """Return after which line the preamble stands: after comments, the docstring, and what Python wants first.

    Raises _Unfit where the first other statement begins on one of their lines.
    """
    last = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith(b"#")), len(lines))
    for number, statement in enumerate(tree.body):
        value = statement.value if number == 0 and isinstance(statement, ast.Expr) else None
        docstring = isinstance(value, ast.Constant) and isinstance(value.value, str)
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not (docstring or future):
            first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
            if first <= last and number:
                raise _Unfit
            return last
        last = statement.end_lineno or last
    return last


def _edits(tree: ast.Module, data: bytes) -> Iterator[_Edit]:
    """Yield a replacement for each text that begins with the sandbox's folder. Raises _Unfit where one has none."""
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    pending: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while pending:
        node, parent = pending.pop()
        if isinstance(node, ast.Constant | ast.JoinedStr):
            inner = node.values if isinstance(node, ast.JoinedStr) else ()
            if _begins(node):
                start = starts[node.lineno - 1] + node.col_offset
                end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
                if isinstance(parent, ast.Expr):
                    continue  # a docstring
                yield _Edit(start, end, _replacement(node, parent, data[start:end].decode()))
                inner = inner[1:]
            # in 3.11 the parts of an f-string have no places of their own
            if any(
                _begins(one)
                for part in inner
                for one in ast.walk(part)
                if isinstance(one, ast.Constant | ast.JoinedStr)
            ):
                raise _Unfit
            continue
        pending += [(child, node) for child in ast.iter_child_nodes(node)]


def _begins(node: ast.Constant | ast.JoinedStr) -> bool:
    begin = node if isinstance(node, ast.Constant) else node.values[0] if node.values else None
    value = begin.value if isinstance(begin, ast.Constant) else None
    return isinstance(value, str) and (value == OUTPUTS or value.startswith(f"{OUTPUTS}/"))


def _replacement(node: ast.Constant | ast.JoinedStr, parent: ast.AST, segment: str) -> str:
    """Return the expression for a text in the sandbox's folder. Raises _Unfit where none can stand there."""
    if isinstance(parent, ast.MatchValue) or not _single(segment):
        raise _Unfit
    folder = _NAME
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mod) and parent.left is node:
        folder += '.replace("%", "%%")'
    elif isinstance(parent, ast.Attribute) and parent.attr == "format":
        folder += '.replace("{", "{{").replace("}", "}}")'
    if isinstance(node, ast.Constant):
        rest = str(node.value).removeprefix(OUTPUTS)
        return f"({folder} + {rest!r})" if rest else f"({folder})"
    head, found, tail = segment.partition(OUTPUTS)
    if not found or head.strip("fFrR'\""):
        raise _Unfit
    return f"({folder} + {head}{tail})"


def _single(segment: str) -> bool:
    """Whether a text is one literal, and not several beside each other."""
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(f"({segment})").readline)]
    return sum(map(kinds.count, _LITERALS)) == 1
