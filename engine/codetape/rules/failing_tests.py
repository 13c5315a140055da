"""Failing tests for a reader: which assertion failed, and what stood on both of its sides."""

import ast
from collections.abc import Collection, Iterator, Mapping

from codetape.domain.frozen_model import FrozenModel
from codetape.domain.report import Report, TestResult
from codetape.domain.task import SOLUTION_FILE
from codetape.rules.pytest_source import file_of


class FailingTest(FrozenModel):
    """One failing test. ``assertion`` is its statement's text; ``left`` and ``right`` are representations, empty where
    unknown.

    ``raised`` is the exception where it is none of the assertion's own; ``where`` the solution's line that it comes
    from.
    """

    test: str
    assertion: str = ""
    left: str = ""
    right: str = ""
    raised: str = ""
    where: str = ""

    @property
    def details(self) -> tuple[tuple[str, str], ...]:
        """Return its assertion, values and exception, each with its name, as far as they are known."""
        raised = f"{self.raised}{f' at {self.where}' if self.where else ''}" if self.raised else ""
        pairs = (("assertion", self.assertion), ("left", self.left), ("right", self.right), ("raised", raised))
        return tuple((name, text) for name, text in pairs if text) or (("outcome", "it did not end"),)


MAX_TOLD = 500  # failing tests whose assertion is looked for
MAX_SOURCE = 1_000_000  # characters of a file that is parsed for it


def failing(report: Report | None, files: Mapping[str, str], left_out: Collection[str]) -> tuple[FailingTest, ...]:
    """Return a report's failing tests, those left out apart."""
    results = [result for result in (report.failing if report else ()) if result.id not in left_out]
    statements = _Statements(files)
    return tuple(_one(result, statements if number < MAX_TOLD else None) for number, result in enumerate(results))


class _Statements:
    """The statements of files by their lines; each file is parsed once."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._trees: dict[str, ast.Module | None] = {}

    def at(self, file: str, line: int) -> str:
        """Return the text of the innermost statement at a line; empty where there is none."""
        if file not in self._trees:
            self._trees[file] = _parsed(self._files.get(file, ""))
        return _at(self._trees[file], line)


def _one(result: TestResult, statements: _Statements | None) -> FailingTest:
    own = file_of(result.id)
    line = next((f.line for f in reversed(result.frames) if f.file == own), 0)
    last = result.frames[-1] if result.frames else None
    compared = result.comparison if result.exception == "AssertionError" else None
    return FailingTest(
        test=result.id,
        assertion=statements.at(own, line)[:500] if statements else "",
        left=compared.left[:500] if compared else "",
        right=compared.right[:500] if compared else "",
        raised="" if compared or not result.exception else f"{result.exception}: {_first(result.message)}".rstrip(": "),
        where=f"{SOLUTION_FILE}:{last.line}" if last and last.file == SOLUTION_FILE else "",
    )


def _first(text: str) -> str:
    return text.strip().split("\n")[0][:300]


def statement_at(source: str, line: int) -> str:
    """Return the text of the innermost statement at a line, on one line; empty where there is none."""
    return _at(_parsed(source), line)


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source) if len(source) <= MAX_SOURCE else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _at(tree: ast.Module | None, line: int) -> str:
    if tree is None or not line:
        return ""
    try:
        found = [s for s in _statements(tree, line) if s.lineno <= line <= (s.end_lineno or s.lineno)]
        if not found:
            return ""
        inner = max(found, key=lambda s: (s.lineno, -(s.end_lineno or 0)))
        around = [s for s in found if isinstance(s, ast.With) and inner in s.body]
        return " ".join(ast.unparse(around[-1] if around else inner).split())
    except (ValueError, RecursionError, MemoryError):
        return ""


def _statements(tree: ast.Module, line: int) -> Iterator[ast.stmt]:
    """Yield the statements around a line, from the outermost in; what lies before or behind it is passed over whole."""
    blocks = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    pending: list[ast.AST] = [tree]
    while pending:
        for child in ast.iter_child_nodes(pending.pop()):
            first, last = getattr(child, "lineno", 0), getattr(child, "end_lineno", None)
            if last is not None and not first <= line <= last:
                continue
            if isinstance(child, ast.stmt):
                if not isinstance(child, blocks):
                    yield child
                pending.append(child)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                pending.append(child)
