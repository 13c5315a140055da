"""Calls of the model: the request that a state makes, and what becomes of its outcome."""

from dataclasses import replace

from codetape.decider.commands import CallModel
from codetape.decider.replies.table import REPLIES
from codetape.decider.step import Step
from codetape.domain.model_request import LENGTH_PARAMETER, ModelRequest
from codetape.domain.purposes import PURPOSES
from codetape.eventlog.events import Answered, CallRefused
from codetape.eventlog.session_state import SessionState
from codetape.prompts.messages import messages
from codetape.prompts.pack import schema_of
from codetape.prompts.reply_parser import SHAPES, Unusable, arrived
from codetape.rules.session_view import calls_in_doubt

PURPOSE_OF = {row.state: row.name for row in PURPOSES}


def ask(session: SessionState) -> CallModel:
    """Return the state's request, rendered afresh from what the run has made."""
    purpose, config = PURPOSE_OF[session.state], session.the_config
    kept = {k: v for k, v in config.parameters.items() if k not in session.ledger.dropped_parameters}
    return CallModel(
        ModelRequest(
            model=config.model,
            purpose=purpose,
            messages=messages(session, purpose),
            reply_schema=None if session.ledger.schemaless else schema_of(session, purpose),
            json_mode=session.ledger.schemaless and not session.ledger.formless and purpose in SHAPES,
            max_output_tokens=config.max_output_tokens,
            older_limit=LENGTH_PARAMETER in session.ledger.dropped_parameters,
            parameters=kept,
        )
    )


def nothing_to_ask(session: SessionState) -> Step | None:
    """Return the step out of a state that turns out to have nothing to ask about; else None."""
    if session.state == "judging" and not calls_in_doubt(session):
        return Step("second_opinion", done=("judging",))
    if session.state == "fixing_tests":
        at_fault = [f for f in session.work.findings if f.error_type == "test_error"]
        if not session.work.tests or not at_fault:
            return Step("fix_tests", done=("fixing_tests",), owes=("executing",))
    return None


_SETTLED = {"repairs": 0}
_CLEARED = {"bad_reply": "", "repair": ""}


def answered(session: SessionState) -> Step:
    """Return what becomes of a reply: its use, a repair ask, or the consequence of having none."""
    outcome = session.outcome
    if outcome is None:
        raise ValueError("no ask was closed")
    if isinstance(outcome.event, CallRefused):
        return _refused(session, outcome.event)
    if not isinstance(outcome.event, Answered):
        raise TypeError(f"{type(outcome.event).__name__} closes no ask")
    text = arrived(outcome.text, outcome.message, outcome.event.finish_reason)
    used = text if isinstance(text, Unusable) else REPLIES[outcome.purpose].read(session, text)
    if isinstance(used, Unusable):
        return _unusable(session, outcome.purpose, used, outcome.text or "")
    return _closed(used)


def _closed(step: Step) -> Step:
    return replace(step, ledger={**step.ledger, **_SETTLED}, work={**step.work, **_CLEARED})


def _refused(session: SessionState, event: CallRefused) -> Step:
    """The server refuses the form: ask again without what it refuses, once each."""
    purpose = session.outcome.purpose if session.outcome else ""
    if event.what == "schema" and not session.ledger.formless:
        less = {"formless": True} if session.ledger.schemaless else {"schemaless": True}
        return Step(purpose, usable=False, reason="schema", ledger=less, target=session.state)
    dropped = session.ledger.dropped_parameters
    known = (LENGTH_PARAMETER, *session.the_config.parameters)
    if event.what == "parameter" and event.parameter in known and event.parameter not in dropped:
        return Step(
            purpose,
            usable=False,
            reason="parameter",
            ledger={"dropped_parameters": (*dropped, event.parameter)},
            target=session.state,
        )
    if event.what == "context" and not session.ledger.trimmed:
        return Step(purpose, usable=False, reason="context", ledger={"trimmed": True}, target=session.state)
    return _closed(
        REPLIES[purpose].without(session, Unusable(event.what, f"The server refuses the request: {event.what}."))
    )


def _unusable(session: SessionState, purpose: str, why: Unusable, text: str) -> Step:
    """One repair ask, which costs no iteration; then the consequence."""
    if session.ledger.repairs == 0:
        return Step(
            purpose,
            usable=False,
            reason=why.reason,
            ledger={"repairs": 1},
            work={"repair": why.detail, "bad_reply": text},
            target=session.state,
        )
    return _closed(REPLIES[purpose].without(session, why))
