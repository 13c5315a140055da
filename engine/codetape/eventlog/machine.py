"""The state machine of a session: every state, what each wants done, and every move that there is.

What comes next is always the first of what is owed, in ORDER; ROWS lists the moves that this can give. A `transitions`
machine is made of them once: the fold asks it at each event, and it draws the diagram in docs/reference/machine.md.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from transitions import Machine

from codetape.errors import CorruptTape

VERSION = 1
"""Of this table. Tables are append-only by version: an old tape is read with the table it was made by."""

ORDER = (
    "judging",  # Ask second_opinion, one ask for all tests in doubt
    "diagnosing",  # Ask diagnose: root causes and fixes
    "coding",  # Ask code
    "verifying_code",  # Ask verify_code, for fixes that comparing the texts cannot settle
    "fixing_tests",  # Ask fix_tests
    "verifying_tests",  # Ask verify_tests, likewise
    "writing_tests",  # Ask tests
    "resolving",  # Ask packages, for imports that the map leaves open
    "building",  # Build
    "vetting",  # Execute the tests against a stub
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


ROWS = (
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
    Move("suspend", ACTIVE, "suspended"),
    *(Move(f"resume_{state}", ("suspended",), state) for state in ACTIVE),
    Move("succeed", ("building", *_READ, "proving"), "succeeded"),
    Move("fail", ("planning", "coding", "writing_tests", "vetting", *_READ, "proving"), "failed"),
)  # fmt: skip


@cache
def machine() -> Machine:
    """Return the machine, made once of ROWS: it alone says which moves there are, and draws itself."""
    moves = [{"trigger": row.trigger, "source": list(row.sources), "dest": row.target} for row in ROWS]
    return Machine(model=None, states=list(STATES), transitions=moves, initial="new", auto_transitions=False)


@cache
def _triggers() -> dict[tuple[str, str], str]:
    """The machine's own transitions by their ends: looked up at each event."""
    return {
        (source, str(move.dest)): name
        for name, event in machine().events.items()
        for source, moves in event.transitions.items()
        for move in moves
    }


def next_state(owed: Iterable[str]) -> str | None:
    """Return the state that comes first in what is owed, or None where nothing is."""
    pending = set(owed)
    return next((state for state in ORDER if state in pending), None)


def trigger(source: str, target: str) -> str:
    """Return the trigger of a move; empty where the state is kept. Raises CorruptTape for an illegal one."""
    if source == target and source in ACTIVE:
        return ""
    try:
        return _triggers()[source, target]
    except KeyError:
        raise CorruptTape(f"the machine has no move from {source} to {target}.") from None
