"""A recorded session replayed from its events: the same rules derive every request and decision again.

No model is called, and nothing is built or executed. The first event that is derived differently than recorded is a
divergence, reported in layers: kind, purpose, fingerprint, request, decision. Where other versions than these
derived the tape, it is drift: the replay follows what was recorded, and lists it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from codetape.decider import decide
from codetape.decider.commands import Build, CallModel, Command, Execute, Record
from codetape.decider.request_events import requested
from codetape.domain.canonical import canonical
from codetape.domain.job import BuildSpec, Job
from codetape.domain.model_request import ModelRequest
from codetape.errors import CodetapeError, Divergence
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    EXTERNAL_CAUSES,
    Decided,
    Payload,
    Requested,
    Resumed,
    SessionForked,
    SessionStarted,
    Suspended,
    Versions,
)
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import BOOKKEEPING, SessionState
from codetape.ports import Stream
from codetape.runtime.versions import differences, may_drift, versions
from codetape.text.unified_diff import unified

_CUT = 4000  # characters shown of one difference
Follow = Literal["recorded", "current"]


@dataclass(frozen=True)
class DriftedEvent:
    """An event that these versions derive differently than the tape's did; the replay followed the tape."""

    seq: int
    layer: str
    message: str


@dataclass(frozen=True)
class Replayed:
    """A replay that reached the tape's end: the state there, how many events were derived, and drift.

    An ``unfinished`` session ends where it would continue: its process ended, or has not ended yet.
    """

    run: SessionState
    derived: int
    drift: tuple[DriftedEvent, ...] = ()

    @property
    def unfinished(self) -> bool:
        """Whether the session would continue from here."""
        return self.run.state not in ("suspended", "succeeded", "failed")


def replay(stream: Stream, *, pack: Mapping[str, str] | None = None, rules: Follow = "recorded") -> Replayed:
    """Derive a stream's events again and compare them.

    ``pack`` is a prompt pack to render with instead of the tape's own. A tape is derived by the version of the rules
    that recorded it, if this codetape has that version; ``rules="current"`` derives by the present one, treats drift as
    divergence, and compares no books. Raises Divergence at the first event that differs, CorruptTape for a bad log.
    """
    session, derived, drift = SessionState(), 0, []
    ours, theirs = versions(), session.versions
    for event in stream.events:
        if event.seq and is_derived(event.payload):
            derived += 1
            try:
                command = decide(session)
                if rules == "recorded" or not _decides_the_same(event.payload, command):
                    _compare(event, command, session, stream)
            except (Divergence, CodetapeError) as error:
                divergence = _as_divergence(error, event)
                if pack is not None or rules == "current" or not may_drift(theirs, ours):
                    raise _explained(divergence, theirs, pack, rules) from error
                drift.append(DriftedEvent(divergence.seq, divergence.layer, divergence.message))
        session = apply(session, event, stream.texts)
        if pack is not None and isinstance(event.payload, SessionStarted | SessionForked):
            own_pack, session = session.pack, session.evolve(pack=dict(pack))
            pack = _Swapped(pack, own_pack)
        if isinstance(event.payload, SessionStarted | SessionForked | Resumed):
            theirs = event.payload.versions
        if rules == "current":
            session = _by_present_rules(session)
    return Replayed(session, derived, tuple(drift))


def changed(stream: Stream) -> Iterator[DriftedEvent]:
    """Yield every request and decision that the present rules derive differently; the log is followed throughout.

    Fields in which a version of the rules only keeps its books do not count as a decision.
    """
    session = SessionState()
    for event in stream.events:
        if event.seq and is_derived(event.payload):
            try:
                command = decide(session)
                if not _decides_the_same(event.payload, command):
                    _compare(event, command, session, stream)
            except (Divergence, CodetapeError) as error:
                divergence = _as_divergence(error, event)
                yield DriftedEvent(divergence.seq, divergence.layer, divergence.message)
        session = _by_present_rules(apply(session, event, stream.texts))


def _decides_the_same(recorded: Payload, command: Command | None) -> bool:
    """Whether two decisions differ at most in their bookkeeping fields."""
    derived = command.draft.payload if isinstance(command, Record) else None
    if not isinstance(recorded, Decided) or type(derived) is not type(recorded) or not isinstance(derived, Decided):
        return False
    old, new = (_without_books(payload) for payload in (recorded, derived))
    return old == new


def _without_books(payload: Decided) -> Decided:
    ledger = {
        name: value for name, value in payload.model_dump(mode="json")["ledger"].items() if name not in BOOKKEEPING
    }
    changes = {name: value for name, value in payload.changes.items() if name not in BOOKKEEPING}
    return payload.model_copy(update={"ledger": ledger, "changes": changes})


def _by_present_rules(session: SessionState) -> SessionState:
    return (
        session.evolve(
            versions=session.versions.model_copy(update={"rules": versions().rules, "machine": versions().machine})
        )
        if session.versions
        else session
    )


class _Swapped(dict[str, str]):
    """A pack in place of the tape's own, which remembers the names of the templates that differ."""

    def __init__(self, new: Mapping[str, str], own: Mapping[str, str]) -> None:
        super().__init__(new)
        self.changed = sorted(name for name in {*new, *own} if new.get(name) != own.get(name))


def is_derived(payload: Payload) -> bool:
    """Whether a replay derives and compares an event, rather than taking it as input."""
    if isinstance(payload, Suspended):
        return payload.cause not in EXTERNAL_CAUSES
    return payload.role == "derived"


def _compare(event: Event, command: Command | None, session: SessionState, stream: Stream) -> None:
    recorded = event.payload
    if isinstance(recorded, Requested):
        _compare_request(event, recorded, command, session, stream)
        return
    if not isinstance(command, Record):
        instead = "ends" if command is None else f"wants to {type(command).__name__.lower()}"
        raise _divergence(event, "kind", f"the tape has a {event.kind}, the replay {instead}.")
    derived = command.draft.payload
    if type(derived) is not type(recorded):
        raise _divergence(event, "kind", f"the tape has a {event.kind}, the replay a {type(derived).__name__}.")
    if derived != recorded and canonical(derived.model_dump(mode="json")) != event.stored_payload:
        raise _divergence(event, "decision", f"{_fields(recorded, derived)}.")


def _compare_request(
    event: Event, recorded: Requested, command: Command | None, session: SessionState, stream: Stream
) -> None:
    if command is None or isinstance(command, Record):
        instead = "ends" if command is None else f"records a {type(command.draft.payload).__name__}"
        raise _divergence(event, "kind", f"the tape asks for {recorded.purpose}, the replay {instead}.")
    derived = requested(session.evolve(session=event.session), command).payload
    if derived == recorded:
        return
    request = made_by(command)
    purpose = getattr(request, "purpose", "build")
    if purpose != recorded.purpose:
        raise _divergence(event, "purpose", f"the tape asks for {recorded.purpose}, the replay for {purpose}.")
    if request.fingerprint != recorded.fingerprint:
        shown = (
            _messages(recorded, command, stream)
            if isinstance(command, CallModel)
            else _detail(recorded, request.detail, stream)
        )
        other = _elsewhere(event, request.fingerprint, stream)
        raise _divergence(event, "fingerprint", f"the {purpose} request differs.{other}\n{shown}")
    # the fingerprint agrees, but a field that it does not cover differs
    raise _divergence(
        event,
        "request",
        f"the {purpose} request is recorded with other texts or figures: {_fields(recorded, derived)}.",
    )


def made_by(command: CallModel | Build | Execute) -> ModelRequest | BuildSpec | Job:
    """Return the request that a command sends out."""
    if isinstance(command, CallModel):
        return command.request
    return command.spec if isinstance(command, Build) else command.job


def _elsewhere(event: Event, fingerprint: str, stream: Stream) -> str:
    """Say where the tape makes the derived request, if it does so elsewhere."""
    for other in stream.events:
        if isinstance(other.payload, Requested) and other.payload.fingerprint == fingerprint:
            return f" The tape makes the replay's request at seq {other.seq}: the order differs."
    return ""


def _messages(recorded: Requested, command: CallModel, stream: Stream) -> str:
    """Return which message differs, and how."""
    parts = []
    before = [(role, stream.texts[ref]) for role, ref in recorded.messages]
    after = [(m.role, m.content) for m in command.request.messages]
    for number in range(max(len(before), len(after))):
        old, new = (side[number] if number < len(side) else ("none", "") for side in (before, after))
        if old != new:
            parts.append(unified(old[1], new[1], (f"recorded {old[0]}", f"replayed {new[0]}")))
    return "\n".join(parts)[:_CUT] or _detail(recorded, command.request.detail, stream)


def _detail(recorded: Requested, derived: object, stream: Stream) -> str:
    return f"recorded {stream.texts[recorded.detail][:_CUT]}\nreplayed {canonical(derived)[:_CUT]}"


def _fields(recorded: Payload, derived: Payload) -> str:
    old, new = recorded.model_dump(mode="json"), derived.model_dump(mode="json")
    return "; ".join(
        f"{name}: recorded {old[name]!r}, replayed {new[name]!r}" for name in old if old[name] != new.get(name)
    )[:_CUT]


def _divergence(event: Event, layer: str, message: str) -> Divergence:
    return Divergence(f"{event.session}:{event.seq}: {message}", seq=event.seq, layer=layer)


def _as_divergence(error: CodetapeError, event: Event) -> Divergence:
    """Return the error as a divergence; a pack that does not render, or a state without a decision, is one too."""
    if isinstance(error, Divergence):
        return error
    return _divergence(event, "kind", f"nothing can be derived here: {error}")


def _explained(
    divergence: Divergence, theirs: Versions | None, pack: Mapping[str, str] | None, rules: Follow
) -> Divergence:
    """Return the divergence with the reasons for it, as far as they are known."""
    ours = versions()
    why = list(differences(theirs, ours))
    if rules == "current" and theirs is not None and theirs.rules != ours.rules and not why:
        why.append(f"rules {theirs.rules} there, {ours.rules} here")
    if isinstance(pack, _Swapped):
        why.append(
            f"another prompt pack ({', '.join(pack.changed[:5])})" if pack.changed else "the pack is the tape's own"
        )
    if not why:
        why.append("versions and pack are the tape's own, so what it says or its order was changed")
    return Divergence(f"{divergence.message}\nWhy: {'; '.join(why)}.", seq=divergence.seq, layer=divergence.layer)
