"""codetape: a prompt in, a verified Python script out, and the whole run on a tape.

    from codetape import AutoCoderAgent

    agent = AutoCoderAgent(model="openai:NAME")
    result = agent.generate("Sum the column `amount` of a CSV file.", inputs={"data": "file"}, outputs={"total": "float"})

Everything public is importable from here, and loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_WHERE = {
    "AutoCoderAgent": "agent",
    "CodeGenSession": "session",
    "CodePlan": "artefacts",
    "CodeSolution": "artefacts",
    "CodetapeError": "errors",
    "ErrorDiagnosis": "artefacts",
    "GenerateResult": "result",
    "RecordedSession": "recorded",
    "Resources": "artefacts",
    "TestFailure": "artefacts",
    "open_tape": "recorded",
    "replay": "recorded",
    "resume": "recorded",
}

__all__ = [
    "AutoCoderAgent",
    "CodeGenSession",
    "CodePlan",
    "CodeSolution",
    "CodetapeError",
    "ErrorDiagnosis",
    "GenerateResult",
    "RecordedSession",
    "Resources",
    "TestFailure",
    "__version__",
    "open_tape",
    "replay",
    "resume",
]

if TYPE_CHECKING:
    from codetape.agent import AutoCoderAgent
    from codetape.artefacts import CodePlan, CodeSolution, ErrorDiagnosis, Resources, TestFailure
    from codetape.errors import CodetapeError
    from codetape.recorded import RecordedSession, open_tape, replay, resume
    from codetape.result import GenerateResult
    from codetape.session import CodeGenSession


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'codetape' has no attribute {name!r}")
    return getattr(import_module(f"codetape.{_WHERE[name]}"), name)
