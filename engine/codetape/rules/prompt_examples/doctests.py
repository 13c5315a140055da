"""Doctest examples in a task: ``>>> f(1)`` and what the interpreter shows for it."""

import ast
import builtins
import doctest
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice

from codetape.rules.data.import_map import IMPORTS
from codetape.rules.packages import LOCAL, standard_library
from codetape.rules.prompt_examples.example import BUILTINS, PromptExample, bound_by, is_expression, is_literal, parses
from codetape.rules.prompt_examples.reader import Reader

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


_MAX_READ = 200  # doctest lines of one passage: each is held against those before it


class DoctestReader:
    """Takes doctest examples, with doctest's meaning."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.text = reader, reader.text

    def read(self, passage: str) -> None:
        """Take the doctest examples of one passage: all of them share one interpreter.

        Where they share a state of the script itself, that no name stands for, they are one test, in their order.
        """
        read = list(islice(_examples(passage), _MAX_READ))
        for broken in (one for one in read if isinstance(one, str)):
            self.reader.leave_out(broken, "its lines cannot be read as doctest's")
        examples = [one for one in read if not isinstance(one, str)]
        together, first = _share_a_state(examples), len(self.reader.found)
        before: list[doctest.Example] = []
        for example in examples:
            taken = len(self.reader.found)
            if self._is_one(example):
                self._doctest(example, before, together=together)
            before = [] if together and len(self.reader.found) > taken else [*before, example]
        if together and len(self.reader.found) > first + 1:
            *parts, last = self.reader.found[first:]
            self.reader.found[first:] = [replace(last, parts=tuple(parts))]

    def _is_one(self, example: doctest.Example) -> bool:
        """Whether an example claims something, rather than preparing another one."""
        return bool(example.want or example.exc_msg) or _claims(example.source)

    def _doctest(self, example: doctest.Example, before: list[doctest.Example], *, together: bool) -> None:
        source = example.source.strip()
        options = tuple(doctest.OPTIONFLAGS_BY_NAME.items())
        names = tuple(sorted(n for n, flag in options if example.options.get(flag)))
        if "SKIP" in names:
            self.reader.leave_out(source, "it says that it is to be skipped")
        elif not parses(source) or not all(parses(b.source) for b in before):
            self.reader.leave_out(source, "it, or a line before it, is no Python that can stand in a test")
        elif _ADDRESS.search(example.want) and "ELLIPSIS" not in names:
            self.reader.leave_out(source, "it shows an address")
        else:
            self._take(example, source, names, before, together=together)

    def _take(
        self,
        example: doctest.Example,
        source: str,
        names: tuple[str, ...],
        before: list[doctest.Example],
        *,
        together: bool,
    ) -> None:
        anchor = self._anchor(example, source, names)
        if anchor is None:
            self.reader.leave_out(source, "it raises what is no exception of Python's own")
            return
        earlier = (line for one in before for line in self._prepared(one))
        setup = tuple(earlier if together else self._setup(source, before))
        parts = [text for one in self.reader.found for text in (*one.setup, one.call)] if together else []
        unknown = self.reader.unknown([*parts, *setup, anchor.call])
        if unknown:
            self.reader.leave_out(source, f"nothing says what {unknown} is")
        else:
            self.reader.found.append(
                PromptExample(setup, anchor.call, anchor.expected, anchor.kind, names, anchor.prints)
            )

    def _anchor(self, example: doctest.Example, source: str, options: tuple[str, ...]) -> PromptExample | None:
        """Return what an example claims; None where it cannot be claimed in a test."""
        want = _without_headings(example.want.rstrip("\n"))
        if "DONT_ACCEPT_BLANKLINE" not in options:
            want = re.sub(r"(?m)^<BLANKLINE>$", "", want)
        if example.exc_msg:
            raised = re.match(r"[\w.]+", example.exc_msg)
            name = raised.group(0) if raised else ""
            known = name.isidentifier() and hasattr(builtins, name)
            return PromptExample((), source.rstrip(";"), name, "raises") if known else None
        if not is_expression(source):
            if not want:
                return PromptExample((), ast.unparse(ast.parse(source)), "", "true")
            return PromptExample((), source, want, "repr")
        tree = ast.parse(source, mode="eval").body
        call = ast.unparse(tree)  # without the comments that a line of an example may end in
        if not want or (want == "True" and _is_condition(tree)):
            return PromptExample((), call, "True", "true")
        if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "print":
            plain = len(tree.args) == 1 and not tree.keywords and not isinstance(tree.args[0], ast.Starred)
            return (
                PromptExample((), ast.unparse(tree.args[0]), want, "printed")
                if plain
                else PromptExample((), call, want, "repr")
            )
        if not is_literal(want.strip()):
            return PromptExample((), call, want, "repr")
        prints = self.reader.prints or (
            isinstance(tree, ast.Call) and ast.unparse(tree.func) in self.text.returning_none
        )
        return PromptExample((), call, want.strip(), "value", prints=prints)

    def _setup(self, source: str, before: list[doctest.Example]) -> Iterator[str]:
        """Yield what runs before an example: statements that show nothing, and whatever touches a name that it stands
        on."""
        repeated = any(b.want and b.source.strip() == source for b in before)
        touched, offered = _names(source), _offered(before)
        chosen: list[doctest.Example] = []
        for earlier in reversed(before):
            names = _names(earlier.source)
            stored = _stored(earlier.source)
            shares = bool((touched & names) - offered)
            silent = not earlier.want and not earlier.exc_msg and not stored and not _claims(earlier.source)
            if stored & touched or shares or silent or repeated:
                chosen.append(earlier)
                touched |= names
        for earlier in reversed(chosen):
            yield from self._prepared(earlier)

    def _prepared(self, earlier: doctest.Example) -> Iterator[str]:
        source = earlier.source.strip()
        if earlier.exc_msg:
            name = re.match(r"\w+", earlier.exc_msg)
            if name and hasattr(builtins, name.group(0)):
                yield f"with pytest.raises({name.group(0)}):\n" + "\n".join(f"    {x}" for x in source.splitlines())
            return
        for statement in ast.parse(source).body:
            yield ast.unparse(self._imported(statement))

    def _imported(self, statement: ast.stmt) -> ast.stmt:
        """Return an import with the solution in the place of a module that only the task knows."""
        if (
            isinstance(statement, ast.ImportFrom)
            and statement.module
            and self._is_solution(statement.module, statement.names)
        ):
            return ast.ImportFrom(module="solution", names=statement.names, level=0)
        if isinstance(statement, ast.Import):
            names = [
                ast.alias(name="solution", asname=a.asname or a.name)
                if "." not in a.name and self._is_solution(a.name, [])
                else a
                for a in statement.names
            ]
            return ast.Import(names=names)
        return statement

    def _is_solution(self, module: str, names: list[ast.alias]) -> bool:
        """Whether a module stands for the script: nobody knows it, or the task asks for what is imported from it."""
        top = module.partition(".")[0]
        if top in standard_library("3.13") or top in LOCAL - {"solution"}:
            return False
        asked = any(a.name in self.text.functions or re.search(rf"\b{a.name}\(", self.reader.prose) for a in names)
        return top not in IMPORTS or asked


def _examples(passage: str) -> Iterator[doctest.Example | str]:
    """Yield a passage's doctest examples; of one whose lines doctest cannot read the first line."""
    parser = doctest.DocTestParser()
    text = re.sub(r"(?m)^(\s*>>>)(?=\S)", r"\1 ", passage)
    with suppress(ValueError):
        yield from parser.get_examples(text)
        return
    for part in re.split(r"(?m)^(?=\s*>>>)", text):
        try:
            yield from parser.get_examples(part)
        except ValueError:
            yield part.strip().split("\n")[0]


def _share_a_state(examples: list[doctest.Example]) -> bool:
    """Whether examples lean on what earlier ones did to the script: a call for its effect alone, or one call with two
    outcomes."""
    shown: dict[str, str] = {}
    bound: set[str] = set()
    for example in examples:
        source = example.source.strip()
        if not parses(source):
            continue
        if example.want and not _names(source) & bound and shown.setdefault(source, example.want) != example.want:
            return True
        body = ast.parse(source).body
        call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else None
        root = call.func if isinstance(call, ast.Call) else None
        while isinstance(root, ast.Attribute):
            root = root.value
        silent = not example.want and not example.exc_msg
        if silent and isinstance(root, ast.Name) and root.id not in bound | BUILTINS:
            return True
        bound |= _stored(source)
    return False


@lru_cache(maxsize=1024)
def _names(source: str) -> frozenset[str]:
    """Return the names that statements use or bind."""
    nodes = list(ast.walk(ast.parse(source)))
    return frozenset({n.id for n in nodes if isinstance(n, ast.Name)} | {b for n in nodes for b in bound_by(n)})


@lru_cache(maxsize=1024)
def _stored(source: str) -> frozenset[str]:
    return frozenset(name for node in ast.walk(ast.parse(source)) for name in bound_by(node))


def _offered(before: list[doctest.Example]) -> set[str]:
    """Return the names that stand for no state of an interpreter: what the solution or an import offers is shared by
    all."""
    bound = {name for b in before for name in _stored(b.source)}
    imports = [n for b in before for n in ast.walk(ast.parse(b.source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {name for node in imports for alias in node.names for name in bound_by(alias)}
    return ({name for b in before for name in _names(b.source)} - bound) | imported


def _without_headings(want: str) -> str:
    """Return what an example shows without a heading that follows it directly: "Example 2:" is no output."""
    lines = want.split("\n")
    heading = re.compile(r"[A-Z][A-Za-z ]{2,40}\d*:")
    return "\n".join(lines[: next((n for n, line in enumerate(lines) if n and heading.fullmatch(line.strip())), None)])


def _claims(source: str) -> bool:
    """Whether a line that shows nothing says something all the same: a condition, or an assertion."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if len(body) != 1:
        return False
    return isinstance(body[0], ast.Assert) or (isinstance(body[0], ast.Expr) and _is_condition(body[0].value))


def _is_condition(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare | ast.BoolOp) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )
