"""A recorded session run again from its events, through the same rules: every request and decision is derived again.

Nothing is asked, built or executed. The first thing that is derived differently than recorded is a divergence,
reported in layers: kind, purpose, fingerprint, request, decision, length. Where the tape was derived by other versions
than
these, it is drift: the replay follows what was recorded, and lists it.
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

_CUT = 4000  # characters of a difference that are shown
Follow = Literal["recorded", "current"]


@dataclass(frozen=True)
class DriftedEvent:
    """Something that these versions derive differently than the tape's did; the replay followed the tape."""

    seq: int
    layer: str
    message: str


@dataclass(frozen=True)
class Replayed:
    """A replay that came to the tape's end: the state there, how many requests and decisions were derived, and
    drift."""

    run: SessionState
    derived: int
    drift: tuple[DriftedEvent, ...] = ()


def replay(
    stream: Stream, *, pack: Mapping[str, str] | None = None, rules: Follow = "recorded", whole: bool = True
) -> Replayed:
    """Derive a stream's events again and compare them. ``whole`` asks for a session that has come to a halt.

    ``pack`` is another prompt pack to render with than the tape's own. A tape is derived by the version of the rules
    that it
    was recorded by, where that is kept here; ``rules="current"`` derives by the present one, and takes drift as
    divergence.
    Raises Divergence at the first event that differs, CorruptTape for a bad log.
    """
    session, derived, drift = SessionState(), 0, []
    ours, theirs = versions(), session.versions
    for event in stream.events:
        if event.seq and is_derived(event.payload):
            derived += 1
            try:
                _compare(event, decide(session), session, stream)
            except (Divergence, CodetapeError) as error:
                found = _as_divergence(error, event)
                if pack is not None or rules == "current" or not may_drift(theirs, ours):
                    raise _explained(found, theirs, pack, rules) from error
                drift.append(DriftedEvent(found.seq, found.layer, found.message))
        session = apply(session, event, stream.texts)
        if pack is not None and isinstance(event.payload, SessionStarted | SessionForked):
            own, session = session.pack, session.evolve(pack=dict(pack))
            pack = _Swapped(pack, own)
        theirs = getattr(event.payload, "versions", theirs)
        if rules == "current":
            session = _by_present_rules(session)
    if (
        whole
        and session.call is None
        and session.state not in ("suspended", "succeeded", "failed")
        and decide(session) is not None
    ):
        what = f"{session.session} stops at seq {session.seq - 1}, where it would continue."
        raise Divergence(what, seq=session.seq, layer="length")
    return Replayed(session, derived, tuple(drift))


def changed(stream: Stream) -> Iterator[DriftedEvent]:
    """Yield every request and decision that the present rules derive differently than recorded; the log is followed
    throughout.

    What a version of the rules only keeps its books by is no decision.
    """
    session = SessionState()
    for event in stream.events:
        if event.seq and is_derived(event.payload):
            try:
                command = decide(session)
                if not _decides_the_same(event.payload, command):
                    _compare(event, command, session, stream)
            except (Divergence, CodetapeError) as error:
                found = _as_divergence(error, event)
                yield DriftedEvent(found.seq, found.layer, found.message)
        session = _by_present_rules(apply(session, event, stream.texts))


def _decides_the_same(recorded: Payload, command: Command | None) -> bool:
    """Whether two decisions differ in nothing but their books."""
    derived = command.draft.payload if isinstance(command, Record) else None
    if not isinstance(recorded, Decided) or type(derived) is not type(recorded) or not isinstance(derived, Decided):
        return False
    one, other = (_without_books(payload) for payload in (recorded, derived))
    return one == other


def _without_books(payload: Decided) -> Decided:
    ledger = {
        name: value for name, value in payload.model_dump(mode="json")["ledger"].items() if name not in BOOKKEEPING
    }
    changes = {name: value for name, value in payload.changes.items() if name not in BOOKKEEPING}
    return payload.model_copy(update={"ledger": ledger, "changes": changes})


def _by_present_rules(session: SessionState) -> SessionState:
    return (
        session.evolve(versions=session.versions.model_copy(update={"rules": versions().rules}))
        if session.versions
        else session
    )


class _Swapped(dict[str, str]):
    """A pack in the place of another one, which it remembers."""

    def __init__(self, new: Mapping[str, str], own: Mapping[str, str]) -> None:
        super().__init__(new)
        self.changed = sorted(name for name in {*new, *own} if new.get(name) != own.get(name))


def is_derived(payload: Payload) -> bool:
    """Whether a replay derives an event and compares it, rather than being fed it."""
    if isinstance(payload, Suspended):
        return payload.cause not in EXTERNAL_CAUSES
    return payload.role == "derived"


def _compare(event: Event, command: Command | None, session: SessionState, stream: Stream) -> None:
    recorded = event.payload
    if isinstance(recorded, Requested):
        _compare_request(event, recorded, command, session, stream)
        return
    if not isinstance(command, Record):
        wanted = "ends" if command is None else f"wants to {type(command).__name__.lower()}"
        raise _divergence(event, "kind", f"the tape has a {event.kind}, the replay {wanted}.")
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
    made = made_by(command)
    purpose = getattr(made, "purpose", "build")
    if purpose != recorded.purpose:
        raise _divergence(event, "purpose", f"the tape asks for {recorded.purpose}, the replay for {purpose}.")
    if made.fingerprint != recorded.fingerprint:
        shown = (
            _messages(recorded, command, stream)
            if isinstance(command, CallModel)
            else _detail(recorded, made.detail, stream)
        )
        other = _elsewhere(event, made.fingerprint, stream)
        raise _divergence(event, "fingerprint", f"the {purpose} request differs.{other}\n{shown}")
    derived = requested(session.evolve(session=event.session), command).payload
    if derived != recorded:  # the same request by its fingerprint, and something else beside it
        raise _divergence(
            event,
            "request",
            f"the {purpose} request is recorded with other texts or figures: {_fields(recorded, derived)}.",
        )


def made_by(command: CallModel | Build | Execute) -> ModelRequest | BuildSpec | Job:
    """Return what an effect sends out."""
    if isinstance(command, CallModel):
        return command.request
    return command.spec if isinstance(command, Build) else command.job


def _elsewhere(event: Event, fingerprint: str, stream: Stream) -> str:
    """Say where the tape makes the derived request, if it does so in another place."""
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


def _detail(recorded: Requested, made: object, stream: Stream) -> str:
    return f"recorded {stream.texts[recorded.detail][:_CUT]}\nreplayed {canonical(made)[:_CUT]}"


def _fields(recorded: Payload, derived: Payload) -> str:
    old, new = recorded.model_dump(mode="json"), derived.model_dump(mode="json")
    return "; ".join(
        f"{name}: recorded {old[name]!r}, replayed {new[name]!r}" for name in old if old[name] != new.get(name)
    )[:_CUT]


def _divergence(event: Event, layer: str, what: str) -> Divergence:
    return Divergence(f"{event.session}:{event.seq}: {what}", seq=event.seq, layer=layer)


def _as_divergence(error: CodetapeError, event: Event) -> Divergence:
    """Return a divergence; a pack that does not render, or a state that cannot be decided on, is one too."""
    if isinstance(error, Divergence):
        return error
    return _divergence(event, "kind", f"nothing can be derived here: {error}")


def _explained(found: Divergence, theirs: Versions | None, pack: Mapping[str, str] | None, rules: Follow) -> Divergence:
    """Return a divergence that says why things differ, as far as that can be told."""
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
    return Divergence(f"{found.message}\nWhy: {'; '.join(why)}.", seq=found.seq, layer=found.layer)
