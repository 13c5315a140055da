"""The tasks of the loop's bench, and what each of their programs gives: read from ``tasks/*.toml``, proven when loaded.

A case is Python text whose last line is an expression; it may use ``tmp_path``, an empty folder. A program is right where
it gives what the reference gives for each hidden case, by value and type, or raises what it raises.
"""

import ast
import contextlib
import io
import os
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

FOLDER = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Outcome:
    """What a case came to: ``value`` with its representation, or ``raises`` with the exception's name."""

    kind: str
    text: str


@dataclass(frozen=True)
class BenchTask:
    """One task. ``programs`` are the reference, then the wrong ones; ``cases`` are what a test writer may ask."""

    name: str
    kind: str
    prompt: str
    signature: str
    programs: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    cases: tuple[str, ...]
    hidden: tuple[str, ...]

    @property
    def entry(self) -> str:
        """Return the name of the function or class that the task asks for."""
        return self.signature.split("(")[0].split(":")[0].split()[-1]

    @cached_property
    def subtle(self) -> tuple[int, ...]:
        """Return the wrong programs that pass every example of the prompt."""
        return tuple(i for i in range(1, len(self.programs)) if self.passes_examples(self.programs[i]))

    def passes_examples(self, program: str) -> bool:
        """Whether a program gives what the prompt's examples say."""
        return all(holds(outcome(program, case), expected) for case, expected in self.examples)

    def right(self, program: str) -> bool:
        """Whether a program gives what the reference gives, hidden cases and examples alike."""
        cases = (*self.hidden, *(case for case, _ in self.examples))
        return all(outcome(program, case) == outcome(self.programs[0], case) for case in cases)


def holds(given: Outcome, expected: str) -> bool:
    """Whether an outcome is what an assertion says: a value's text, or ``raises NAME``."""
    if expected.startswith("raises "):
        return given.kind == "raises" and given.text == expected.removeprefix("raises ")
    return given.kind == "value" and same_value(given.text, expected)


def same_value(one: str, other: str) -> bool:
    """Whether two representations stand for what Python calls equal; by their text where they are no literals."""
    try:
        return bool(ast.literal_eval(one) == ast.literal_eval(other))
    except (ValueError, SyntaxError):
        return one.strip() == other.strip()


@cache
def outcome(program: str, case: str) -> Outcome:
    """Run a case on a program, here: the tasks are the project's own, and end."""
    tree = ast.parse(case)
    last = tree.body.pop()
    if not isinstance(last, ast.Expr):
        raise TypeError(f"the last line of a case is an expression: {case!r}")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        names: dict[str, object] = {"__name__": "solution", "tmp_path": Path(folder)}
        try:
            exec(compile(program, "solution.py", "exec"), names)
            exec(compile(tree, "case", "exec"), names)
            value = eval(compile(ast.Expression(last.value), "case", "eval"), names)
            return Outcome("value", repr(value))
        except RecursionError:
            return Outcome("raises", "RecursionError")
        except Exception as error:  # noqa: BLE001 - that is what the case comes to
            return Outcome("raises", type(error).__name__)
        finally:
            os.chdir(here)


@cache
def tasks() -> tuple[BenchTask, ...]:
    """Return all tasks in the order of their files and names. Raises ValueError for one that proves nothing."""
    files = sorted(FOLDER.glob("*.toml"))
    found = [_task(file.stem, row) for file in files for row in tomllib.loads(file.read_text())["task"]]
    names = [task.name for task in found]
    if len(names) != len(set(names)):
        raise ValueError(f"two tasks have one name: {sorted({n for n in names if names.count(n) > 1})}")
    return tuple(found)


def _task(kind: str, row: dict[str, object]) -> BenchTask:
    reference = str(row["reference"]).strip() + "\n"
    programs = [reference]
    for old, new in row["mutants"]:
        if reference.count(old) != 1:
            raise ValueError(f"{row['name']}: {old!r} stands {reference.count(old)} times in the reference")
        programs.append(reference.replace(old, new))
    return BenchTask(
        name=str(row["name"]),
        kind=kind,
        prompt=str(row["prompt"]).strip("\n"),
        signature=str(row["signature"]),
        programs=tuple(programs),
        examples=tuple((str(case), str(value)) for case, value in row.get("examples", [])),
        cases=tuple(str(case).strip("\n") for case in row["cases"]),
        hidden=tuple(str(case).strip("\n") for case in row["hidden"]),
    )


def faults(task: BenchTask) -> list[str]:
    """Return what keeps a task from proving anything; nothing for a sound one."""
    reference, found = task.programs[0], []
    if not task.passes_examples(reference):
        found.append("the reference does not pass the examples")
    found += [
        f"program {i} is not wrong by any hidden case"
        for i in range(1, len(task.programs))
        if task.right(task.programs[i])
    ]
    if len(set(task.programs)) < 6:
        found.append("fewer than five wrong programs")
    if len(task.cases) < 6 or len(task.hidden) < 6:
        found.append("fewer than six cases, or hidden ones")
    if set(task.cases) & {case for case, _ in task.examples}:
        found.append("a case is one of the examples")
    for case in (*task.cases, *task.hidden):
        given = outcome(reference, case)
        again = outcome.__wrapped__(reference, case)
        if given != again:
            found.append(f"the reference gives two things for {case!r}")
        if given.kind == "value" and not _literal(given.text):
            found.append(f"what the reference gives for {case!r} is no literal: {given.text[:60]}")
        if given.text in ("NameError", "SyntaxError", "AttributeError", "ImportError", "ModuleNotFoundError"):
            found.append(f"the reference raises {given.text} for {case!r}")
    if len(task.subtle) < (2 if task.examples else 0):
        found.append("fewer than two wrong programs pass the examples")
    return [f"{task.name}: {one}" for one in found]


def _literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True


if __name__ == "__main__":
    problems = [fault for task in tasks() for fault in faults(task)]
    print("\n".join(problems) or f"{len(tasks())} tasks are sound")
