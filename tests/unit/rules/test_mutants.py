"""Mutants: one change each, legal, the same ones each time; never of what no test looks at."""

import ast

import pytest

from codetape.rules.mutants import MAX_MUTANTS, mutants
from tests.bench.loop.corpus import outcome, tasks

CODE = '''"""A module."""


def count(items: list[int], limit: int = 3) -> int:
    """Count what is below a limit: 1, 2, 3."""
    if not items:
        return 0
    total = 0
    for item in items:
        if item < limit and item >= 0:
            total += 1
    return total


def main() -> None:
    print(count([1, 2], 3))


if __name__ == "__main__":
    main()
'''


def test_each_is_one_change_that_can_be_named():
    found = mutants(CODE, 50)
    words = [mutant.words for mutant in found]
    assert "line 10: item < limit becomes item <= limit" in words
    assert "line 11: total += 1 becomes total -= 1" in words
    assert len({mutant.code for mutant in found}) == len(found)
    for mutant in found:
        assert mutant.code != CODE
        ast.parse(mutant.code)
        changed = [
            n for n, (a, b) in enumerate(zip(CODE.split("\n"), mutant.code.split("\n"), strict=True), 1) if a != b
        ]
        assert changed == [mutant.line]


def test_words_annotations_docstrings_and_main_are_left_alone():
    for mutant in mutants(CODE, 50):
        assert '"""Count what is below a limit: 1, 2, 3."""' in mutant.code
        assert "print(count([1, 2], 3))" in mutant.code
        assert "def count(items: list[int], limit: int = " in mutant.code


def test_a_long_program_has_a_bounded_number_spread_over_it():
    code = "\n\n".join(f"def f{n}(x):\n    return x + {n}" for n in range(200))
    found = mutants(code)
    assert len(found) == MAX_MUTANTS
    assert found[0].line < 20 < 500 < found[-1].line
    assert found == mutants(code)


def test_what_is_no_python_has_none():
    assert mutants("def f(:") == ()
    assert mutants("") == ()


ENDING = [task for task in tasks() if "while" not in task.programs[0]]
"""Tasks whose mutants end too."""


@pytest.mark.parametrize("task", ENDING[::6], ids=lambda task: task.name)
def test_most_mutants_of_real_programs_are_wrong(task):
    """Few of them do the same as the program: a change that nothing can notice tells nothing of the tests."""
    reference = task.programs[0]
    noticed = 0
    for mutant in mutants(reference):
        noticed += any(outcome(mutant.code, case) != outcome(reference, case) for case in (*task.hidden, *task.cases))
    assert noticed >= len(mutants(reference)) // 2
