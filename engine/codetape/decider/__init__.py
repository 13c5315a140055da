"""A run to its next command: an ask, a build, an execution, or a derived event to record. Pure.

What is done next is always what the machine's state wants; what became of an outcome is settled in
`asks` (model replies), `builds` (environments), `executions` and `reports` (their outcomes).
"""

from codetape.decider import environments, executions, model_calls
from codetape.decider.commands import Command, Execute, Record
from codetape.decider.rule_set import rule_set
from codetape.decider.step import Step, examples_event, record
from codetape.eventlog import machine
from codetape.eventlog.session_state import SessionState

__all__ = ["decide"]


def decide(run: SessionState) -> Command | None:
    """Return what the run does next; None when it is suspended or ended."""
    if run.state not in machine.ACTIVE:
        return None
    if run.anchors is None:
        return Record(examples_event(run))
    step = _settled(run) if run.outcome else _without_effect(run)
    return record(run, step) if step else _effect(run)


def _settled(run: SessionState) -> Step:
    """Return what becomes of the closed call."""
    purpose = run.outcome.purpose if run.outcome else ""
    if purpose == "build":
        return environments.built(run)
    if purpose in ("run", "script"):
        return rule_set(run).executed(run)
    if purpose == "vet":
        return executions.vetted(run)
    if purpose == "oracle":
        return executions.proven(run)
    return model_calls.answered(run)


def _without_effect(run: SessionState) -> Step | None:
    """Return the step of a state that leaves without an effect, or None where it wants one."""
    if run.state == "resolving":
        return environments.resolved(run)
    if run.state == "executing":
        return rule_set(run).standing(run)
    if run.state == "vetting":
        return executions.nothing_to_vet(run)
    if run.state in ("coding", "judging", "fixing_tests"):
        return model_calls.nothing_to_ask(run)
    return None


def _effect(run: SessionState) -> Command:
    if run.state == "building":
        return environments.build(run)
    if run.state in ("vetting", "executing", "proving"):
        return Execute(executions.job(run))
    return model_calls.ask(run)
