"""What a call is announced by: the event `Requested`, derived from the run and the command alone."""

from typing import Literal

from codetape.decider.commands import Build, CallModel, Execute
from codetape.domain.canonical import canonical
from codetape.eventlog.events import Blobs, NewEvent, Requested
from codetape.eventlog.session_state import SessionState


def requested(session: SessionState, command: CallModel | Build | Execute) -> NewEvent:
    """Return the event that announces a call, with the texts that it refers to."""
    texts = Blobs()
    call = f"{session.session}:{session.seq}"
    if isinstance(command, CallModel):
        request = command.request
        payload = Requested(
            call=call,
            effect="ask",
            purpose=request.purpose,
            fingerprint=request.fingerprint,
            messages=tuple((m.role, texts.put(m.content)) for m in request.messages),
            detail=texts.put(canonical(request.detail)),
            input_estimate=request.input_estimate,
            max_output_tokens=request.max_output_tokens,
        )
        return NewEvent(payload, texts)
    value = command.spec if isinstance(command, Build) else command.job
    purpose = "build" if isinstance(command, Build) else command.job.purpose
    effect: Literal["build", "execute"] = "build" if isinstance(command, Build) else "execute"
    detail = texts.put(canonical(value.detail))
    return NewEvent(
        Requested(call=call, effect=effect, purpose=purpose, fingerprint=value.fingerprint, detail=detail),
        texts,
    )
