"""Renders a prompt pack at every point of a recorded session."""

from collections.abc import Mapping
from dataclasses import replace

from codetape.domain.purposes import PURPOSES
from codetape.errors import TemplateError
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.ports import Stream
from codetape.prompts.context import context
from codetape.prompts.render import render


def lint_pack(pack: Mapping[str, str], recorded: Stream) -> list[str]:
    """Render each purpose's templates after every decision of a recorded session; return each distinct problem once."""
    session, problems = SessionState(), dict[str, None]()
    for event in recorded.events:
        session = apply(session, event, recorded.texts)
        if event.kind != "Decided" or session.work.plan is None:
            continue
        state = replace(session, pack=pack)
        for row in PURPOSES:
            for name in ("system.md", f"{row.name}.md", "repair.md"):
                try:
                    render(pack, name, {**context(state, row.name), "problem": "a problem"})
                except TemplateError as error:
                    problems[str(error)] = None
    return list(problems)
