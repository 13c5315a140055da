"""Examples in a prompt, taken by rule as tests that nobody may change.

Doctest examples come first, then clauses. An example that cannot be a test is left out, with the reason.
"""

from codetape import passages
from codetape.clause_examples import ClauseReader
from codetape.doctest_examples import DoctestReader
from codetape.example_reader import Reader
from codetape.example_tests import test_file
from codetape.examples import Anchor, Examples, functions, in_words

_MAX, _MAX_LEFT_OUT = 40, 20
__all__ = ["Anchor", "Examples", "extract", "functions", "in_words", "read", "test_file"]


def read(prompt: str) -> Examples:
    """Return a prompt's examples, each once, in order."""
    try:
        text = passages.read(prompt)
        reader = Reader(text)
        for passage in text.texts:
            DoctestReader(reader).read(passage)
        for passage in text.texts:
            ClauseReader(reader).read(passage)
    except (RecursionError, MemoryError):  # no example that a person wrote
        return Examples()
    unique = tuple(dict.fromkeys(reader.found))
    left_out = [*reader.left_out, *((a.call, f"one of more than {_MAX}") for a in unique[_MAX:])]
    return Examples(unique[:_MAX], tuple(dict.fromkeys(left_out))[:_MAX_LEFT_OUT])


def extract(prompt: str) -> tuple[Anchor, ...]:
    """Return the examples of a prompt that can be tests."""
    return read(prompt).anchors
