"""Calls of the model: the request that a state makes, and what becomes of its outcome."""

from dataclasses import replace

from codetape.decider.commands import CallModel
from codetape.decider.replies.table import REPLIES
from codetape.decider.step import Step
from codetape.domain.model_request import LENGTH_PARAMETER, ModelRequest
from codetape.domain.purposes import PURPOSES
from codetape.eventlog.events import Answered, CallRefused
from codetape.eventlog.session_state import MAX_COUNT, SessionState
from codetape.prompts.messages import FORMS, messages
from codetape.prompts.pack import schema_of
from codetape.prompts.reply_parser import SHAPES, Unusable, arrived
from codetape.rules.session_view import calls_in_doubt

PURPOSE_OF = {row.state: row.name for row in PURPOSES}
MIN_OUTPUT = 256  # tokens; with less room than that it is the prompt that is too long
MAX_SAID = 600  # characters of a server's words in a message
MAX_LOWERED = 3  # times that a session believes a server that names another limit


def ask(session: SessionState) -> CallModel:
    """Return the state's request, rendered afresh from what the run has made."""
    purpose, config = PURPOSE_OF[session.state], session.the_config
    kept = {k: v for k, v in config.parameters.items() if k not in session.ledger.dropped_parameters}
    request = ModelRequest(
        model=config.model,
        purpose=purpose,
        messages=messages(session, purpose),
        reply_schema=None if session.ledger.schemaless else schema_of(session, purpose),
        json_mode=session.ledger.schemaless and not session.ledger.formless and purpose in SHAPES,
        max_output_tokens=config.max_output_tokens,
        older_limit=LENGTH_PARAMETER in session.ledger.dropped_parameters,
        parameters=kept,
    )
    return CallModel(_within_limits(session, request))


def _within_limits(session: SessionState, request: ModelRequest) -> ModelRequest:
    """Return the request for no more output than the server said it allows, and than its window has room for."""
    ledger, most = session.ledger, request.max_output_tokens
    if ledger.output_cap:
        most = min(most, ledger.output_cap)
    if ledger.window:
        most = min(most, max(MIN_OUTPUT, ledger.window - request.reserved_input))
    return request if most == request.max_output_tokens else request.model_copy(update={"max_output_tokens": most})


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
    text, row = arrived(outcome.text, outcome.message, outcome.event.finish_reason), REPLIES[outcome.purpose]
    if isinstance(text, str) and session.rules > 2:
        text = row.form(session, text)
    used = text if isinstance(text, Unusable) else row.read(session, text)
    if isinstance(used, Unusable):
        return _unusable(session, outcome.purpose, used, outcome.text or "")
    return _closed(used)


def _is_new_form(session: SessionState, reason: str) -> bool:
    """Whether a reply had a form that the model is told of from here on: what it does once it does again."""
    return session.rules > 2 and reason in FORMS and reason not in session.ledger.forms


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
    if event.what == "output" and (lower := _lower(session, event)):
        return Step(purpose, usable=False, reason="output", ledger=lower, target=session.state)
    too_long = event.what == "context" or (event.what == "output" and event.window > 0)  # no room is left for an answer
    if too_long and not session.ledger.trimmed:
        return Step(purpose, usable=False, reason="context", ledger={"trimmed": True}, target=session.state)
    return _closed(REPLIES[purpose].without(session, Unusable(event.what, _refusal(session, event))))


def _lower(session: SessionState, event: CallRefused) -> dict[str, int]:
    """Return the ledger's new limits: those that the server names, where they are lower than what is known."""
    ledger = session.ledger
    if ledger.lowered >= MAX_LOWERED:
        return {}
    if event.cap and event.cap < (ledger.output_cap or session.the_config.max_output_tokens):
        return {"output_cap": event.cap, "lowered": ledger.lowered + 1}
    # what the prompt has beyond our reckoning it will have again: the window is so much smaller for us
    beyond = max(0, event.prompt - ask(session).request.reserved_input)
    window = min(event.window - beyond, MAX_COUNT)
    if not event.window or event.window - event.prompt < MIN_OUTPUT or window >= (ledger.window or MAX_COUNT + 1):
        return {}
    return {"window": window, "lowered": ledger.lowered + 1}


def _refusal(session: SessionState, event: CallRefused) -> str:
    if session.rules < 3:
        return f"The server refuses the request: {event.what}."
    said = session.outcome.message.strip() if session.outcome else ""
    words = said or {"context": "it is too long", "output": "its answer may be too long"}.get(event.what, event.what)
    limit = event.what in ("context", "output")
    remedy = " --max-output-tokens lowers what is asked for." if limit else ""
    return f"The server refuses the request: {words[:MAX_SAID]}{remedy}"


def _unusable(session: SessionState, purpose: str, why: Unusable, text: str) -> Step:
    """One repair ask, which costs no iteration; then the consequence."""
    if session.ledger.repairs == 0:
        forms = {"forms": (*session.ledger.forms, why.reason)} if _is_new_form(session, why.reason) else {}
        return Step(
            purpose,
            usable=False,
            reason=why.reason,
            ledger={"repairs": 1, **forms},
            work={"repair": why.detail, "bad_reply": text},
            target=session.state,
        )
    return _closed(REPLIES[purpose].without(session, why))
