"""The state machine of a session: every state, what each wants done, and every move that there is.

What comes next is always the first of what is owed, in ORDER; ROWS lists the moves that this can give,
and nothing else moves the machine. The diagram in docs/reference/machine.md is drawn from this table.
"""

from collections.abc import Iterable
from typing import NamedTuple

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
_DROPPED = ("resolving", "building", "replacing_package")  # a package cannot be had


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

_TRIGGER = {(source, row.target): row.trigger for row in ROWS for source in row.sources}


def next_state(owed: Iterable[str]) -> str | None:
    """Return the state that comes first in what is owed, or None where nothing is."""
    pending = set(owed)
    return next((state for state in ORDER if state in pending), None)


def trigger(source: str, target: str) -> str:
    """Return the trigger of a move; empty where the state is kept. Raises CorruptTape for an illegal one."""
    if source == target and source in ACTIVE:
        return ""
    try:
        return _TRIGGER[source, target]
    except KeyError:
        raise CorruptTape(f"the machine has no move from {source} to {target}.") from None


LOOP = ("planning", "coding", "writing_tests", "resolving", "building", "vetting", "executing", "judging", "diagnosing", "fixing_tests", "succeeded")  # fmt: skip
"""The states of the loop that a reader sees first."""
_BACK = {
    "executing": ("judging", "diagnosing", "succeeded"),
    "judging": ("fixing_tests",),
    "diagnosing": ("coding", "resolving"),
    "fixing_tests": ("resolving",),
}
"""Moves of the loop that are no step to the next state: what a report leads to, and where mending goes on."""


def diagram() -> str:
    """Return the table as a Mermaid state diagram; moves to and from `suspended` are left out, for every state has them."""
    lines = ["stateDiagram-v2", "    [*] --> planning"]
    for row in ROWS:
        if row.target == "suspended" or "suspended" in row.sources or "new" in row.sources:
            continue
        lines += [f"    {source} --> {row.target}: {row.trigger}" for source in row.sources]
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in FINAL)]) + "\n"


def picture() -> str:
    """Return the loop as a Mermaid flowchart: the table's moves between LOOP's states that go one step on, or back to mend."""
    place = {state: number for number, state in enumerate(LOOP)}
    lines = ["flowchart LR"]
    for row in ROWS:
        for source in row.sources:
            if source not in place or row.target not in place:
                continue
            step = place[row.target] - place[source]
            if step == 1 or row.target in _BACK.get(source, ()):
                lines.append(f"    {source} -->|{row.trigger.replace('_', ' ')}| {row.target}")
    return "\n".join(lines) + "\n"
