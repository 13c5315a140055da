"""Examples as a pytest file that nobody may change."""

import ast
from collections.abc import Iterator

from codetape.rules.prompt_examples.example import PromptExample, functions, is_expression


def test_file(anchors: tuple[PromptExample, ...]) -> str:
    """Return the anchors as a pytest file; empty where there are none."""
    names = functions(anchors)
    if not anchors or not names:
        return ""
    doctests = "import doctest\n" if any(one.options for a in anchors for one in (*a.parts, a)) else ""
    parts = [f"{doctests}import pytest\n", f"from solution import {', '.join(names)}\n"]
    for number, anchor in enumerate(anchors, 1):
        steps = (*anchor.parts, anchor)
        body = [text for place, one in enumerate(steps) for text in _body(one, names, begun=place > 0)]
        lines = [f"    {line}" for text in body for line in text.splitlines()]
        shown = "capsys" if any(map(_is_shown, steps)) else ""
        parts.append("\n".join([f"\ndef test_example_{number}({shown}):", *lines, ""]))
    return "\n".join(parts)


def _body(anchor: PromptExample, names: tuple[str, ...], *, begun: bool) -> list[str]:
    setup = _without_solution(anchor.setup, names)
    return [*setup, *(_shown(anchor, begun or bool(setup)) if _is_shown(anchor) else _assertion(anchor))]


def _without_solution(setup: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """Leave out imports that the file makes already."""
    made = {f"from solution import {name}" for name in names}
    return [line for line in setup if line not in made]


def _is_shown(anchor: PromptExample) -> bool:
    return anchor.kind == "repr" or anchor.prints or bool(anchor.options)


def _assertion(anchor: PromptExample) -> tuple[str, ...]:
    if anchor.kind == "raises":
        return (f"with pytest.raises({anchor.expected}):", f"    {anchor.call}")
    if anchor.kind == "true":
        return (anchor.call if anchor.call.startswith("assert ") else f"assert {anchor.call}",)
    if anchor.kind == "printed":
        return (f"assert str({anchor.call}) == {anchor.expected!r}",)
    return (f"assert {_parenthesised(anchor.call)} == {anchor.expected}",)


def _parenthesised(source: str) -> str:
    """Return an expression as one side of a comparison."""
    alone = ast.Call | ast.Name | ast.Attribute | ast.Subscript | ast.Constant | ast.List | ast.Dict | ast.Set
    return source if isinstance(ast.parse(source, mode="eval").body, alone) else f"({source})"


def _shown(anchor: PromptExample, prepared: bool) -> Iterator[str]:
    """Yield the lines that hold what the interpreter would show against what the example shows."""
    if prepared:
        yield "capsys.readouterr()"
    want = anchor.expected + "\n" if anchor.expected else ""
    printed = anchor.kind == "printed"
    if is_expression(anchor.call) and not printed and not anchor.call.startswith("print("):
        yield f"value = {anchor.call}"
        yield 'shown = capsys.readouterr().out + ("" if value is None else f"{value!r}\\n")'
    else:
        shown = f"print({anchor.call})" if printed else anchor.call
        single = f'exec(compile({shown + chr(10)!r}, "example", "single"), {{**globals(), **locals()}})'
        yield shown if is_expression(shown) else single  # as the interpreter does: each value is shown
        yield "shown = capsys.readouterr().out"
    if anchor.options:
        flags = " | ".join(f"doctest.{name}" for name in anchor.options)
        yield f"want = {want!r}"
        yield f"assert doctest.OutputChecker().check_output(want, shown, {flags}), f'expected {{want!r}}, got {{shown!r}}'"
    elif anchor.kind == "value":
        yield f"assert value == {anchor.expected} or shown == {want!r}"
    else:
        yield f"assert shown == {want!r}"
