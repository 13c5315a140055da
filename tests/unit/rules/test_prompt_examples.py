"""Examples of a prompt: which become tests, with what meaning, and which are left out and why."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.rules.prompt_examples import as_tests, example, extract, passages
from tests.helpers.forked import run_pytest

ADD = "def add(a, b):\n    return a + b\n"


def verdicts(prompt, code, tmp_path):
    """Run a prompt's examples against a module with plain pytest; return its exit code."""
    (tmp_path / "solution.py").write_text(code)
    (tmp_path / "test_anchors.py").write_text(as_tests.test_file(extract.extract(prompt)))
    plain = {"PATH": os.environ["PATH"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return run_pytest(["-q", "-p", "no:cacheprovider", "test_anchors.py"], plain, tmp_path, 60)[0]


STUB = 'def add(a, b):\n    """Add two numbers.\n\n    >>> add(1, 2)\n    3\n    """\n'
TRIANGLE = "def triangle(n):\n    for i in range(1, n + 1):\n        print('*' * i)\n"
STACK = "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n        self.items.append(x)\n    def pop(self):\n        return self.items.pop()\n    def size(self):\n        return len(self.items)\n"
HOLDS = {
    "a stub as the prompt": (STUB, ADD, 1),
    "a stub in a fence": (f"Complete it.\n```python\n{STUB}```\nBe quick.", ADD, 1),
    "a stub in prose": (f"Complete this function:\n\n{STUB}\nBe quick.", ADD, 1),
    "a stub whose quotes close on the example's line": (STUB.replace("3\n    ", "3"), ADD, 1),
    "a stub that is cut off": (STUB.replace('    """\n', "", 1).rstrip().rstrip('"'), ADD, 1),
    "single quotes": (STUB.replace('"""', "'''"), ADD, 1),
    "windows line ends": (STUB.replace("\n", "\r\n"), ADD, 1),
    "a session in a fence": ("Write add(a, b).\n```\n>>> add(1, 2)\n3\n```\nThanks.", ADD, 1),
    "an indented session": ("Write add(a, b).\n\n    >>> add(1, 2)\n    3\n\nThanks.", ADD, 1),
    "printed output": ("triangle(n) prints stars.\n\n>>> triangle(2)\n*\n**\n", TRIANGLE, 1),
    "printed output that reads as a value": ("show(x) prints x.\n\n>>> show(3)\n3\n", "def show(x):\n    print(x)\n", 1),
    "a value where the task speaks of printing": ('quote(x) gives it, print nothing.\n\n>>> quote(3)\n"3"\n', "def quote(x):\n    return str(x)\n", 1),
    "two values printed": (">>> print(add(1, 2), add(3, 4))\n3 7\n", ADD, 1),
    "a printed text": (">>> print(add('a', 'b'))\nab\n", ADD, 1),
    "an ellipsis": (">>> make()  # doctest: +ELLIPSIS\n<...Point object at 0x...>\n", "class Point:\n    pass\ndef make():\n    return Point()\n", 1),
    "a loop that prints": (">>> for n in add([1], [2]):\n...     print(n)\n1\n2\n", ADD, 1),
    "a blank line in the output": (">>> print(add('a\\n\\n', 'b'))\na\n<BLANKLINE>\nb\n", ADD, 1),
    "a comparison with its value below": (">>> add(1, 2) == 3\nTrue\n", ADD, 1),
    "a comparison that is false": (">>> add(1, 2) == 4\nFalse\n", ADD, 1),
    "a length": (">>> len(add('a', 'bc')) == 3\nTrue\n", ADD, 1),
    "a comparison without output": (">>> add(1, 2) == 3\n", ADD, 1),
    "an assertion without output": (">>> assert add(1, 2) == 3\n", ADD, 1),
    "an import of the module to come": (">>> from sums import add\n>>> add(1, 2)\n3\n", ADD, 1),
    "the module to come by its name": (">>> import sums\n>>> sums.add(1, 2)\n3\n", ADD, 1),
    "an import from the standard library": (">>> from fractions import Fraction\n>>> add(Fraction(1), 2) == 3\nTrue\n", ADD, 1),
    "an exception": (">>> add(1, None)\nTraceback (most recent call last):\n    ...\nTypeError: no\n", ADD, 1),
    "an object with a state": ("class Stack with push, pop, size.\n\n>>> s = Stack()\n>>> s.push(4)\n>>> s.size()\n1\n>>> s.pop()\n4\n>>> s.size()\n0\n", STACK, 3),
    "a class's own docstring": ('class Stack:\n    """A stack.\n\n    >>> s = Stack()\n    >>> s.push(1)\n    >>> s.size()\n    1\n    """\n', STACK, 1),
    "a state of the script's own": (
        ">>> add_task('milk')\n>>> add_task('eggs')\n>>> tasks()\n['milk', 'eggs']\n>>> done('milk')\n>>> tasks()\n['eggs']\n",
        "T = []\ndef add_task(t):\n    T.append(t)\ndef done(t):\n    T.remove(t)\ndef tasks():\n    return list(T)\n", 1),
    "a call that gives another value each time": (">>> tick()\n1\n>>> tick()\n2\n", "N = [0]\ndef tick():\n    N[0] += 1\n    return N[0]\n", 1),
    "several statements on a line": (">>> x = add(1, 2); x; add(x, x)\n3\n6\n", ADD, 1),
    "values shown in a loop": (">>> for n in [1, 2]: add(n, n)\n2\n4\n", ADD, 1),
    "a heading below the output": (">>> add(1, 2)\n3\nExample 2:\n>>> add(2, 2)\n4\n", ADD, 2),
    "one broken line among good ones": ('def add(a, b):\n    """\n    >>> add("a\nb", "")\n    1\n    >>> add(1, 2)\n    3\n    """\n', ADD, 1),
    "no blank after the prompt": (">>>add(1, 2)\n3\n", ADD, 1),
    "an assertion of another form": ("Your code must pass:\nassert set(add([1], [2])) == set((1, 2))\nassert math.isclose(add(.1, .2), .3)\nassert not add(0, 0)", ADD, 3),
    "a constant of the script": (">>> twice(LIMIT)\n6\n", "LIMIT = 3\ndef twice(n):\n    return 2 * n\n", 1),
    "clauses of prose": ("add(1, 2) -> 3, `add(2, 2)` returns 4; and add(0, 0) == 0.", ADD, 3),
    "an assertion in a fence": ("Write add.\n```python\nassert add(1, 2) == 3\n```", ADD, 1),
    "a comment in a stub": ("def add(a, b):\n    # add(1, 2) -> 3\n    ...\n", ADD, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", HOLDS)
def test_an_example_that_the_right_code_meets_is_a_test_that_it_passes(name, tmp_path):
    prompt, code, count = HOLDS[name]
    assert len(extract.extract(prompt)) == count
    assert verdicts(prompt, code, tmp_path) == 0


@pytest.mark.parametrize("name", HOLDS)
def test_the_same_example_fails_where_the_code_gives_something_else(name, tmp_path):
    """The control: a test that passes whatever the code does would be none."""
    prompt, code, _ = HOLDS[name]
    wrong = (
        code.replace("return ", "return 'wrong', ")
        .replace("T.append(t)", "T.append('wrong')")
        .replace("print(", "print('wrong', ")
        .replace("size", "size_of")
    )
    if "TypeError" in prompt:
        wrong = "def add(a, b):\n    return 0\n"
    elif "False" in prompt:
        wrong = "def add(a, b):\n    return 4\n"
    assert verdicts(prompt, wrong, tmp_path) != 0


@pytest.mark.parametrize(
    "prompt",
    [
        "Write a class Stack with these methods:\n- `push(item) -> None`\n- `clear() -> None`\n- `size() -> int`\n",
        "class Stack:\n    def size(self) -> int:\n        # size() -> 0\n        ...\n",
        "A class Stack; its size() returns 0 at first.",
        "main() -> None",
        "load() → None",
        'copy() -> "Stack", where class Stack is yours.',
        "f(x) -> 3",
        "f(1) -> the sum",
        "2 * f(3) == 6",
        "Currently f(4) returns 5.",
        "It is not the case that f(9) == 4.",
        "if f(3) == 1, then stop",
        "minmax([1, 3]) -> 1, 3",
        "pi() -> 3.14159...",
        "primes(9) -> [2, 3, ...]",
    ],
)
def test_a_signature_or_a_part_of_something_else_is_no_example(prompt):
    assert extract.extract(prompt) == ()


@pytest.mark.parametrize(
    ("prompt", "source", "reason"),
    [
        (">>> f(1)  # doctest: +SKIP\n3\n", "f(1)", "skipped"),
        (">>> f(data)\n3\n", "f(data)", "nothing says what data is"),
        (">>> f(1)\n<X object at 0x7f00>\n", "f(1)", "address"),
        (">>> f(1)\nTraceback (most recent call last):\nmod.Err: x\n", "f(1)", "no exception of Python's own"),
        (">>> return 1\n>>> f(1)\n2\n", "f(1)", "no Python"),
        ("third(3) -> 1/3", "third(3) -> 1/3", "no value"),
        ("".join(f">>> f({n})\n{n}\n" for n in range(45)), "f(44)", "more than 40"),
    ],
)
def test_an_example_that_is_no_test_is_named_with_the_reason(prompt, source, reason):
    left_out = dict(extract.read(prompt).left_out)
    assert next(why for text, why in left_out.items() if text.startswith(source) or source in text)
    assert any(reason in why for why in left_out.values())


def test_what_an_example_needs_is_what_the_solution_must_offer():
    found = extract.extract(">>> x = [3]\n>>> total(x, Mode.FAST)\n3\n>>> import sums\n>>> sums.add(1, 2)\n3\n")
    assert set(example.functions(found)) == {"total", "Mode", "add"}


def test_examples_of_a_function_stand_alone_and_those_of_an_object_follow_each_other():
    text = as_tests.test_file(
        extract.extract(">>> f(1)\n1\n>>> f(2)\n2\n>>> s = S()\n>>> s.add(1)\n1\n>>> s.add(2)\n3\n")
    )
    assert "    assert f(2) == 2" in text
    assert "    s = S()\n    s.add(1)\n    assert s.add(2) == 3" in text


@given(st.text(alphabet=">abc1()= \n\"'`.:#\t", max_size=120))
def test_any_prompt_is_read_into_passages_and_examples_that_parse(prompt):
    passages.read(prompt)
    compile(as_tests.test_file(extract.extract(prompt)), "test_anchors.py", "exec")


def test_a_prompt_of_thousands_of_examples_is_read_in_a_moment():
    import time

    begun = time.process_time()
    extract.read("".join(f">>> x = f({n})\n>>> f(x)\n{n}\n" for n in range(5000)))
    assert time.process_time() - begun < 5
