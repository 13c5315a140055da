"""The Python API: the command line calls the same functions.

Coroutines have an ``a`` before their name. ``sources`` name sessions of the store, tape files, or folders of tape
files; without any, the whole store is selected. A store is a path, ADAPTER:PLACE, or an object. Everything is imported
when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "AgentSettings": "opening",
    "Backtested": "studies",
    "DEFAULT_STORE": "opening",
    "PreparedCheck": "studies",
    "RecordedSession": "opening",
    "Verification": "keeping",
    "aforget": "keeping",
    "afork": "driving",
    "aresume": "driving",
    "arun_tasks": "studies",
    "audit": "accounts",
    "awhatif": "studies",
    "backtest_limits": "studies",
    "backtest_rules": "studies",
    "calls": "spending",
    "check": "studies",
    "diff": "recordings",
    "forget": "keeping",
    "fork": "driving",
    "import_tapes": "keeping",
    "open_tape": "opening",
    "prepare_check": "studies",
    "pytest_file": "exports",
    "replay": "recordings",
    "resume": "driving",
    "run": "driving",
    "run_tasks": "studies",
    "sessions": "opening",
    "spend": "spending",
    "tape_lines": "exports",
    "verify": "keeping",
    "whatif": "studies",
    "why": "accounts",
}
__all__ = [
    "DEFAULT_STORE",
    "AgentSettings",
    "Backtested",
    "PreparedCheck",
    "RecordedSession",
    "Verification",
    "aforget",
    "afork",
    "aresume",
    "arun_tasks",
    "audit",
    "awhatif",
    "backtest_limits",
    "backtest_rules",
    "calls",
    "check",
    "diff",
    "forget",
    "fork",
    "import_tapes",
    "open_tape",
    "prepare_check",
    "pytest_file",
    "replay",
    "resume",
    "run",
    "run_tasks",
    "sessions",
    "spend",
    "tape_lines",
    "verify",
    "whatif",
    "why",
]

if TYPE_CHECKING:
    from codetape.api.accounts import audit, why
    from codetape.api.driving import afork, aresume, fork, resume, run
    from codetape.api.exports import pytest_file, tape_lines
    from codetape.api.keeping import Verification, aforget, forget, import_tapes, verify
    from codetape.api.opening import AgentSettings, RecordedSession, open_tape, sessions
    from codetape.api.recordings import diff, replay
    from codetape.api.spending import calls, spend
    from codetape.api.studies import (
        Backtested,
        PreparedCheck,
        arun_tasks,
        awhatif,
        backtest_limits,
        backtest_rules,
        check,
        prepare_check,
        run_tasks,
        whatif,
    )
    from codetape.ports import DEFAULT_STORE


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'codetape.api' has no attribute {name!r}")
    return getattr(import_module(f"codetape.api.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
