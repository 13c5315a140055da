"""Examples of a task as values, and what can be told of their Python."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["value", "true", "printed", "repr", "raises"]


@dataclass(frozen=True)
class PromptExample:
    """One example: statements that prepare it, the code, and what must come of it.

    ``kind`` says how: a call that gives a ``value``, a condition that is ``true``, a value whose text is ``printed``,
    whatever the
    interpreter shows (``repr``: output, then the value's representation), an exception that it ``raises``.
    ``options`` are doctest's, by name; ``prints`` says that the shown value may as well be output. ``parts`` are
    examples that
    come before it in the same test: they share a state that no name stands for.
    """

    setup: tuple[str, ...]
    call: str
    expected: str
    kind: Kind
    options: tuple[str, ...] = ()
    prints: bool = False
    parts: tuple["PromptExample", ...] = ()


@dataclass(frozen=True)
class PromptExamples:
    """A prompt's examples: those that can be tests, and those left out, each with the reason."""

    anchors: tuple[PromptExample, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def in_words(count: int, left_out: Iterable[Sequence[str]]) -> str:
    """Return in a line how many examples became tests, and which did not, and why."""
    named = [f"{source} ({why})" for source, why in left_out]
    what = f"{count} example{'' if count == 1 else 's'} of the prompt became {'a test' if count == 1 else 'tests'}"
    return f"{what}; left out: {'; '.join(named)}" if named else what


def functions(anchors: tuple[PromptExample, ...]) -> tuple[str, ...]:
    """Return the names that the anchors use without defining them: the solution must offer them."""
    wanted: dict[str, None] = {}
    for anchor in anchors:
        steps = [text for one in (*anchor.parts, anchor) for text in (*one.setup, one.call)]
        wanted.update(dict.fromkeys(free_names(steps)))
    return tuple(wanted)


def free_names(sources: Iterable[str]) -> Iterator[str]:
    """Yield the names that statements use and do not bind, and those that they take from the solution."""
    sources = list(sources)
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    bound = {name for node in nodes for name in bound_by(node)}
    yield from sorted(from_solution(sources))
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in bound | BUILTINS:
            yield node.id


def from_solution(sources: Iterable[str]) -> set[str]:
    """Return the names that statements take from the solution by its own name."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    aliases = {a.asname or a.name for n in nodes if isinstance(n, ast.Import) for a in n.names if a.name == "solution"}
    named = {a.name for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "solution" for a in n.names}
    attributes = (n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name))
    return named | {n.attr for n in attributes if n.value.id in aliases}  # type: ignore[attr-defined]  # a Name's, as said


def bound_by(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node binds."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
        yield node.name or ""


BUILTINS = frozenset(
    """
    ArithmeticError AssertionError AttributeError BaseException BaseExceptionGroup BlockingIOError BrokenPipeError
    BufferError BytesWarning ChildProcessError ConnectionAbortedError ConnectionError ConnectionRefusedError
    ConnectionResetError DeprecationWarning EOFError Ellipsis EncodingWarning EnvironmentError Exception
    ExceptionGroup False FileExistsError FileNotFoundError FloatingPointError FutureWarning GeneratorExit IOError
    ImportError ImportWarning IndentationError IndexError InterruptedError IsADirectoryError KeyError
    KeyboardInterrupt LookupError MemoryError ModuleNotFoundError NameError None NotADirectoryError NotImplemented
    NotImplementedError OSError OverflowError PendingDeprecationWarning PermissionError ProcessLookupError
    RecursionError ReferenceError ResourceWarning RuntimeError RuntimeWarning StopAsyncIteration StopIteration
    SyntaxError SyntaxWarning SystemError SystemExit TabError TimeoutError True TypeError UnboundLocalError
    UnicodeDecodeError UnicodeEncodeError UnicodeError UnicodeTranslateError UnicodeWarning UserWarning ValueError
    Warning ZeroDivisionError abs all any ascii bin bool bytearray bytes callable chr complex dict dir divmod
    enumerate filter float format frozenset getattr hasattr hash hex id input int isinstance issubclass iter len
    list map max memoryview min next object oct open ord pow print range repr reversed round set slice sorted str
    sum super tuple type vars zip
    """.split()  # noqa: SIM905 - a list of this length is read as words
)
"""Names of Python's own that an example means by them."""


def is_expression(text: str) -> bool:
    """Whether the text is one expression."""
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def parses(text: str) -> bool:
    """Whether the text is a statement that may stand in a test: complete by itself, and no future import."""
    try:
        compile(text, "setup", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return "__future__" not in text


def is_literal(text: str) -> bool:
    """Whether the text is a literal; a tuple only in brackets."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    if "..." in text and any(isinstance(n, ast.Constant) and n.value is ... for n in ast.walk(ast.parse(text.strip()))):
        return False  # "[2, 3, ...]" continues
    return not isinstance(value, tuple) or text.startswith("(")  # "3, and" is prose


def is_literal_call(text: str) -> bool:
    """Whether the text calls a plain name with literals only."""
    return is_plain_call(ast.parse(text, mode="eval").body)


def is_plain_call(node: ast.expr) -> bool:
    """Whether an expression calls a plain name with literals only."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    arguments = [*node.args, *(k.value for k in node.keywords)]
    return all(is_literal(ast.unparse(a)) for a in arguments)
