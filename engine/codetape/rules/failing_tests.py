"""Failing tests for a reader: which assertion failed, and what stood on both of its sides."""

import ast
from collections.abc import Collection, Iterator, Mapping

from codetape.domain.canonical import FrozenModel
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


def failing(report: Report | None, files: Mapping[str, str], left_out: Collection[str]) -> tuple[FailingTest, ...]:
    """Return a report's failing tests, those left out apart."""
    results = report.failing if report else ()
    return tuple(_one(result, files) for result in results if result.id not in left_out)


def _one(result: TestResult, files: Mapping[str, str]) -> FailingTest:
    own = file_of(result.id)
    line = next((f.line for f in reversed(result.frames) if f.file == own), 0)
    last = result.frames[-1] if result.frames else None
    compared = result.comparison if result.exception == "AssertionError" else None
    return FailingTest(
        test=result.id,
        assertion=statement_at(files.get(own, ""), line)[:500],
        left=compared.left[:500] if compared else "",
        right=compared.right[:500] if compared else "",
        raised="" if compared or not result.exception else f"{result.exception}: {_first(result.message)}".rstrip(": "),
        where=f"{SOLUTION_FILE}:{last.line}" if last and last.file == SOLUTION_FILE else "",
    )


def _first(text: str) -> str:
    return text.strip().split("\n")[0][:300]


def statement_at(source: str, line: int) -> str:
    """Return the text of the innermost statement at a line, on one line; empty where there is none."""
    try:
        found = [s for s in _statements(ast.parse(source)) if s.lineno <= line <= (s.end_lineno or s.lineno)]
        if not found:
            return ""
        inner = max(found, key=lambda s: (s.lineno, -(s.end_lineno or 0)))
        around = [s for s in found if isinstance(s, ast.With) and inner in s.body]
        return " ".join(ast.unparse(around[-1] if around else inner).split())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    blocks = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.stmt) and not isinstance(node, blocks))
