"""A run to its next command: an ask, a build, an execution, or a derived event to record. Pure.

What is done next is always what the machine's state wants; what became of an outcome is settled in
`asks` (model replies), `builds` (environments), `executions` and `reports` (their outcomes).
"""

from codetape import machine
from codetape.commands import Command, Execute, Record
from codetape.decide import asks, builds, executions
from codetape.decide.laws import laws
from codetape.decide.step import Step, anchors_draft, record
from codetape.run import Run

__all__ = ["decide"]


def decide(run: Run) -> Command | None:
    """Return what the run does next; None when it is suspended or ended."""
    if run.state not in machine.ACTIVE:
        return None
    if run.anchors is None:
        return Record(anchors_draft(run))
    step = _settled(run) if run.outcome else _without_effect(run)
    return record(run, step) if step else _effect(run)


def _settled(run: Run) -> Step:
    """Return what becomes of the closed call."""
    purpose = run.outcome.purpose if run.outcome else ""
    if purpose == "build":
        return builds.built(run)
    if purpose in ("run", "script"):
        return laws(run).executed(run)
    if purpose == "vet":
        return executions.vetted(run)
    if purpose == "oracle":
        return executions.proven(run)
    return asks.answered(run)


def _without_effect(run: Run) -> Step | None:
    """Return the step of a state that leaves without an effect, or None where it wants one."""
    if run.state == "resolving":
        return builds.resolved(run)
    if run.state == "executing":
        return laws(run).standing(run)
    if run.state == "vetting":
        return executions.nothing_to_vet(run)
    if run.state in ("coding", "judging", "fixing_tests"):
        return asks.nothing_to_ask(run)
    return None


def _effect(run: Run) -> Command:
    if run.state == "building":
        return builds.build(run)
    if run.state in ("vetting", "executing", "proving"):
        return Execute(executions.job(run))
    return asks.ask(run)
