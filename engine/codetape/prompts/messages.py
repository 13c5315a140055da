"""The messages of a call."""

from codetape.domain.model_request import Message
from codetape.eventlog.session_state import SessionState
from codetape.prompts.context import CAPS, context
from codetape.prompts.render import cut, render, render_all
from codetape.prompts.reply_parser import SHAPES

FORMS = {
    "no_block": "Put the code into exactly one fenced code block.",
    "several_blocks": "Answer with exactly one fenced code block, and no other one.",
    "open_block": "Close the code block.",
    "not_json": "Answer with the JSON object alone, and nothing before or after it.",
}
"""What is said of a form that could not be read, from then on in the session."""


def _reminder(session: SessionState, purpose: str) -> str:
    """Return what an earlier reply of the session was refused for, as far as it applies to this one."""
    wants_json = purpose in SHAPES
    said = [FORMS[form] for form in session.ledger.forms if (form == "not_json") == wants_json]
    return "\n\n" + " ".join(said) if said and not session.work.repair else ""


def messages(session: SessionState, purpose: str) -> tuple[Message, ...]:
    """Return the messages of the run's next ask for the purpose."""
    known = context(session, purpose)
    rules, task = render_all(session.pack, ("system.md", f"{purpose}.md"), known)
    system = Message(role="system", content=rules)
    user = Message(role="user", content=task + _reminder(session, purpose))
    if not session.work.repair:
        return (system, user)
    bad = Message(role="assistant", content=cut(session.work.bad_reply, CAPS["reply"]) or "(no usable text)")
    repair = render(session.pack, "repair.md", {**known, "problem": session.work.repair})
    return (system, user, bad, Message(role="user", content=repair))
