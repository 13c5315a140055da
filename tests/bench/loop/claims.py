"""What one test of the bench claims: a case, and what it is to come to."""

import ast
from dataclasses import dataclass

from codetape.rules.pytest_source import functions


@dataclass(frozen=True)
class BenchClaim:
    """A test's claim. ``expected`` is a value's text, or ``raises NAME``."""

    test: str
    case: str
    expected: str


def claim_in(name: str, text: str) -> BenchClaim | None:
    """Return what a test function claims, where it ends in one plain assertion; else None."""
    body = ast.parse(_dedented(text)).body[0].body
    lead, last = [ast.unparse(statement) for statement in body[:-1]], body[-1]
    if isinstance(last, ast.Assert) and isinstance(last.test, ast.Compare) and len(last.test.ops) == 1:
        if not isinstance(last.test.ops[0], ast.Eq):
            return None
        case, expected = ast.unparse(last.test.left), ast.unparse(last.test.comparators[0])
    elif isinstance(last, ast.With) and isinstance(last.body[0], ast.Expr):
        case = ast.unparse(last.body[0].value)
        expected = "raises " + ast.unparse(last.items[0].context_expr.args[0])
    else:
        return None
    return BenchClaim(name, "\n".join([*lead, case]), expected)


def claims_in(source: str) -> dict[str, BenchClaim]:
    """Return the claims of a test file by test name."""
    found = {f.name: claim_in(f.name, f.text) for f in functions(source)} if source.strip() else {}
    return {name: claim for name, claim in found.items() if claim}


def test_text(name: str, case: str, expected: str) -> str:
    """Return the test function that makes a claim."""
    *lead, call = _statements(case)
    arguments = "tmp_path" if "tmp_path" in case else ""
    if expected.startswith("raises "):
        claim = [f"with pytest.raises({expected.removeprefix('raises ')}):", f"    {call}"]
    else:
        claim = [f"assert {call} == {expected}"]
    lines = [line for statement in [*lead, *claim] for line in statement.split("\n")]
    return "\n".join([f"def {name}({arguments}):", *(f"    {line}" for line in lines)])


def _statements(case: str) -> list[str]:
    return [ast.unparse(statement) for statement in ast.parse(case).body]


def test_file(entry: str, tests: list[str]) -> str:
    """Return a test file that holds these functions."""
    return "\n\n\n".join([f"import pytest\nfrom solution import {entry}", *tests]) + "\n"


def _dedented(text: str) -> str:
    margin = len(text) - len(text.lstrip())
    return "\n".join(line[margin:] for line in text.split("\n"))
