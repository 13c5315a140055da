"""The state machine of a session: every state, what each does, and every legal move.

The next state is always the first pending one in ORDER; ROWS lists the moves that this can give. A `transitions`
machine is made of them once: the fold consults it at each event, and it draws the diagram in docs/reference/machine.md.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from transitions import Machine

from codetape.errors import CorruptTape

VERSION = 2
"""The version of this table. A released table never changes: an old tape is read with the table that made it."""

ORDER = (
    "judging",  # Call second_opinion, one call for all tests in doubt
    "diagnosing",  # Call diagnose: root causes and fixes
    "coding",  # Call code
    "verifying_code",  # Call verify_code, for fixes that comparing the texts cannot settle
    "fixing_tests",  # Call fix_tests
    "verifying_tests",  # Call verify_tests, likewise
    "writing_tests",  # Call tests
    "resolving",  # Call packages, for imports that the map leaves open
    "building",  # Build
    "vetting",  # Execute the tests against a stub
    "confirming",  # Execute once more under other conditions, and evaluate blind what the tests claim
    "executing",  # Execute the tests against the code
    "proving",  # Execute the oracle
)
ACTIVE = ("planning", *ORDER, "replacing_package")
FINAL = ("succeeded", "failed")
STATES = ("new", *ACTIVE, "suspended", *FINAL)

_READ = ("executing", "judging")  # a report has just been read
_DROPPED = ("resolving", "building", "replacing_package")  # a package is unavailable


class Move(NamedTuple):
    """One trigger, the states that it may be pulled in, and where it leads."""

    trigger: str
    sources: tuple[str, ...]
    target: str


_ACTIVE_1 = tuple(state for state in ACTIVE if state != "confirming")
_ROWS_1 = (
    Move("start", ("new",), "planning"),
    Move("judge", ("executing", "failed"), "judging"),
    Move("diagnose", (*_READ, "failed"), "diagnosing"),
    Move("code", ("planning", *_READ, "diagnosing", "verifying_code", *_DROPPED, "failed"), "coding"),
    Move("verify_code", ("coding",), "verifying_code"),
    Move("fix_tests", (*_READ, "diagnosing", "coding", "verifying_code", "verifying_tests", *_DROPPED, "failed"), "fixing_tests"),
    Move("verify_tests", ("fixing_tests",), "verifying_tests"),
    Move("write_tests", ("coding", "fixing_tests", "vetting", *_READ, "failed"), "writing_tests"),
    Move("resolve", ("coding", "verifying_code", "fixing_tests", "verifying_tests", "writing_tests", *_READ, "diagnosing", "building", "replacing_package", "failed"), "resolving"),
    Move("build", ("resolving",), "building"),
    Move("vet", ("fixing_tests", "resolving", "building"), "vetting"),
    Move("execute", ("resolving", "building", "vetting", "coding", "fixing_tests", "judging", "failed"), "executing"),
    Move("prove", ("building", *_READ), "proving"),
    Move("replace", ("building",), "replacing_package"),
    Move("suspend", _ACTIVE_1, "suspended"),
    *(Move(f"resume_{state}", ("suspended",), state) for state in _ACTIVE_1),
    Move("succeed", ("building", *_READ, "proving"), "succeeded"),
    Move("fail", ("planning", "coding", "writing_tests", "vetting", *_READ, "proving"), "failed"),
)  # fmt: skip

ROWS = (
    Move("start", ("new",), "planning"),
    Move("plan", ("failed",), "planning"),
    Move("judge", ("executing", "confirming", "failed"), "judging"),
    Move("diagnose", (*_READ, "confirming", "failed"), "diagnosing"),
    Move("code", ("planning", *_READ, "confirming", "diagnosing", "verifying_code", *_DROPPED, "failed"), "coding"),
    Move("verify_code", ("coding",), "verifying_code"),
    Move("fix_tests", (*_READ, "confirming", "diagnosing", "coding", "verifying_code", "verifying_tests", *_DROPPED, "failed"), "fixing_tests"),
    Move("verify_tests", ("fixing_tests",), "verifying_tests"),
    Move("write_tests", ("coding", "fixing_tests", "vetting", "confirming", *_READ, "failed"), "writing_tests"),
    Move("resolve", ("coding", "verifying_code", "fixing_tests", "verifying_tests", "writing_tests", "confirming", *_READ, "diagnosing", "building", "replacing_package", "failed"), "resolving"),
    Move("build", ("resolving",), "building"),
    Move("vet", ("fixing_tests", "resolving", "building"), "vetting"),
    Move("confirm", (*_READ,), "confirming"),
    Move("execute", ("resolving", "building", "vetting", "coding", "fixing_tests", "judging", "confirming", "failed"), "executing"),
    Move("prove", ("building", "executing", "confirming"), "proving"),
    Move("replace", ("building",), "replacing_package"),
    Move("suspend", ACTIVE, "suspended"),
    *(Move(f"resume_{state}", ("suspended",), state) for state in ACTIVE),
    Move("succeed", ("building", "executing", "confirming", "proving"), "succeeded"),
    Move("fail", ("planning", "coding", "writing_tests", "vetting", "confirming", *_READ, "proving"), "failed"),
)  # fmt: skip
TABLES = {1: _ROWS_1, VERSION: ROWS}


@cache
def machine(version: int = VERSION) -> Machine:
    """Return the machine of a version, made once of its rows: it alone says which moves there are, and draws itself."""
    rows = TABLES.get(version, ROWS)
    moves = [{"trigger": row.trigger, "source": list(row.sources), "dest": row.target} for row in rows]
    return Machine(model=None, states=list(STATES), transitions=moves, initial="new", auto_transitions=False)


@cache
def _triggers(version: int) -> dict[tuple[str, str], str]:
    """The machine's own transitions by their ends: looked up at each event."""
    return {
        (source, str(move.dest)): name
        for name, event in machine(version).events.items()
        for source, moves in event.transitions.items()
        for move in moves
    }


def next_state(pending: Iterable[str]) -> str | None:
    """Return the state that comes first in what is pending, or None where nothing is."""
    states = set(pending)
    return next((state for state in ORDER if state in states), None)


def trigger(source: str, target: str, version: int = VERSION) -> str:
    """Return the trigger of a move; empty where the state is kept. Raises CorruptTape for an illegal one."""
    if source == target and source in ACTIVE:
        return ""
    try:
        return _triggers(version)[source, target]
    except KeyError:
        raise CorruptTape(f"the machine has no move from {source} to {target}.") from None
