"""Pictures of the state machine for the docs, drawn by `transitions` itself from the engine's own table."""

from transitions.extensions import GraphMachine

from codetape.eventlog import machine

LOOP = ("planning", "coding", "writing_tests", "resolving", "building", "vetting", "executing", "judging", "diagnosing", "fixing_tests", "succeeded")  # fmt: skip
"""The states of the loop that a reader sees first."""
BACK = {
    "executing": ("judging", "diagnosing", "succeeded"),
    "judging": ("fixing_tests",),
    "diagnosing": ("coding", "resolving"),
    "fixing_tests": ("resolving",),
}
"""Moves of the loop that are no step to the next state: what a report leads to, and where fixing continues."""


class _Drawn:
    """What a machine needs to draw itself: a model."""


def _mermaid(moves, initial):
    states = list(dict.fromkeys(state for move in moves for state in (move["source"], move["dest"])))
    model = _Drawn()
    GraphMachine(
        model, states=states, transitions=moves, initial=initial, auto_transitions=False, graph_engine="mermaid"
    )
    lines = model.get_graph().source.splitlines()
    kept = [line.strip() for line in lines if "-->" in line]
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in kept)]) + "\n"


def diagram():
    """The whole table; moves to and from `suspended` are left out, for every state has them."""
    moves = [
        {"trigger": row.trigger, "source": source, "dest": row.target}
        for row in machine.ROWS
        for source in row.sources
        if not {"suspended", "new"} & {source, row.target}
    ]
    return _mermaid(moves, "planning")


def picture():
    """The loop: the table's moves between LOOP's states that go one step on, or back to fix."""
    place = {state: number for number, state in enumerate(LOOP)}
    moves = [
        {"trigger": row.trigger, "source": source, "dest": row.target}
        for row in machine.ROWS
        for source in row.sources
        if source in place
        and row.target in place
        and (place[row.target] - place[source] == 1 or row.target in BACK.get(source, ()))
    ]
    return _mermaid(moves, "planning")
