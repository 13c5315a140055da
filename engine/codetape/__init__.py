"""codetape: a prompt in, a verified Python script out, and the whole run on a tape.

    from codetape import AutoCoderAgent

    agent = AutoCoderAgent(model="openai:NAME")
    result = agent.generate("Sum the column `amount` of a CSV file.", inputs={"data": "file"}, outputs={"total":
    "float"})

Everything public is importable from here, and loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own takes longer to load than `--help` may
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0.dev0"

_WHERE = {
    "AutoCoderAgent": "runtime.agent",
    "CodeGenSession": "runtime.session",
    "CodePlan": "domain.reply_shapes",
    "CodeSolution": "domain.reply_shapes",
    "CodetapeError": "errors",
    "ErrorDiagnosis": "domain.reply_shapes",
    "Filter": "evals.chosen_sessions",
    "GenerateResult": "runtime.result",
    "RecordedSession": "api.opening",
    "Resources": "domain.task",
    "TestFailure": "domain.reply_shapes",
    "awhatif": "api",
    "backtest_limits": "api",
    "backtest_rules": "api",
    "check": "api",
    "diff": "api",
    "fork": "api",
    "open_tape": "api",
    "pytest_file": "api",
    "records": "text.records",
    "replay": "api",
    "resume": "api",
    "run_tasks": "api",
    "sessions": "api",
    "whatif": "api",
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
    from codetape.api import (
        RecordedSession,
        awhatif,
        backtest_limits,
        backtest_rules,
        check,
        diff,
        fork,
        open_tape,
        pytest_file,
        replay,
        resume,
        run_tasks,
        sessions,
        whatif,
    )
    from codetape.domain.reply_shapes import CodePlan, CodeSolution, ErrorDiagnosis, TestFailure
    from codetape.domain.task import Resources
    from codetape.errors import CodetapeError
    from codetape.evals.chosen_sessions import Filter
    from codetape.runtime.agent import AutoCoderAgent
    from codetape.runtime.result import GenerateResult
    from codetape.runtime.session import CodeGenSession
    from codetape.text.records import records


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'codetape' has no attribute {name!r}")
    return getattr(import_module(f"codetape.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
