"""Runs the bench's tests in this process, and reports as a sandbox does: the programs are the project's own, and end.

It saves the minutes that thousands of real sandboxes would take; `--sandbox` takes a real one.
"""

import ast
import os
import sys
import tempfile
import types
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from types import TracebackType

from codetape.domain.job import Job
from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.rules.pytest_source import functions


def report_of(job: Job) -> Report:
    """Return the report of a run of the job's tests."""
    results: list[TestResult] = []
    for file in reversed(job.targets) if job.conditions.reverse else job.targets:
        tests = [f for f in functions(job.files[file]) if f"{file}::{f.name}" not in job.deselect]
        results += [_run(job, file, test.name) for test in (reversed(tests) if job.conditions.reverse else tests)]
    failed = any(result.outcome == "failed" for result in results)
    return Report(
        exit="tests_failed" if failed else "ok",
        whole=True,
        exit_code=int(failed),
        collected=tuple(result.id for result in results),
        tests=tuple(results),
    )


class _Captured:
    """pytest's ``capsys``, as far as tests of examples use it."""

    def __init__(self) -> None:
        self.out = StringIO()

    def readouterr(self) -> types.SimpleNamespace:
        text = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        return types.SimpleNamespace(out=text, err="")


def _run(job: Job, file: str, name: str) -> TestResult:
    solution, captured, here = types.ModuleType("solution"), _Captured(), Path.cwd()
    before = sys.modules.get("solution")
    sys.modules["solution"] = solution
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(captured.out), redirect_stderr(StringIO()):
        os.chdir(folder)
        try:
            exec(compile(job.files["solution.py"], "solution.py", "exec"), solution.__dict__)
            names: dict[str, object] = {"__name__": "tests"}
            exec(_compiled(job.files[file], file), names)
            function = names[name]
            given = {"tmp_path": Path(folder), "capsys": captured}
            wanted = function.__code__.co_varnames[: function.__code__.co_argcount]  # type: ignore[attr-defined]
            function(**{argument: given[argument] for argument in wanted})  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - that is the test's outcome
            return _failed(job, file, name, error)
        finally:
            os.chdir(here)
            sys.modules.pop("solution", None)
            if before is not None:
                sys.modules["solution"] = before
    return TestResult(id=f"{file}::{name}", outcome="passed")


def _failed(job: Job, file: str, name: str, error: BaseException) -> TestResult:
    frames, trace, last = [], error.__traceback__, None
    while trace is not None:
        place = trace.tb_frame.f_code.co_filename
        if place in job.files:
            frames.append(Frame(file=place, line=trace.tb_lineno))
            last = trace
        trace = trace.tb_next
    compared = _comparison(last) if isinstance(error, AssertionError) else None
    kind = type(error).__name__
    said = f"assert {compared.left} == {compared.right}" if compared else str(error)
    return TestResult(
        id=f"{file}::{name}",
        outcome="failed",
        exception=kind,
        message=said[:2000],
        traceback=f"E   {kind}: {said}"[:3000],
        frames=tuple(frames[-20:]),
        comparison=compared,
    )


def _comparison(trace: TracebackType | None) -> Comparison | None:
    """Return what a failing assertion compared: its sides were kept under these names."""
    names = trace.tb_frame.f_locals if trace else {}
    if _LEFT not in names or _RIGHT not in names:
        return None
    return Comparison(op="==", left=repr(names[_LEFT]), right=repr(names[_RIGHT]))


_LEFT, _RIGHT = "__left__", "__right__"


class _Kept(ast.NodeTransformer):
    """Lets assertions keep what they compare, as pytest's do."""

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            sides = (test.left, test.comparators[0])
            left, right = (
                ast.NamedExpr(ast.Name(name, ast.Store()), side)
                for name, side in zip((_LEFT, _RIGHT), sides, strict=True)
            )
            node.test = ast.Compare(left, test.ops, [right])
        return node


@cache
def _compiled(source: str, file: str) -> types.CodeType:
    return compile(ast.fix_missing_locations(_Kept().visit(ast.parse(source))), file, "exec")
