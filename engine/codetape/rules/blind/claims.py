"""What a test claims: an expression, and what it is held against."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Expectation:
    """What one evaluated expression is held against. ``value`` is Python's own, taken from the test's source.

    ``operator`` is that of the assertion; ``raises`` wants an exception of the name ``value``, ``true`` and ``false`` a
    truth value. ``relative`` and ``absolute`` are the tolerance of an approximation, ``pattern`` that of a message.
    """

    operator: str
    value: Any
    relative: float = 0.0
    absolute: float = 0.0
    pattern: str = ""


@dataclass(frozen=True)
class BlindClaim:
    """One assertion: the test (``name`` or ``Class::name``), its line, its expressions, and what each is held against.

    It holds where one of the expectations does.
    """

    test: str
    line: int
    call: str
    expectations: tuple[Expectation, ...]
