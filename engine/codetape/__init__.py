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
    "Filter": "corpus",
    "GenerateResult": "result",
    "RecordedSession": "recorded",
    "Resources": "artefacts",
    "TestFailure": "artefacts",
    "awhatif": "studies",
    "backtest_limits": "studies",
    "backtest_rules": "studies",
    "check": "studies",
    "diff": "studies",
    "fork": "studies",
    "open_tape": "recorded",
    "pytest_file": "studies",
    "records": "attempts",
    "replay": "recorded",
    "resume": "recorded",
    "run_tasks": "studies",
    "sessions": "studies",
    "whatif": "studies",
}

__all__ = [
    "AutoCoderAgent",
    "CodeGenSession",
    "CodePlan",
    "CodeSolution",
    "CodetapeError",
    "ErrorDiagnosis",
    "Filter",
    "GenerateResult",
    "RecordedSession",
    "Resources",
    "TestFailure",
    "__version__",
    "awhatif",
    "backtest_limits",
    "backtest_rules",
    "check",
    "diff",
    "fork",
    "open_tape",
    "pytest_file",
    "records",
    "replay",
    "resume",
    "run_tasks",
    "sessions",
    "whatif",
]

if TYPE_CHECKING:
    from codetape.agent import AutoCoderAgent
    from codetape.artefacts import CodePlan, CodeSolution, ErrorDiagnosis, Resources, TestFailure
    from codetape.attempts import records
    from codetape.corpus import Filter
    from codetape.errors import CodetapeError
    from codetape.recorded import RecordedSession, open_tape, replay, resume
    from codetape.result import GenerateResult
    from codetape.session import CodeGenSession
    from codetape.studies import (
        awhatif,
        backtest_limits,
        backtest_rules,
        check,
        diff,
        fork,
        pytest_file,
        run_tasks,
        sessions,
        whatif,
    )


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'codetape' has no attribute {name!r}")
    return getattr(import_module(f"codetape.{_WHERE[name]}"), name)
