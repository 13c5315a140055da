"""How often a failure has met changes of each kind, and what that makes of it."""

import pytest

from codetape.domain.findings import Finding, FixCounts
from codetape.rules.reclassify import MAX_COUNTED, counted, reclassify_errors


def finding(signature, error_type="logic", rule="raised", **more):
    return Finding(test=signature, error_type=error_type, rule=rule, signature=signature, **more)


def test_a_failure_meets_the_changes_of_its_own_kind():
    code, test = finding("a"), finding("b", "test_error")
    found = {c.signature: (c.logic, c.test) for c in counted((), (code, test), code=True, tests=False)}
    assert found == {"a": (1, 0), "b": (0, 0)}
    found = {c.signature: (c.logic, c.test) for c in counted((), (code, test), code=True, tests=True)}
    assert found == {"a": (1, 0), "b": (0, 1)}


def test_a_failure_that_comes_and_goes_is_remembered():
    counts = counted((), (finding("a"),), code=True, tests=False)
    counts = counted(counts, (finding("b"),), code=True, tests=False)
    counts = counted(counts, (finding("a"),), code=True, tests=False)
    assert {c.signature: c.logic for c in counts} == {"a": 2, "b": 1}


def test_of_many_the_oldest_that_is_absent_is_forgotten_first():
    counts = ()
    for number in range(MAX_COUNTED + 1):
        counts = counted(counts, (finding(f"f{number}"),), code=True, tests=False)
    assert MAX_COUNTED == 64
    assert [c.signature for c in counts] == [f"f{n}" for n in range(1, MAX_COUNTED + 1)]


def test_what_fails_now_is_never_forgotten():
    now = tuple(finding(f"f{n}") for n in range(MAX_COUNTED + 5))
    assert len(counted((), now, code=True, tests=False)) == MAX_COUNTED + 5


def weighed(one, **count):
    counts = (FixCounts(signature=one.signature, **count),)
    return reclassify_errors((one,), counts, max_logic=1, max_test=1, reopenable=frozenset({"f(1)"}))


@pytest.mark.parametrize(
    ("one", "count", "then"),
    [
        (finding("a"), {"logic": 1}, "kept"),
        (finding("a"), {"logic": 2}, "spent"),
        (finding("a", call="f(1)"), {"logic": 2}, "reopened"),
        (finding("a", "test_error", "refuted", judged="refuted"), {"test": 2}, "quarantine"),
        (finding("a", "test_error", "third"), {"test": 2, "error_type": "test_error"}, "changed"),
        (finding("a", "test_error", "silent"), {}, "quarantine"),
        (finding("a", "test_error", "third"), {"test": 1}, "kept"),
        (finding("a", None, "in_doubt"), {"logic": 5}, "kept"),
    ],
)
def test_what_a_failure_becomes(one, count, then):
    done = weighed(one, **count)
    found = {name for name in ("spent", "reopened", "quarantine", "changed") if getattr(done, name)} or {"kept"}
    assert then in found
    assert ("kept" in found) == (then == "kept")
