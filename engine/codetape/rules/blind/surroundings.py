"""What a test file says outside its tests: imports, and names that stand for values or help tests."""

import ast
from collections import Counter
from collections.abc import Iterable
from typing import Any

from codetape.rules.blind.constants import constant, is_constant
from codetape.rules.blind.syntax import bound_by, loaded


class Surroundings:
    """What a file says outside its tests: imports, and names that stand for values or help tests."""

    def __init__(self, tree: ast.Module, module: str) -> None:
        self.body = [s for s in tree.body if not _is_test(s)]
        self.own = {
            (alias.asname or alias.name).partition(".")[0]
            for node in self.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
            if getattr(node, "module", None) == module or alias.name == module
        }
        bound = Counter(name for s in self.body for name in bound_by(s))
        self.constants: dict[str, Any] = {}
        self.tables: set[str] = set()
        for statement in self.body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if (
                    isinstance(target, ast.Name)
                    and bound[target.id] == 1
                    and is_constant(statement.value, self.constants)
                ):
                    self.constants[target.id] = constant(statement.value, self.constants)

    def note_tables(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Remember the names that stand for cases: what is expected is among them."""
        for node in ast.walk(function):
            if isinstance(node, ast.For):
                self.tables |= loaded(node.iter)
        for decorator in function.decorator_list:
            self.tables |= loaded(decorator)

    def shows_a_table(self, bodies: list[list[ast.stmt]]) -> bool:
        """Whether what is left of a test, or a helper of it, uses a name that stands for cases."""
        kept = [*(s for body in bodies for s in body)]
        left = {name for s in [*kept, *self.needed(kept)] for name in loaded(s)}
        return bool(left & self.tables & self.constants.keys())

    def needed(self, functions: Iterable[ast.stmt]) -> list[ast.stmt]:
        """Return the statements of the file that these functions use: every other one could hold what is expected."""
        wanted = {name for f in functions for name in loaded(f)}
        while True:
            kept = [s for s in self.body if bound_by(s) & wanted and not _is_pytest(s)]
            more = wanted | {name for s in kept for name in loaded(s)}
            if more == wanted:
                return kept
            wanted = more


def _is_test(statement: ast.stmt) -> bool:
    name = getattr(statement, "name", "")
    return name.startswith("test") or (
        isinstance(statement, ast.ClassDef)
        and (
            name.startswith("Test")
            or bool({"TestCase"} & {ast.unparse(base).rpartition(".")[2] for base in statement.bases})
        )
    )


def _is_pytest(statement: ast.stmt) -> bool:
    """Whether a statement brings pytest in: nothing of it is where code is evaluated."""
    return isinstance(statement, ast.Import | ast.ImportFrom) and (
        (getattr(statement, "module", "") or "").partition(".")[0] == "pytest"
        or any(alias.name.partition(".")[0] == "pytest" for alias in statement.names)
    )
