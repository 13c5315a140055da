"""A run to its next command: an ask, a build, an execution, or a derived event to record. Pure.

What is done next is always what the machine's state wants; what became of an outcome is settled in `model_calls` (replies),
`environments`, `executions`, `weighing` (reports of tests) and `confirming`.
"""

from codetape.decider import confirming, environments, executions, model_calls
from codetape.decider.commands import Command, Execute, Record
from codetape.decider.rule_set import rule_set
from codetape.decider.step import Step, examples_event, record
from codetape.eventlog import machine
from codetape.eventlog.session_state import SessionState

__all__ = ["decide"]


def decide(session: SessionState) -> Command | None:
    """Return what the run does next; None when it is suspended or ended."""
    if session.state not in machine.ACTIVE:
        return None
    if session.anchors is None:
        return Record(examples_event(session))
    step = _settled(session) if session.outcome else _without_effect(session)
    return record(session, step) if step else _effect(session)


def _settled(session: SessionState) -> Step:
    """Return what becomes of the closed call."""
    purpose = session.outcome.purpose if session.outcome else ""
    if purpose == "build":
        return environments.built(session)
    if purpose in ("run", "script"):
        return rule_set(session).executed(session)
    if purpose == "vet":
        return executions.vetted(session)
    if purpose == "oracle":
        return executions.proven(session)
    if purpose == "confirm":
        return confirming.confirmed(session)
    if purpose == "evaluate":
        return confirming.evaluated(session)
    return model_calls.answered(session)


def _without_effect(session: SessionState) -> Step | None:
    """Return the step of a state that leaves without an effect, or None where it wants one."""
    if session.state == "resolving":
        return environments.resolved(session)
    if session.state == "executing":
        return rule_set(session).standing(session)
    if session.state == "vetting":
        return executions.nothing_to_vet(session)
    if session.state == "confirming" or (session.state == "proving" and session.ledger.proven):
        return confirming.nothing_to_confirm(session)
    if session.state in ("coding", "judging", "fixing_tests"):
        return model_calls.nothing_to_ask(session)
    return None


def _effect(session: SessionState) -> Command:
    if session.state == "building":
        return environments.build(session)
    if session.state == "confirming" or confirming.before_or_after_the_oracle(session):
        return Execute(confirming.job(session))
    if session.state in ("vetting", "executing", "proving"):
        return Execute(executions.job(session))
    return model_calls.ask(session)
