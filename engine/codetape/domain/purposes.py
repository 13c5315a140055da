"""What a call to a model, or an execution, is for: one row each, from which every other list is made.

A new purpose is a row here, its state in `codetape.eventlog.machine`, its reader in `codetape.decider.replies`, and its
template (and schema) in the prompt pack.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator

from codetape.domain.frozen_model import FrozenModel
from codetape.domain.reply_shapes import CodePlan, ErrorDiagnosis, FixVerification, Opinions, Proposals, Replacement


class PurposeRow(NamedTuple):
    """A purpose of a model call: its state, the shape of its reply (None for Python code), and what is waited for."""

    name: str
    state: str
    shape: type[FrozenModel] | None
    waiting_for: str


PURPOSES = (
    PurposeRow("plan", "planning", CodePlan, "the model to plan"),
    PurposeRow("code", "coding", None, "the model to write the code"),
    PurposeRow("tests", "writing_tests", None, "the model to write the tests"),
    PurposeRow("diagnose", "diagnosing", ErrorDiagnosis, "the model to diagnose"),
    PurposeRow("second_opinion", "judging", Opinions, "a second opinion on tests in doubt"),
    PurposeRow("fix_tests", "fixing_tests", None, "the model to fix tests"),
    PurposeRow("verify_code", "verifying_code", FixVerification, "a check that the fixes were applied"),
    PurposeRow("verify_tests", "verifying_tests", FixVerification, "a check that the tests were fixed"),
    PurposeRow("packages", "resolving", Proposals, "the model to name packages"),
    PurposeRow("replace_package", "replacing_package", Replacement, "the model to replace a package"),
)
_NAMES = frozenset(row.name for row in PURPOSES)

JobPurpose = Literal["vet", "run", "oracle", "script", "confirm", "evaluate"]
"""Of executions: tests on a stub, on the code, on the code once more under other conditions; the oracle; the script;
and a blind evaluation of what tests claim."""
WAITING_FOR_JOBS = {
    "build": "the environment",
    "vet": "the tests on a stub",
    "run": "the tests",
    "oracle": "the oracle",
    "confirm": "the tests, once more under other conditions",
    "evaluate": "a blind evaluation of what tests claim",
    "script": "the script",
}


def _check_name(name: str) -> str:
    if name not in _NAMES:
        raise ValueError(f"{name[:80]!r} is no purpose")
    return name


def _check_call(name: str) -> str:
    return name if name in WAITING_FOR_JOBS else _check_name(name)


Purpose = Annotated[str, AfterValidator(_check_name)]
CallPurpose = Annotated[str, AfterValidator(_check_call)]
"""Of any call: to a model, of a build, or of an execution."""
