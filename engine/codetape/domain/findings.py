"""The values that decisions store: findings, counts of fixes, quarantined tests, checkpoints, questions."""

from typing import Literal

from codetape.domain.canonical import FrozenModel
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
    logic: int = 0
    test: int = 0
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


class Question(FrozenModel):
    """What only a person can decide."""

    kind: Literal["package", "system_package", "command", "example"]
    subject: str
    reason: str
