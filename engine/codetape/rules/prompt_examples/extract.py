"""Examples in a prompt, taken by rule as tests that nobody may change.

Doctest examples come first, then clauses. An example that cannot be a test is left out, with the reason.
"""

from codetape.rules.prompt_examples import passages
from codetape.rules.prompt_examples.as_tests import test_file
from codetape.rules.prompt_examples.clauses import ClauseReader
from codetape.rules.prompt_examples.doctests import DoctestReader
from codetape.rules.prompt_examples.example import PromptExample, PromptExamples, functions, in_words
from codetape.rules.prompt_examples.reader import Reader
from codetape.rules.rule_versions import RULES_VERSION

_MAX, _MAX_LEFT_OUT = 40, 20
__all__ = ["PromptExample", "PromptExamples", "extract", "functions", "in_words", "read", "test_file"]


def read(prompt: str, rules: int = RULES_VERSION) -> PromptExamples:
    """Return a prompt's examples, each once, in order, as a version of the rules reads them."""
    try:
        text = passages.read(prompt)
        reader = Reader(text, rules)
        for passage in text.texts:
            DoctestReader(reader).read(passage)
        clauses = ClauseReader(reader)
        for passage in text.texts:
            clauses.read(passage)
    except (RecursionError, MemoryError):  # no example that a person wrote
        return PromptExamples()
    unique = tuple(dict.fromkeys(reader.found))
    left_out = [*reader.left_out, *((a.call, f"one of more than {_MAX}") for a in unique[_MAX:])]
    return PromptExamples(unique[:_MAX], tuple(dict.fromkeys(left_out))[:_MAX_LEFT_OUT])


def extract(prompt: str) -> tuple[PromptExample, ...]:
    """Return the examples of a prompt that can be tests."""
    return read(prompt).anchors
