"""A verified script as one that runs anywhere: its results go where the caller says, and not to the sandbox's folder.

Where a script names /var/outputs itself, that text alone is replaced by the folder of results; in the sandbox, where
nothing else is said, it is the same folder. So what was verified there is what runs elsewhere.
"""

import ast
import io
import tokenize
from typing import NamedTuple

from codetape.domain.script_args import OUTPUTS

VARIABLE, FLAG = "CODETAPE_OUTPUTS", "--output-dir"
_PREAMBLE = f'''\
# Results go to the folder of {FLAG}, else of {VARIABLE}, else {OUTPUTS} where it exists, else the current one.
import os as _os
import sys as _sys

if __name__ == "__main__":
    for _at, _word in enumerate(_sys.argv):
        if _word.split("=")[0] == "{FLAG}" and ("=" in _word or _at + 1 < len(_sys.argv)):
            _given = _sys.argv[_at : _at + (1 if "=" in _word else 2)]
            _os.environ["{VARIABLE}"] = _given[-1].removeprefix("{FLAG}=")
            del _sys.argv[_at : _at + len(_given)]
            break
_OUTPUTS = _os.environ.get("{VARIABLE}") or ("{OUTPUTS}" if _os.path.isdir("{OUTPUTS}") else ".")
if __name__ == "__main__":
    _os.makedirs(_OUTPUTS, exist_ok=True)
'''
# from Python 3.12 on an f-string is several tokens, the first of which stands for it
_LITERALS = [number for number, name in tokenize.tok_name.items() if name in ("STRING", "FSTRING_START")]


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


def portable(code: str) -> str:
    """Return a script that writes declared outputs into a folder of the caller's; unchanged where it cannot be done."""
    try:
        tree = ast.parse(code)
        data = code.encode()
        edits = [] if VARIABLE in code or FLAG in code else _edits(tree, data)
        lines = data.splitlines(keepends=True)
        at = sum(map(len, lines[: _preamble_line(tree)]))
        for edit in sorted([*edits, _Edit(at, at, f"{_PREAMBLE}\n")], reverse=True):
            data = data[: edit.start] + edit.text.encode() + data[edit.end :]
        changed = data.decode()
        ast.parse(changed)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return code
    return changed


def _preamble_line(tree: ast.Module) -> int:
    """Return after which line the preamble stands: after the docstring, and what Python wants first."""
    last = 0
    for number, statement in enumerate(tree.body):
        first = number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not (first or future):
            break
        last = statement.end_lineno or last
    return last


def _edits(tree: ast.Module, data: bytes) -> list[_Edit]:
    """Return a replacement for each text that begins with the sandbox's folder, as far as an expression may stand there."""
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        for inner in ast.walk(node)
        if isinstance(node, ast.MatchValue) or (isinstance(node, ast.JoinedStr) and inner is not node)
    }
    skipped |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    edits = []
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, ast.Constant | ast.JoinedStr) or node.end_lineno is None:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + (node.end_col_offset or 0)
        if text := _replacement(node, data[start:end].decode()):
            edits.append(_Edit(start, end, text))
    return edits


def _replacement(node: ast.Constant | ast.JoinedStr, segment: str) -> str:
    """Return the expression for a text in the sandbox's folder; empty for any other, and for texts put together."""
    begin = node if isinstance(node, ast.Constant) else node.values[0] if node.values else None
    value = begin.value if isinstance(begin, ast.Constant) else None
    if not isinstance(value, str) or not (value == OUTPUTS or value.startswith(f"{OUTPUTS}/")) or not _single(segment):
        return ""
    if isinstance(node, ast.Constant):
        return "_OUTPUTS" if value == OUTPUTS else f"(_OUTPUTS + {value.removeprefix(OUTPUTS)!r})"
    head, found, tail = segment.partition(OUTPUTS)
    return f"(_OUTPUTS + {head}{tail})" if found and not head.strip("fFrRbB'\"") else ""


def _single(segment: str) -> bool:
    """Whether a text is one literal, and not several beside each other."""
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(f"({segment})").readline)]
    return sum(map(kinds.count, _LITERALS)) == 1
