"""The values that decisions store: findings, counts of fixes, quarantined tests, checkpoints, questions."""

from typing import Literal

from codetape.domain.frozen_model import Count, FrozenModel
from codetape.domain.report import Report

ErrorType = Literal["environment", "logic", "test_error"]
Confidence = Literal["oracle", "anchored", "self_tested", "disputed", "untested"]


class Finding(FrozenModel):
    """What the rules say about one failing test. ``error_type`` is None where they say nothing."""

    test: str
    error_type: ErrorType | None
    rule: str
    signature: str
    exception: str = ""
    message: str = ""
    root_cause: str = ""
    module: str = ""
    judged: Literal["no", "refuted", "upheld", "unjudged"] = "no"
    call: str = ""
    words: str = ""


class FixCounts(FrozenModel):
    """How many applied fixes of each kind one failure has outlived, and the kind it has now."""

    signature: str
    logic: Count = 0
    test: Count = 0
    error_type: ErrorType | None = None


class Quarantined(FrozenModel):
    """A test that no longer runs, with the reason and, where there are any, the specification's words."""

    test: str
    reason: str
    words: str = ""


class Checkpoint(FrozenModel):
    """The state before the present change of code, to which a revert returns."""

    code: str
    tests: str
    report: Report
    findings: tuple[Finding, ...]


class Confirmation(FrozenModel):
    """What stood when it was asked again: claims of tests that were evaluated where nothing expected is.

    ``blind`` counts those that came out right, ``unclear`` those that only Python's own comparison takes for right.
    ``tests`` are the tests (without parameters) that claim nothing else, and of which every claim came out right.
    """

    blind: Count = 0
    unclear: Count = 0
    tests: tuple[str, ...] = ()


class Strength(FrozenModel):
    """How many small changes of the program its tests notice; ``survivors`` names those that none did.

    Counted are claims that can be evaluated without what they expect; ``total`` is 0 where there are none.
    """

    killed: Count = 0
    total: Count = 0
    survivors: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Return the share that is noticed, from 0 to 1."""
        return self.killed / self.total if self.total else 0.0


EXAMPLE = "example:"
"""How the subject of a question about an example begins."""


class Question(FrozenModel):
    """What only a person can decide."""

    kind: Literal["package", "system_package", "command", "example"]
    subject: str
    reason: str
