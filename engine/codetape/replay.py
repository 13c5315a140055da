"""A recorded session run again from its events, through the same rules: every request and decision is derived anew.

Nothing is asked, built or executed. The first thing that is derived otherwise than recorded is a divergence,
reported in layers: kind, purpose, fingerprint, decision, length.
"""

import difflib
from dataclasses import dataclass

from codetape import verdict
from codetape.canonical import canonical
from codetape.chain import Event
from codetape.commands import Ask, Build, BuildSpec, Command, Execute, Job, Record, Request
from codetape.decide import decide
from codetape.errors import Divergence
from codetape.events import WORLDLY, Payload, Requested, Resumed, Suspended
from codetape.fold import apply
from codetape.ports import Stream
from codetape.run import Run

_CUT = 4000  # characters of a difference that are shown


@dataclass(frozen=True)
class Replayed:
    """A replay that was identical: the state it ended in, and how many requests and decisions were derived."""

    run: Run
    derived: int


def replay(stream: Stream) -> Replayed:
    """Derive a stream's events anew and compare. Raises Divergence at the first that differs, CorruptTape for a bad log."""
    run, derived = Run(), 0
    for event in stream.events:
        if event.seq and _is_derived(event.payload):
            _compare(event, decide(run), run, stream)
            derived += 1
        run = apply(run, event, stream.texts)
    if decide(run) is not None and run.call is None and run.state not in ("suspended", "succeeded", "failed"):
        what = f"{run.session} stops at seq {run.seq - 1}, where it would go on."
        raise Divergence(what, seq=run.seq, layer="length")
    return Replayed(run, derived)


def _is_derived(payload: Payload) -> bool:
    if isinstance(payload, Suspended):
        return payload.cause not in WORLDLY
    return payload.role == "derived" and not isinstance(payload, Resumed)


def _compare(event: Event, command: Command | None, run: Run, stream: Stream) -> None:
    recorded = event.payload
    if isinstance(recorded, Requested):
        _compare_request(event, recorded, command, stream)
        return
    if not isinstance(command, Record):
        wanted = "ends" if command is None else f"wants to {type(command).__name__.lower()}"
        raise _divergence(event, "kind", f"the tape has a {event.kind}, the replay {wanted}", run)
    derived = command.draft.payload
    if type(derived) is not type(recorded):
        raise _divergence(event, "kind", f"the tape has a {event.kind}, the replay a {type(derived).__name__}", run)
    if derived != recorded and canonical(derived.model_dump(mode="json")) != event.stored_payload:
        raise _divergence(event, "decision", _fields(recorded, derived), run)


def _compare_request(event: Event, recorded: Requested, command: Command | None, stream: Stream) -> None:
    session = f"{event.session}:{event.seq}"
    if command is None or isinstance(command, Record):
        instead = "ends" if command is None else f"records a {type(command.draft.payload).__name__}"
        raise Divergence(
            f"{session}: the tape asks for {recorded.purpose}, the replay {instead}.", seq=event.seq, layer="kind"
        )
    made = _made(command)
    purpose = getattr(made, "purpose", "build")
    if purpose != recorded.purpose:
        raise Divergence(
            f"{session}: the tape asks for {recorded.purpose}, the replay for {purpose}.",
            seq=event.seq,
            layer="purpose",
        )
    if made.fingerprint != recorded.fingerprint:
        shown = (
            _messages(recorded, command, stream) if isinstance(command, Ask) else _detail(recorded, made.detail, stream)
        )
        raise Divergence(f"{session}: the {purpose} request differs.\n{shown}", seq=event.seq, layer="fingerprint")


def _made(command: Ask | Build | Execute) -> Request | BuildSpec | Job:
    if isinstance(command, Ask):
        return command.request
    return command.spec if isinstance(command, Build) else command.job


def _messages(recorded: Requested, command: Ask, stream: Stream) -> str:
    """Return which message differs, and how."""
    parts = []
    before = [(role, stream.texts[ref]) for role, ref in recorded.messages]
    after = [(m.role, m.content) for m in command.request.messages]
    for number in range(max(len(before), len(after))):
        old, new = (side[number] if number < len(side) else ("none", "") for side in (before, after))
        if old != new:
            lines = difflib.unified_diff(
                old[1].split("\n"), new[1].split("\n"), f"recorded {old[0]}", f"replayed {new[0]}", lineterm="", n=2
            )
            parts.append("\n".join(lines))
    return "\n".join(parts)[:_CUT] or _detail(recorded, command.request.detail, stream)


def _detail(recorded: Requested, made: object, stream: Stream) -> str:
    return f"recorded {stream.texts[recorded.detail][:_CUT]}\nreplayed {canonical(made)[:_CUT]}"


def _fields(recorded: Payload, derived: Payload) -> str:
    old, new = recorded.model_dump(mode="json"), derived.model_dump(mode="json")
    return "; ".join(
        f"{name}: recorded {old[name]!r}, replayed {new[name]!r}" for name in old if old[name] != new.get(name)
    )[:_CUT]


def _divergence(event: Event, layer: str, what: str, run: Run) -> Divergence:
    theirs = run.versions.rules if run.versions else verdict.VERSION
    drift = (
        "" if theirs == verdict.VERSION else f" The tape's rules are of version {theirs}, these of {verdict.VERSION}."
    )
    return Divergence(f"{event.session}:{event.seq}: {what}.{drift}", seq=event.seq, layer=layer)
