"""A prompt as passages of plain text: what stands in code is read as code.

A fenced block, the prompt itself, or a stub within its prose that parses as Python gives its docstrings (by the syntax
tree, so that their quotes belong to nothing), its comments and its assertions. All else is prose, without its fences.
"""

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(r"^\s{0,12}(`{3,}|~{3,})")
_STARTER = re.compile(r"^( *)(?:async def|def|class|from|import|@)\b|^( *)@\w")
_QUOTES = ('"""', "'''")
MAX_REGIONS = 50  # stubs that are looked for in one prompt's prose


@dataclass
class Passages:
    """A prompt's passages in order, and what its code defines: functions, their classes' methods, other names."""

    texts: list[str] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    returning_none: set[str] = field(default_factory=set)


def read(prompt: str) -> Passages:
    """Return a prompt's passages."""
    found = Passages()
    text = prompt.replace("\r\n", "\n").replace("\r", "\n")
    tree = _parsed(text)
    if tree is not None and any(
        isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for n in tree.body
    ):
        _code(text, tree, found)
        return found
    for fenced, block in _blocks(text):
        tree = _parsed(block) if fenced else None
        if tree is not None and tree.body and not all(isinstance(n, ast.Expr) for n in tree.body):
            _code(block, tree, found)
        else:
            _prose(block, found)
    return found


def _blocks(text: str) -> Iterator[tuple[bool, str]]:
    """Yield a text's fenced blocks and what stands between them, in order; a fence that is never closed reaches to the
    end."""
    fence, lines = "", list[str]()
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if match and (not fence or (match.group(1).startswith(fence) and line.strip() == match.group(1))):
            yield bool(fence), "\n".join(lines)
            fence, lines = ("" if fence else match.group(1)), []
        else:
            lines.append(line)
    yield bool(fence), "\n".join(lines)


def _parsed(text: str) -> ast.Module | None:
    """Return the text's syntax tree, where it is Python; an indented block is taken for one at the margin."""
    try:
        return ast.parse(textwrap.dedent(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _prose(text: str, found: Passages) -> None:
    """Take prose apart into stubs that stand in it without a fence, and the rest."""
    lines, at, begun = text.split("\n"), 0, 0
    tried = 0
    while at < len(lines):
        match = _STARTER.match(lines[at])
        end = _region(lines, at, match.group(1) or match.group(2) or "") if match and tried < MAX_REGIONS else at
        tried += bool(match)
        block = "\n".join(lines[at:end])
        tree = _parsed(block) if end > at else None
        if tree is None or all(isinstance(n, ast.Import | ast.ImportFrom) for n in tree.body):
            at += 1
            continue
        _text(lines[begun:at], found)
        _code(block, tree, found)
        at = begun = end
    _text(lines[begun:], found)


def _region(lines: list[str], start: int, margin: str) -> int:
    """Return where the code ends that begins at a line: before the first line at its margin that begins no
    definition."""
    inside, end = "", start
    for number in range(start, len(lines)):
        line = lines[number]
        within = bool(inside)
        for quotes in _QUOTES:
            if inside in ("", quotes) and line.count(quotes) % 2:
                inside = "" if inside else quotes
        if within or not line.strip():
            continue
        deeper = line.startswith((margin + " ", margin + "\t"))
        if not deeper and not _STARTER.match(line) and not line.lstrip().startswith((")", "]", "}", "#", "assert ")):
            break
        end = number + 1
    else:
        return len(lines)
    return number if not inside else end


def _text(lines: list[str], found: Passages) -> None:
    """Keep prose; quotes that close a docstring whose code could not be read are no part of an example."""
    kept = []
    for line in lines:
        for quotes in _QUOTES:
            if line.count(quotes) == 1 and not line.lstrip().startswith(">>>"):
                line = line.replace(quotes, "")  # noqa: PLW2901 - the line as it is read
        kept.append(line)
    if any(line.strip() for line in kept):
        found.texts.append("\n".join(kept))


def _code(text: str, tree: ast.Module, found: Passages) -> None:
    """Keep what code says to a reader: docstrings, comments, assertions; and what it defines."""
    _define(tree, found)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=True)
            if docstring and docstring.strip():
                found.texts.append(docstring)
    said = [*_comments(text), *(ast.unparse(n) for n in tree.body if isinstance(n, ast.Assert))]
    if said:
        found.texts.append("\n".join(said))


def _define(tree: ast.Module, found: Passages) -> None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions.add(node.name)
            if isinstance(node.returns, ast.Constant) and node.returns.value is None:
                found.returning_none.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.names.add(node.name)
            found.methods |= {n.name for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        else:
            found.names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _comments(text: str) -> Iterator[str]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(text)).readline):
            if token.type == tokenize.COMMENT:
                yield token.string.lstrip("# ")
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return
