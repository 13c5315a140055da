"""What a call is announced by: the event `Requested`, derived from the run and the command alone."""

from typing import Literal

from codetape.canonical import canonical
from codetape.commands import Ask, Build, Execute
from codetape.events import Draft, Requested, Texts
from codetape.run import Run


def requested(run: Run, command: Ask | Build | Execute) -> Draft:
    """Return the event that announces a call, with the texts that it refers to."""
    texts = Texts()
    call = f"{run.session}:{run.seq}"
    if isinstance(command, Ask):
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
        return Draft(payload, texts)
    value = command.spec if isinstance(command, Build) else command.job
    purpose = "build" if isinstance(command, Build) else command.job.purpose
    effect: Literal["build", "execute"] = "build" if isinstance(command, Build) else "execute"
    detail = texts.put(canonical(value.detail))
    return Draft(
        Requested(call=call, effect=effect, purpose=purpose, fingerprint=value.fingerprint, detail=detail),
        texts,
    )
