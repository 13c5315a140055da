"""Examples in a prompt, as version 1 of the rules took them: tapes that were recorded by it are replayed by it.
Frozen."""

import ast
import builtins
import doctest
import re
from dataclasses import dataclass

_ARROW = re.compile(r"\s*(?:->|=>|→|==+|returns|gives)\s*")
_CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\(")
_MAX = 40


@dataclass(frozen=True)
class PromptExampleV1:
    """One example: statements that prepare it, the call, and what must come of it."""

    setup: tuple[str, ...]
    call: str
    expected: str
    kind: str


def extract(prompt: str) -> tuple[PromptExampleV1, ...]:
    """Return a prompt's examples, each once, in order."""
    try:
        found = [*_doctests(prompt), *_arrows(prompt)]
    except (RecursionError, MemoryError):  # no example that a person wrote
        return ()
    return tuple(dict.fromkeys(a for a in found if a.kind != "none"))[:_MAX]


def functions(anchors: tuple[PromptExampleV1, ...]) -> tuple[str, ...]:
    """Return the names that the anchors call without defining them: the solution must offer them."""
    loaded: dict[str, None] = {}
    bound: set[str] = set()
    for anchor in anchors:
        for text in (*anchor.setup, anchor.call):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    loaded[node.func.id] = None
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    bound.add(node.id)
                elif isinstance(node, ast.alias):
                    bound.add((node.asname or node.name).partition(".")[0])
    return tuple(name for name in loaded if name not in bound and name not in _BUILTINS)


_BUILTINS = frozenset(
    [
        "abs",
        "all",
        "any",
        "bool",
        "bytes",
        "dict",
        "enumerate",
        "filter",
        "float",
        "format",
        "frozenset",
        "int",
        "isinstance",
        "iter",
        "len",
        "list",
        "map",
        "max",
        "min",
        "next",
        "open",
        "ord",
        "print",
        "range",
        "repr",
        "reversed",
        "round",
        "set",
        "sorted",
        "str",
        "sum",
        "tuple",
        "type",
        "zip",
    ]
)


MAX_PARSES = 5000  # texts that are parsed in the search of one prompt


def test_file(anchors: tuple[PromptExampleV1, ...]) -> str:
    """Return the anchors as a pytest file; empty where there are none."""
    if not anchors or not functions(anchors):
        return ""
    parts = ["import pytest\n", f"from solution import {', '.join(functions(anchors))}\n"]
    for number, anchor in enumerate(anchors, 1):
        body = [*anchor.setup, *_assertion(anchor)]
        lines = [f"    {line}" for text in body for line in text.splitlines()]
        parts.append("\n".join([f"\ndef test_example_{number}():", *lines, ""]))
    return "\n".join(parts)


def _assertion(anchor: PromptExampleV1) -> tuple[str, ...]:
    if anchor.kind == "raises":
        return (f"with pytest.raises({anchor.expected}):", f"    {anchor.call}")
    if anchor.kind == "printed":
        return (f"assert str({anchor.call}) == {anchor.expected!r}",)
    if anchor.kind == "repr":
        return (f"assert repr({anchor.call}) == {anchor.expected!r}",)
    return (f"assert {anchor.call} == {anchor.expected}",)


def _doctests(prompt: str) -> list[PromptExampleV1]:
    try:
        pieces = doctest.DocTestParser().parse(prompt)
    except ValueError:
        return []
    found: list[PromptExampleV1] = []
    setup: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            if piece.strip():
                setup = []
            continue
        source = piece.source.strip()
        raised = re.match(r"(\w+)", piece.exc_msg).group(1) if piece.exc_msg else ""  # type: ignore[union-attr]  # doctest matched a name already
        if not piece.want and not raised:
            setup.append(source)
        elif _is_expression(source) and all(map(_parses, setup)):
            found.append(_example(tuple(setup), source, piece.want.strip(), raised))
    return found


def _example(setup: tuple[str, ...], source: str, want: str, raised: str) -> PromptExampleV1:
    tree = ast.parse(source, mode="eval").body
    call = ast.unparse(tree)  # without the comments that a line of an example may end in
    if raised and not hasattr(builtins, raised):
        return PromptExampleV1((), call, "", "none")
    if raised:
        return PromptExampleV1(setup, call, raised, "raises")
    if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "print" and len(tree.args) == 1 and not tree.keywords:
        return PromptExampleV1(setup, ast.unparse(tree.args[0]), want, "printed")
    return PromptExampleV1(setup, call, want, "value" if _is_literal(want) else "repr")


def _arrows(prompt: str) -> list[PromptExampleV1]:
    found: list[PromptExampleV1] = []
    budget = _Budget()
    for line in prompt.splitlines():
        if line.lstrip().startswith((">>>", "def ", "class ", "...")):
            continue
        for match in _CALL.finditer(line):
            call = _balanced(line, match.start(), budget)
            arrow = _ARROW.match(line, match.start() + len(call)) if call else None
            if arrow is None:
                arrow = re.compile(r"`\s*(?:->|=>|→|==+|returns|gives)\s*`?").match(line, match.start() + len(call))
            if call and arrow and _is_literal_call(call) and (want := _literal_prefix(line[arrow.end() :], budget)):
                found.append(PromptExampleV1((), call, want, "value"))
    return found


class _Budget:
    """How many texts may still be parsed: a prompt of nothing but brackets would be parsed for hours."""

    def __init__(self) -> None:
        self.left = MAX_PARSES

    def spent(self) -> bool:
        """Take one; whether none was left."""
        self.left -= 1
        return self.left < 0


def _balanced(line: str, start: int, budget: _Budget) -> str:
    """Return the call that begins at ``start``, up to its closing bracket; empty where none closes in 500
    characters."""
    for end in range(start, min(len(line), start + 500)):
        if line[end] == ")" and not budget.spent() and _is_expression(line[start : end + 1]):
            return line[start : end + 1]
    return ""


def _literal_prefix(text: str, budget: _Budget) -> str:
    """Return the longest beginning of the text that is a literal, where its clause ends after it."""
    text = text.strip().lstrip("`")
    for end in range(min(len(text), 2000), 0, -1):
        rest = text[end:]
        if text[:end].rstrip().endswith((".", ",")):  # the sentence's, not the number's
            continue
        if _ends_clause(rest) and not budget.spent() and _is_literal(text[:end].strip()):
            return text[:end].strip()
    return ""


def _ends_clause(rest: str) -> bool:
    """Whether a literal may end before this: "5 results", "1/3" and "-1 or None" are no literals."""
    left = rest.lstrip()
    return not left or left[0] in ",;)`" or left.startswith("and ") or (left[0] == "." and not left[1:2].isalnum())


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _parses(text: str) -> bool:
    """Whether the text is a statement that may stand in a test: complete by itself, and no future import."""
    try:
        compile(text, "setup", "exec")
        if "__future__" in text:
            return False
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _is_literal(text: str) -> bool:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return not isinstance(value, tuple) or text.startswith("(")  # "3, and" is prose


def _is_literal_call(text: str) -> bool:
    """Whether the text calls a plain name with literals only."""
    node = ast.parse(text, mode="eval").body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    arguments = [*node.args, *(k.value for k in node.keywords)]
    return all(_is_literal(ast.unparse(a)) for a in arguments)
