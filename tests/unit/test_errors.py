"""Errors cross from one process to another as they are: work on many sessions is done in several."""

import inspect
import pickle

import pytest

from codetape import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CodetapeError)]


def made(kind):
    fields = inspect.signature(kind.__init__).parameters.values()
    needed = {f.name: 7 for f in fields if f.kind is f.KEYWORD_ONLY and f.default is f.empty}
    return kind("What happened.", **needed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_same_in_another_process(kind):
    error = made(kind)
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is kind
    assert (str(other), vars(other), other.exit_code) == (str(error), vars(error), error.exit_code)
