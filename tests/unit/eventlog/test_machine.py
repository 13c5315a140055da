"""The table of the state machine."""

from codetape.domain.task import Config, SandboxFacts
from codetape.eventlog import machine

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


def test_the_table_is_sound():
    pairs = [(source, row.target) for row in machine.ROWS for source in row.sources]
    assert len(pairs) == len(set(pairs))
    assert {s for pair in pairs for s in pair} == set(machine.STATES)
    assert machine.next_state(["executing", "coding"]) == "coding"
    assert machine.next_state([]) is None
