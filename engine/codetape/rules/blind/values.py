"""What came back from a blind evaluation, compared with what a test expects: outside, strictly, by value and type.

Plain numbers compare as Python compares them (2 and 2.0 are equal); a truth value is no number. An object of the code's
own is equal to nothing here, whatever it says of itself.
"""

import builtins
import json
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from codetape.domain.report import Evaluated
from codetape.rules.blind.claims import BlindClaim, Expectation

Verdict = Literal["confirmed", "differs", "unclear"]
_WORST_FIRST: tuple[Verdict, ...] = ("differs", "unclear", "confirmed")
MAX_SHOWN = 500  # characters of a value for people
_MAX_DEPTH = 60
_ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "in": lambda value, wanted: value in wanted,
    "not in": lambda value, wanted: value not in wanted,
}


@dataclass(frozen=True)
class Opaque:
    """An object that is no plain value: its type's name alone is known."""

    type: str

    def __repr__(self) -> str:
        return f"<an object of type {self.type}>"


@dataclass(frozen=True)
class Raised:
    """An exception in the place of a value: its own name first, and those of the built-in ones that it is."""

    names: tuple[str, ...]
    message: str

    def __repr__(self) -> str:
        return f"{self.names[0] if self.names else 'an exception'}: {self.message[:200]}"


@dataclass(frozen=True)
class Judged:
    """What became of a claim, and what the code gave for it, for people."""

    verdict: Verdict
    actual: str = ""


def judged(claim: BlindClaim, evaluated: tuple[Evaluated, ...]) -> Judged:
    """Judge a claim by its evaluations under both hash seeds: each must agree, and where one is missing it differs."""
    if not {0, 1} <= {one.turn for one in evaluated}:
        return Judged("differs", "nothing: the code ended the process")
    verdicts = [judged_once(claim, one) for one in evaluated]
    return min(verdicts, key=lambda judgement: _WORST_FIRST.index(judgement.verdict))


def judged_once(claim: BlindClaim, evaluated: Evaluated) -> Judged:
    """Judge a claim by one evaluation."""
    if evaluated.raised:
        given: list[Any] = [Raised(evaluated.raised, evaluated.message)]
    else:
        given = [decoded(text) for text in evaluated.values]
    verdicts = [_holds(c, v) for c, v in zip(claim.expectations, given, strict=False)]
    best: Verdict = max(verdicts, key=_WORST_FIRST.index, default="differs")
    return Judged(best, "; ".join(repr(value)[:MAX_SHOWN] for value in given))


def _holds(expectation: Expectation, value: Any) -> Verdict:
    by, wanted = expectation.operator, expectation.value
    if by == "raises":
        return _raised(expectation, value)
    if isinstance(value, Raised):
        return "differs"
    if by in ("true", "false"):
        if isinstance(value, bool):
            return "confirmed" if value is wanted else "differs"
        return "unclear" if not isinstance(value, Opaque) and bool(value) is wanted else "differs"
    if isinstance(value, Opaque):
        return "unclear" if by in ("!=", "is not", "not in") else "differs"
    if expectation.relative or expectation.absolute:
        close = _close(value, wanted, expectation)
        return "confirmed" if close is (by == "==") else "differs"
    return _compared(by, value, wanted)


def _compared(by: str, value: Any, wanted: Any) -> Verdict:
    try:
        if by in ("==", "is", "!=", "is not"):
            equal, loosely = strictly_equal(value, wanted), bool(value == wanted)
            if equal != loosely:
                return "unclear"  # True and 1: Python calls them equal, and a reader may not
            return "confirmed" if equal is (by in ("==", "is")) else "differs"
        holds = bool(_ORDERED[by](value, wanted))
    except (TypeError, ValueError, RecursionError):
        return "differs"
    return "confirmed" if holds else "differs"


def _raised(expectation: Expectation, value: Any) -> Verdict:
    if not isinstance(value, Raised):
        return "differs"
    known = isinstance(getattr(builtins, expectation.value, None), type)
    if expectation.value not in (value.names[1:] if known else value.names[:1]):
        return "differs"  # a class of the code's own may be called anything
    if len(value.names) > 1 and not _one_lineage(value.names[1:]):
        return "unclear"  # an exception that is several at once would be whatever is waited for
    try:
        found = re.search(expectation.pattern, value.message) if expectation.pattern else True
    except (re.error, RecursionError):
        return "unclear"
    return "confirmed" if found else "differs"


def _one_lineage(names: tuple[str, ...]) -> bool:
    """Whether built-in exceptions lie on one line of descent."""
    kinds = [k for k in (getattr(builtins, name, None) for name in names) if isinstance(k, type)]
    return all(issubclass(a, b) or issubclass(b, a) for a in kinds for b in kinds)


def strictly_equal(one: Any, other: Any) -> bool:
    """Compare by value and type, numbers as numbers, truth values as themselves."""
    numbers = (int, float, complex, Fraction)
    if type(one) in numbers and type(other) in numbers:
        return bool(one == other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return (
            len(one) == len(other)
            and all(k in other and strictly_equal(v, other[k]) for k, v in one.items())
            and all(any(k is o or strictly_equal(k, o) for o in other) for k in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(strictly_equal, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(strictly_equal(a, b) for b in other) for a in one)
    return bool(one == other)


def _close(value: Any, wanted: Any, c: Expectation) -> bool:
    numbers = (int, float, Fraction)
    if isinstance(wanted, list | tuple) and isinstance(value, list | tuple):
        return len(value) == len(wanted) and all(_close(a, b, c) for a, b in zip(value, wanted, strict=True))
    if isinstance(wanted, dict) and isinstance(value, dict):
        return value.keys() == wanted.keys() and all(_close(value[k], wanted[k], c) for k in wanted)
    if type(value) in numbers and type(wanted) in numbers:
        try:
            if not (math.isfinite(value) and math.isfinite(wanted)):
                return bool(value == wanted)
            return value == wanted or abs(float(value) - float(wanted)) <= max(
                c.relative * abs(float(wanted)), c.absolute
            )
        except OverflowError:
            return False
    return strictly_equal(value, wanted)


# ---- reading what came back


def decoded(text: str) -> Any:
    """Read a value as the guest wrote it; what cannot be read is opaque."""
    try:
        return _read(json.loads(text), 0)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError, MemoryError):
        return Opaque("unreadable")


def _read(data: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if data is None or isinstance(data, bool | str):
        return data
    kind, rest = data[0], data[1:]
    if kind == "i":
        if len(rest[0]) > 4000:
            raise ValueError("too long a number")
        return int(rest[0])
    if kind == "f":
        return float(rest[0])
    if kind == "c":
        return complex(float(rest[0]), float(rest[1]))
    if kind == "q":
        return Fraction(int(rest[0]), int(rest[1]))
    if kind == "b":
        return bytes.fromhex(rest[0])
    if kind in ("l", "t", "s", "z"):
        items = [_read(item, depth + 1) for item in rest[0]]
        return {"l": list, "t": tuple, "s": set, "z": frozenset}[kind](items)
    if kind == "d":
        return {_read(key, depth + 1): _read(value, depth + 1) for key, value in rest[0]}
    return Opaque(str(rest[0])[:200])
