"""Examples in a prompt, taken by rule as tests that nobody may change.

Two forms are read: doctest examples (``>>> f(1)`` and what the interpreter shows for it), with doctest's meaning, and a line
or clause that says ``f(1) -> 2`` (also ``=>``, ``==``, ``returns``), whose two sides are Python: a call of a plain name, and a literal.
An example that cannot be a test is left out, with the reason.
"""

import ast
import builtins
import doctest
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Literal

from codetape import passages
from codetape.import_map import IMPORTS
from codetape.packages import LOCAL, standard_library

_WORDS = r"returns|gives"
_ARROW = re.compile(rf"`?\s*(->|=>|→|==+|{_WORDS})\s*`?\s*")
_CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\(")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PRINTS = re.compile(r"(?i)\b(prints?|printing|printed|standard output|stdout)\b")
_TYPES = frozenset(
    {"int", "str", "float", "bool", "bytes", "list", "dict", "set", "tuple", "None", "object", "complex"}
)
_MAX = 40
_MAX_LEFT_OUT = 20
_MAX_READ = 200  # doctest lines of one passage: each is held against those before it
MAX_PARSES = 5000  # texts that are parsed in the search of one prompt

Kind = Literal["value", "true", "printed", "repr", "raises"]


@dataclass(frozen=True)
class Anchor:
    """One example: statements that prepare it, the code, and what must come of it.

    ``kind`` says how: a call that gives a ``value``, a condition that is ``true``, a value whose text is ``printed``, whatever the
    interpreter shows (``repr``: output, then the value's representation), an exception that it ``raises``.
    ``options`` are doctest's, by name; ``prints`` says that the shown value may as well be output. ``parts`` are examples that
    come before it in the same test: they share a state that no name stands for.
    """

    setup: tuple[str, ...]
    call: str
    expected: str
    kind: Kind
    options: tuple[str, ...] = ()
    prints: bool = False
    parts: tuple["Anchor", ...] = ()


@dataclass(frozen=True)
class Examples:
    """A prompt's examples: those that can be tests, and those left out, each with the reason."""

    anchors: tuple[Anchor, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def read(prompt: str) -> Examples:
    """Return a prompt's examples, each once, in order."""
    try:
        text = passages.read(prompt)
        reader = _Reader(text)
        for passage in text.texts:
            reader.doctests(passage)
        for passage in text.texts:
            reader.arrows(passage)
    except (RecursionError, MemoryError):  # no example that a person wrote
        return Examples()
    unique = tuple(dict.fromkeys(reader.found))
    left_out = [*reader.left_out, *((a.call, f"one of more than {_MAX}") for a in unique[_MAX:])]
    return Examples(unique[:_MAX], tuple(dict.fromkeys(left_out))[:_MAX_LEFT_OUT])


def extract(prompt: str) -> tuple[Anchor, ...]:
    """Return the examples of a prompt that can be tests."""
    return read(prompt).anchors


def in_words(count: int, left_out: Iterable[Sequence[str]]) -> str:
    """Return in a line how many examples became tests, and which did not, and why."""
    named = [f"{source} ({why})" for source, why in left_out]
    what = f"{count} example{'' if count == 1 else 's'} of the prompt became {'a test' if count == 1 else 'tests'}"
    return f"{what}; left out: {'; '.join(named)}" if named else what


def functions(anchors: tuple[Anchor, ...]) -> tuple[str, ...]:
    """Return the names that the anchors use without defining them: the solution must offer them."""
    wanted: dict[str, None] = {}
    for anchor in anchors:
        steps = [text for one in (*anchor.parts, anchor) for text in (*one.setup, one.call)]
        wanted.update(dict.fromkeys(_free(steps)))
    return tuple(wanted)


def _free(sources: Iterable[str]) -> Iterator[str]:
    """Yield the names that statements use and do not bind, and those that they take from the solution."""
    sources = list(sources)
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    bound = {name for node in nodes for name in _bound(node)}
    yield from sorted(_from_solution(sources))
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in bound | _BUILTINS:
            yield node.id


def _from_solution(sources: Iterable[str]) -> set[str]:
    """Return the names that statements take from the solution by its own name."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    aliases = {a.asname or a.name for n in nodes if isinstance(n, ast.Import) for a in n.names if a.name == "solution"}
    named = {a.name for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "solution" for a in n.names}
    attributes = (n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name))
    return named | {n.attr for n in attributes if n.value.id in aliases}  # type: ignore[attr-defined]  # a Name's, as said


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
        yield node.name or ""


_BUILTINS = frozenset(
    [
        "ArithmeticError",
        "AssertionError",
        "AttributeError",
        "BaseException",
        "BaseExceptionGroup",
        "BlockingIOError",
        "BrokenPipeError",
        "BufferError",
        "BytesWarning",
        "ChildProcessError",
        "ConnectionAbortedError",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "DeprecationWarning",
        "EOFError",
        "Ellipsis",
        "EncodingWarning",
        "EnvironmentError",
        "Exception",
        "ExceptionGroup",
        "False",
        "FileExistsError",
        "FileNotFoundError",
        "FloatingPointError",
        "FutureWarning",
        "GeneratorExit",
        "IOError",
        "ImportError",
        "ImportWarning",
        "IndentationError",
        "IndexError",
        "InterruptedError",
        "IsADirectoryError",
        "KeyError",
        "KeyboardInterrupt",
        "LookupError",
        "MemoryError",
        "ModuleNotFoundError",
        "NameError",
        "None",
        "NotADirectoryError",
        "NotImplemented",
        "NotImplementedError",
        "OSError",
        "OverflowError",
        "PendingDeprecationWarning",
        "PermissionError",
        "ProcessLookupError",
        "RecursionError",
        "ReferenceError",
        "ResourceWarning",
        "RuntimeError",
        "RuntimeWarning",
        "StopAsyncIteration",
        "StopIteration",
        "SyntaxError",
        "SyntaxWarning",
        "SystemError",
        "SystemExit",
        "TabError",
        "TimeoutError",
        "True",
        "TypeError",
        "UnboundLocalError",
        "UnicodeDecodeError",
        "UnicodeEncodeError",
        "UnicodeError",
        "UnicodeTranslateError",
        "UnicodeWarning",
        "UserWarning",
        "ValueError",
        "Warning",
        "ZeroDivisionError",
        "abs",
        "all",
        "any",
        "ascii",
        "bin",
        "bool",
        "bytearray",
        "bytes",
        "callable",
        "chr",
        "complex",
        "dict",
        "dir",
        "divmod",
        "enumerate",
        "filter",
        "float",
        "format",
        "frozenset",
        "getattr",
        "hasattr",
        "hash",
        "hex",
        "id",
        "input",
        "int",
        "isinstance",
        "issubclass",
        "iter",
        "len",
        "list",
        "map",
        "max",
        "memoryview",
        "min",
        "next",
        "object",
        "oct",
        "open",
        "ord",
        "pow",
        "print",
        "range",
        "repr",
        "reversed",
        "round",
        "set",
        "slice",
        "sorted",
        "str",
        "sum",
        "super",
        "tuple",
        "type",
        "vars",
        "zip",
    ]
)
"""Names of Python's own that an example means by them. Others, `input` or `sum` of a task that writes one, are a reader's guess."""


# ---- as tests


def test_file(anchors: tuple[Anchor, ...]) -> str:
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


def _body(anchor: Anchor, names: tuple[str, ...], *, begun: bool) -> list[str]:
    setup = _without_solution(anchor.setup, names)
    return [*setup, *(_shown(anchor, begun or bool(setup)) if _is_shown(anchor) else _assertion(anchor))]


def _without_solution(setup: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    """Leave out imports that the file makes already."""
    made = {f"from solution import {name}" for name in names}
    return [line for line in setup if line not in made]


def _is_shown(anchor: Anchor) -> bool:
    return anchor.kind == "repr" or anchor.prints or bool(anchor.options)


def _assertion(anchor: Anchor) -> tuple[str, ...]:
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


def _shown(anchor: Anchor, prepared: bool) -> Iterator[str]:
    """Yield the lines that hold what the interpreter would show against what the example shows."""
    if prepared:
        yield "capsys.readouterr()"
    want = anchor.expected + "\n" if anchor.expected else ""
    printed = anchor.kind == "printed"
    if _is_expression(anchor.call) and not printed and not anchor.call.startswith("print("):
        yield f"value = {anchor.call}"
        yield 'shown = capsys.readouterr().out + ("" if value is None else f"{value!r}\\n")'
    else:
        shown = f"print({anchor.call})" if printed else anchor.call
        single = f'exec(compile({shown + chr(10)!r}, "example", "single"), {{**globals(), **locals()}})'
        yield shown if _is_expression(shown) else single  # as the interpreter does: each value is shown
        yield "shown = capsys.readouterr().out"
    if anchor.options:
        flags = " | ".join(f"doctest.{name}" for name in anchor.options)
        yield f"want = {want!r}"
        yield f"assert doctest.OutputChecker().check_output(want, shown, {flags}), f'expected {{want!r}}, got {{shown!r}}'"
    elif anchor.kind == "value":
        yield f"assert value == {anchor.expected} or shown == {want!r}"
    else:
        yield f"assert shown == {want!r}"


# ---- reading


class _Reader:
    """Examples as they are found in one prompt's passages, and how many texts may still be parsed.

    A prompt of nothing but brackets would be parsed for hours.
    """

    def __init__(self, text: passages.Passages) -> None:
        self.text = text
        self.found: list[Anchor] = []
        self.left_out: list[tuple[str, str]] = []
        self.parses = MAX_PARSES
        self.prose = "\n".join(
            line for t in text.texts for line in t.split("\n") if not line.lstrip().startswith((">>>", "..."))
        )
        self.prints = bool(_PRINTS.search(self.prose))

    def spent(self) -> bool:
        """Take one parse; whether none was left."""
        self.parses -= 1
        return self.parses < 0

    def leave_out(self, source: str, why: str) -> None:
        """Name an example that is no test."""
        self.left_out.append((source.strip().split("\n")[0][:200], why))

    # ---- doctests

    def doctests(self, passage: str) -> None:
        """Take the doctest examples of one passage: all of them share one interpreter.

        Where they share a state of the script itself, that no name stands for, they are one test, in their order.
        """
        read = list(islice(_examples(passage), _MAX_READ))
        for broken in (one for one in read if isinstance(one, str)):
            self.leave_out(broken, "its lines cannot be read as doctest's")
        examples = [one for one in read if not isinstance(one, str)]
        together, first = _share_a_state(examples), len(self.found)
        before: list[doctest.Example] = []
        for example in examples:
            taken = len(self.found)
            if self._is_one(example):
                self._doctest(example, before, together=together)
            before = [] if together and len(self.found) > taken else [*before, example]
        if together and len(self.found) > first + 1:
            *parts, last = self.found[first:]
            self.found[first:] = [replace(last, parts=tuple(parts))]

    def _is_one(self, example: doctest.Example) -> bool:
        """Whether an example claims something, rather than preparing another one."""
        return bool(example.want or example.exc_msg) or _claims(example.source)

    def _doctest(self, example: doctest.Example, before: list[doctest.Example], *, together: bool) -> None:
        source = example.source.strip()
        options = tuple(doctest.OPTIONFLAGS_BY_NAME.items())
        names = tuple(sorted(n for n, flag in options if example.options.get(flag)))
        if "SKIP" in names:
            self.leave_out(source, "it says that it is to be skipped")
        elif not _parses(source) or not all(_parses(b.source) for b in before):
            self.leave_out(source, "it, or a line before it, is no Python that can stand in a test")
        elif _ADDRESS.search(example.want) and "ELLIPSIS" not in names:
            self.leave_out(source, "it shows an address")
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
            self.leave_out(source, "it raises what is no exception of Python's own")
            return
        earlier = (line for one in before for line in self._prepared(one))
        setup = tuple(earlier if together else self._setup(source, before))
        parts = [text for one in self.found for text in (*one.setup, one.call)] if together else []
        unknown = self._unknown([*parts, *setup, anchor.call])
        if unknown:
            self.leave_out(source, f"nothing says what {unknown} is")
        else:
            self.found.append(Anchor(setup, anchor.call, anchor.expected, anchor.kind, names, anchor.prints))

    def _anchor(self, example: doctest.Example, source: str, options: tuple[str, ...]) -> Anchor | None:
        """Return what an example claims; None where it cannot be claimed in a test."""
        want = _without_headings(example.want.rstrip("\n"))
        if "DONT_ACCEPT_BLANKLINE" not in options:
            want = re.sub(r"(?m)^<BLANKLINE>$", "", want)
        if example.exc_msg:
            raised = re.match(r"[\w.]+", example.exc_msg)
            name = raised.group(0) if raised else ""
            known = name.isidentifier() and hasattr(builtins, name)
            return Anchor((), source.rstrip(";"), name, "raises") if known else None
        if not _is_expression(source):
            if not want:
                return Anchor((), ast.unparse(ast.parse(source)), "", "true")
            return Anchor((), source, want, "repr")
        tree = ast.parse(source, mode="eval").body
        call = ast.unparse(tree)  # without the comments that a line of an example may end in
        if not want or (want == "True" and _is_condition(tree)):
            return Anchor((), call, "True", "true")
        if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "print":
            plain = len(tree.args) == 1 and not tree.keywords and not isinstance(tree.args[0], ast.Starred)
            return Anchor((), ast.unparse(tree.args[0]), want, "printed") if plain else Anchor((), call, want, "repr")
        if not _is_literal(want.strip()):
            return Anchor((), call, want, "repr")
        prints = self.prints or (isinstance(tree, ast.Call) and ast.unparse(tree.func) in self.text.returning_none)
        return Anchor((), call, want.strip(), "value", prints=prints)

    def _setup(self, source: str, before: list[doctest.Example]) -> Iterator[str]:
        """Yield what runs before an example: statements that show nothing, and whatever touches a name that it stands on."""
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
        asked = any(a.name in self.text.functions or re.search(rf"\b{a.name}\(", self.prose) for a in names)
        return top not in IMPORTS or asked

    def _unknown(self, sources: list[str]) -> str:
        """Return a name that an example uses and that nobody could offer: data that the task only speaks of."""
        called = {
            n.func.id
            for source in sources
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        offered = called | self.text.functions | self.text.names | _from_solution(sources)
        return next((name for name in _free(sources) if name not in offered and not name[0].isupper()), "")

    # ---- arrows

    def arrows(self, passage: str) -> None:
        """Take the clauses of one passage that say what a call gives."""
        for line in passage.splitlines():
            if line.lstrip().startswith((">>>", "def ", "class ", "async def ", "...")):
                continue
            if line.lstrip().startswith("assert ") and self._assertion(line.strip()):
                continue
            for match in _CALL.finditer(line):
                self._arrow(line, match)

    def _assertion(self, line: str) -> bool:
        """Take an assertion of the task as it is; whether it was one, be it taken or left out with a reason."""
        if self.spent() or not _parses(line):
            return False
        statement = ast.parse(line).body[0]
        if not isinstance(statement, ast.Assert):
            return False
        test, source = statement.test, ast.unparse(statement)
        if isinstance(test, ast.Compare) and [type(by) for by in test.ops] == [ast.Eq] and _is_plain_call(test.left):
            want = ast.unparse(test.comparators[0])
            if _is_literal(want):
                self.found.append(Anchor((), ast.unparse(test.left), want, "value"))
                return True
        modules = [n for n in _free([source]) if n in standard_library("3.13") and n not in self.text.functions]
        setup = tuple(f"import {name}" for name in dict.fromkeys(modules))
        if unknown := self._unknown([*setup, source]):
            self.leave_out(source, f"nothing says what {unknown} is")
        elif any(isinstance(n, ast.Call) for n in ast.walk(test)):
            self.found.append(Anchor(setup, source, "", "true"))
        return True

    def _arrow(self, line: str, match: re.Match[str]) -> None:
        call = self._balanced(line, match.start())
        arrow = _ARROW.match(line, match.start() + len(call)) if call else None
        if arrow is None or not _is_literal_call(call):
            return
        if why := _not_alone(line[: match.start()]):
            self.leave_out(f"{call} {arrow.group(1)} {line[arrow.end() :]}", why)
            return
        rest = line[arrow.end() :]
        want = self._literal_prefix(rest)
        if self._is_signature(call, arrow.group(1), rest, want):
            return
        if want:
            self.found.append(Anchor((), call, want, "value", prints=match.group(1) in self.text.returning_none))
        elif not re.fullmatch(_WORDS, arrow.group(1)) and rest.strip():
            self.leave_out(f"{call} {arrow.group(1)} {rest}", "its right side is no value")

    def _is_signature(self, call: str, arrow: str, rest: str, want: str) -> bool:
        """Whether an arrow leads to a type, or belongs to a method: nothing that a call of a function could give."""
        node = ast.parse(call, mode="eval").body
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        method = name in self.text.methods and name not in self.text.functions
        if method or (self._asks_for_class() and name not in self.text.functions and not name[:1].isupper()):
            return True
        if want == "None" and call.endswith("()") and arrow in ("->", "→", "=>"):
            return True
        if arrow not in ("->", "→"):
            return False
        if want:
            value = ast.literal_eval(want)
            named = isinstance(value, str) and (value in _TYPES or value in self.text.names or self._is_class(value))
            return value is None or (named and call.endswith("()"))
        return re.match(r"[A-Za-z_]\w*", rest) is not None

    def _asks_for_class(self) -> bool:
        return re.search(r"\bclass\s+`?[A-Z]\w*", self.prose) is not None

    def _is_class(self, name: str) -> bool:
        return name.isidentifier() and re.search(rf"\bclass\s+`?{name}\b", self.prose) is not None

    def _balanced(self, line: str, start: int) -> str:
        """Return the call that begins at ``start``, up to its closing bracket; empty where none closes in 500 characters."""
        for end in range(start, min(len(line), start + 500)):
            if line[end] == ")" and not self.spent() and _is_expression(line[start : end + 1]):
                return line[start : end + 1]
        return ""

    def _literal_prefix(self, text: str) -> str:
        """Return the longest beginning of the text that is a literal, where its clause ends after it."""
        text = text.strip().lstrip("`")
        for end in range(min(len(text), 2000), 0, -1):
            rest = text[end:]
            if text[:end].rstrip().endswith((".", ",")):  # the sentence's, not the number's
                continue
            if _ends_clause(rest) and not self.spent() and _is_literal(text[:end].strip()):
                return text[:end].strip()
        return ""


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
    """Whether examples lean on what earlier ones did to the script: a call for its effect alone, or one call with two outcomes."""
    shown: dict[str, str] = {}
    bound: set[str] = set()
    for example in examples:
        source = example.source.strip()
        if not _parses(source):
            continue
        if example.want and not _names(source) & bound and shown.setdefault(source, example.want) != example.want:
            return True
        body = ast.parse(source).body
        call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else None
        root = call.func if isinstance(call, ast.Call) else None
        while isinstance(root, ast.Attribute):
            root = root.value
        silent = not example.want and not example.exc_msg
        if silent and isinstance(root, ast.Name) and root.id not in bound | _BUILTINS:
            return True
        bound |= _stored(source)
    return False


@lru_cache(maxsize=1024)
def _names(source: str) -> frozenset[str]:
    """Return the names that statements use or bind."""
    nodes = list(ast.walk(ast.parse(source)))
    return frozenset({n.id for n in nodes if isinstance(n, ast.Name)} | {b for n in nodes for b in _bound(n)})


@lru_cache(maxsize=1024)
def _stored(source: str) -> frozenset[str]:
    return frozenset(name for node in ast.walk(ast.parse(source)) for name in _bound(node))


def _offered(before: list[doctest.Example]) -> set[str]:
    """Return the names that stand for no state of an interpreter: what the solution or an import offers is shared by all."""
    bound = {name for b in before for name in _stored(b.source)}
    imports = [n for b in before for n in ast.walk(ast.parse(b.source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {name for node in imports for alias in node.names for name in _bound(alias)}
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


_BULLET = re.compile(r"^\s*(?:[-*+>]|\d+[.)])\s+")
_OPERATOR = re.compile(r"(?:[-+*/%<>&|^~@=!]|\b(?:not|and|or|in|is|lambda|await))\s*$")
_NO_PROMISE = re.compile(
    r"(?i)\b(currently|wrongly|incorrectly|instead|old|before|not|never|if|unless|buggy|actually)\b"
)


def _not_alone(before: str) -> str:
    """Return why a call does not stand for itself after such a text; empty where it does.

    It may be part of an expression, or what is said of it may be no promise.
    """
    text = _BULLET.sub("", before).rstrip()
    if _OPERATOR.search(text):
        return "" if re.search(r",\s*and$|\band$", text) else "it is part of a larger expression"
    sentence = re.split(r"[.;!?]\s|(?i:\b(?:new|now|expected)\b)", text)[-1]
    return "what is said of it is no promise" if _NO_PROMISE.search(sentence) else ""


def _ends_clause(rest: str) -> bool:
    """Whether a literal may end before this: "5 results", "1/3" and "-1 or None" are no literals."""
    left = rest.lstrip()
    if re.match(r"[.,]\s*(?:\.|['\"\d\[({-]|None\b|True\b|False\b)", left):
        return False  # "3.14159..." and "1, 3" go on
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
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return "__future__" not in text


def _is_literal(text: str) -> bool:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    if "..." in text and any(isinstance(n, ast.Constant) and n.value is ... for n in ast.walk(ast.parse(text.strip()))):
        return False  # "[2, 3, ...]" goes on
    return not isinstance(value, tuple) or text.startswith("(")  # "3, and" is prose


def _is_literal_call(text: str) -> bool:
    """Whether the text calls a plain name with literals only."""
    return _is_plain_call(ast.parse(text, mode="eval").body)


def _is_plain_call(node: ast.expr) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    arguments = [*node.args, *(k.value for k in node.keywords)]
    return all(_is_literal(ast.unparse(a)) for a in arguments)
