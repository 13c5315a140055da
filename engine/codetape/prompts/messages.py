"""The messages of a call."""

from codetape.domain.model_request import Message
from codetape.eventlog.session_state import SessionState
from codetape.prompts.context import CAPS, context
from codetape.prompts.render import cut, render


def messages(session: SessionState, purpose: str) -> tuple[Message, ...]:
    """Return the messages of the run's next ask for the purpose."""
    known = context(session, purpose)
    system = Message(role="system", content=render(session.pack, "system.md", known))
    user = Message(role="user", content=render(session.pack, f"{purpose}.md", known))
    if not session.work.repair:
        return (system, user)
    bad = Message(role="assistant", content=cut(session.work.bad_reply, CAPS["reply"]) or "(no usable text)")
    repair = render(session.pack, "repair.md", {**known, "problem": session.work.repair})
    return (system, user, bad, Message(role="user", content=repair))
