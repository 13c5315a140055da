"""The messages of a call."""

from codetape.domain.model_request import Message
from codetape.eventlog.session_state import SessionState
from codetape.prompts.context import CAPS, context
from codetape.prompts.render import cut, render


def messages(run: SessionState, purpose: str) -> tuple[Message, ...]:
    """Return the messages of the run's next ask for the purpose."""
    known = context(run, purpose)
    system = Message(role="system", content=render(run.pack, "system.md", known))
    user = Message(role="user", content=render(run.pack, f"{purpose}.md", known))
    if not run.work.repair:
        return (system, user)
    bad = Message(role="assistant", content=cut(run.work.bad_reply, CAPS["reply"]) or "(no usable text)")
    repair = render(run.pack, "repair.md", {**known, "problem": run.work.repair})
    return (system, user, bad, Message(role="user", content=repair))
