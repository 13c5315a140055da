"""The values that model replies are read into."""

from typing import ClassVar, Literal

from pydantic.json_schema import SkipJsonSchema

from codetape.domain.findings import ErrorType
from codetape.domain.frozen_model import FrozenModel


class Function(FrozenModel):
    """One entry of a plan's interface: what the tests may call."""

    signature: str
    contract: str


class CodePlan(FrozenModel):
    """The plan, made before any code."""

    description: str
    approach: str
    packages: tuple[str, ...] = ()
    interface: tuple[Function, ...]
    edge_cases: tuple[str, ...] = ()


class CodeSolution(FrozenModel):
    """The script, and what it needs."""

    language: str = "python"
    code: str
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()


class Fix(FrozenModel):
    """One change that a diagnosis asks for: ``old`` text to ``new`` text. An empty ``old`` is an addition."""

    id: str
    old: str
    new: str
    reason: str = ""


class TestFailure(FrozenModel):
    """One failing test, as diagnosed. Fields without a place in the schema are read where a reply has them."""

    __test__: ClassVar[bool] = False

    test_name: str
    error_message: SkipJsonSchema[str] = ""
    expected_behavior: SkipJsonSchema[str] = ""
    actual_behavior: SkipJsonSchema[str] = ""
    root_cause: str
    suggested_fix: SkipJsonSchema[str] = ""
    error_type: ErrorType
    fixes: tuple[Fix, ...] = ()


class ErrorDiagnosis(FrozenModel):
    """The failures of one report, and what the environment lacks."""

    failures: tuple[TestFailure, ...]
    needs_language_packages: tuple[str, ...] = ()
    needs_system_packages: tuple[str, ...] = ()
    needs_additional_commands: tuple[str, ...] = ()


class FixVerification(FrozenModel):
    """Which of the pending fixes a change contains, by their ids."""

    applied_fixes: tuple[str, ...] = ()
    missing_fixes: tuple[str, ...] = ()
    explanation: str = ""

    @property
    def all_fixes_applied(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing_fixes


class Opinion(FrozenModel):
    """What the specification says about one call, by a reader who saw neither code nor test.

    In a reply ``test`` is the label that the prompt gave the call; in a session it is the call itself.
    """

    test: str
    verdict: Literal["value", "exception", "silent"]
    value: str = ""
    words: str = ""


class Opinions(FrozenModel):
    """The reply of a second opinion."""

    opinions: tuple[Opinion, ...]


class Proposal(FrozenModel):
    """The distribution that a model proposes for an import; empty for none."""

    module: str
    distribution: str = ""


class Proposals(FrozenModel):
    """The reply to a packages request."""

    packages: tuple[Proposal, ...]


class Replacement(FrozenModel):
    """The reply to a replace_package request; empty for none."""

    distribution: str = ""
    reason: str = ""


class TestFunctionPatch(FrozenModel):
    """The new text of one test function, by its name (``Class::test`` for a method)."""

    __test__: ClassVar[bool] = False

    test_name: str
    fixed_code: str
