"""Where a session is forked, and the event that begins the fork."""

import re
from collections.abc import Mapping
from typing import Any

from codetape.domain.canonical import canonical
from codetape.errors import UsageError
from codetape.eventlog import machine
from codetape.eventlog.events import Blobs, CallBatched, NewEvent, Requested, SessionForked, Transition
from codetape.eventlog.fold import fold
from codetape.eventlog.session_state import SessionState
from codetape.ports import Stream
from codetape.runtime.versions import versions

_STATE = re.compile(r"([a-z_]+)(?:#(\d{1,4}))?")


def point(stream: Stream, at: int | str) -> int:
    """Return the seq that a fork inherits up to: the named one, or the nearest before it with no open call.

    ``at`` is a seq, or ``STATE`` or ``STATE#N`` for where the machine came to a state the first, or Nth, time.
    Raises UsageError for a point that there is not.
    """
    last = len(stream.events) - 1
    seq = at if isinstance(at, int) else int(at) if at.isdecimal() else _entered(stream, at)
    if not 0 <= seq <= last:
        raise UsageError(f"The session has no event {seq}.", remedy=f"Its last is {last}.")
    while isinstance(stream.events[seq].payload, Requested | CallBatched):
        seq -= 1
    return seq


def _entered(stream: Stream, at: str) -> int:
    match = _STATE.fullmatch(at)
    if match is None or match[1] not in machine.STATES:
        raise UsageError(
            f"{at!r} is no point of a session.",
            remedy=f"Give a seq, or a state such as coding#2: {', '.join(machine.STATES)}.",
        )
    found = [
        event.seq
        for event in stream.events
        if isinstance(event.payload, Transition) and event.payload.trigger and event.payload.target == match[1]
    ]
    number = int(match[2] or 1)
    if not 1 <= number <= len(found):
        raise UsageError(
            f"The session came to {match[1]} {len(found)} times, not {number}.",
            remedy="`codetape show SESSION --events` shows the way.",
        )
    return found[number - 1]


def inherited(stream: Stream, seq: int, changes: Mapping[str, Any]) -> SessionState:
    """Return the state that a fork at a seq begins in. Raises UsageError where nothing could continue from there."""
    session = fold(stream.events[: seq + 1], stream.texts)
    limit = int(changes.get("max_iterations", session.the_config.max_iterations))
    if session.state == "failed" and session.cause == "iterations" and limit > session.ledger.iteration:
        return session
    if session.state in machine.FINAL:
        more = " with a higher max_iterations (--set max_iterations=N)" if session.cause == "iterations" else ""
        raise UsageError(
            f"The session has {session.state} at {seq}: nothing continues from there.", remedy=f"Fork it earlier{more}."
        )
    if limit <= session.ledger.iteration:
        raise UsageError(
            f"At {seq} {session.ledger.iteration} iterations have run.",
            remedy="Raise max_iterations (--set max_iterations=N).",
        )
    return session


def forked(
    session: SessionState,
    changes: Mapping[str, Any],
    *,
    pack: Mapping[str, str] | None = None,
    say: str = "",
    reply: str | None = None,
    tags: tuple[str, ...] = (),
) -> NewEvent:
    """Return a fork's first event. Raises UsageError for a reply where no answer waits for its decision."""
    if reply is not None and (session.outcome is None or getattr(session.outcome.event, "text", None) is None):
        raise UsageError(
            f"At {session.seq - 1} no answer waits for a decision.", remedy="Name an Answered event by its seq (--at)."
        )
    texts = Blobs()
    payload = SessionForked(
        parent=session.session,
        seq=session.seq - 1,
        hash=session.head,
        model=str(changes.get("model", "")),
        server=(changes["server"] or "") if "server" in changes else None,
        config=texts.put(canonical(dict(changes))),
        pack={name: texts.put(text) for name, text in sorted((pack or {}).items())},
        say=texts.put(say) if say else None,
        reply=texts.put(reply) if reply is not None else None,
        tags=tags,
        versions=versions(),
    )
    return NewEvent(payload, texts)
