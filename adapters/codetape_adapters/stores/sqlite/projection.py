"""What is kept of events beside them: a line for each session, its labels, its calls and the other read models.

It is brought up to date with every event, in the event's own transaction, and can be made again from the events.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from sqlite3 import Connection
from typing import Any

from codetape.domain.canonical import well_formed
from codetape.domain.money import pico
from codetape.errors import CorruptTape
from codetape.eventlog.call_history import begun, iteration_after, pack_digits
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    Answered,
    CallClosed,
    ConfigChanged,
    ContentForgotten,
    Decided,
    Payload,
    Requested,
    SessionForked,
    SessionStarted,
    Succeeded,
    Transition,
)
from codetape.eventlog.upcasters import decode_payload
from codetape.ports import MAX_ASKED
from codetape_adapters.stores.sqlite import reservations
from codetape_adapters.stores.sqlite.connection import one
from codetape_adapters.stores.sqlite.read_models import MOST, add, begin_call, insert


def project(db: Connection, event: Event, texts: Mapping[str, str], log: Connection | None = None) -> None:
    """Bring what is kept up to date with one more event; ``texts`` has the task of a session that starts.

    ``log`` has the events that a fork continues from, where ``db`` itself has none.
    """
    payload = event.payload
    if isinstance(payload, Requested):
        if payload.effect == "ask":
            begin_call(db, begun(event.session, event.seq, event.at, payload, *_where(db, log or db, event.session)))
    else:
        add(db, event.session, event.seq, event.at, payload)
    if isinstance(payload, SessionStarted):
        labels = {
            "task": payload.task_id,
            "model": payload.model,
            "server": payload.server,
            "tags": ",".join(payload.tags),
            "lineage": event.session,
            "prompts": pack_digits(payload.pack),
            "asked": _asked(texts.get(payload.task, "")),
        }
        _begin(db, {**_line(event), **labels, "state": payload.target})
        return
    if isinstance(payload, SessionForked):
        _project_fork(db, event, payload, log or db)
        return
    sets, values = ["events = ?", "updated_at = ?", "head = ?"], [event.seq + 1, event.at, event.hash]
    if isinstance(payload, Transition):
        sets += ["state = ?", "reason = ?", "confidence = ?"]
        values += [
            payload.target,
            payload.reason if isinstance(payload, Decided) else "",
            payload.confidence if isinstance(payload, Succeeded) else "",
        ]
        iteration = iteration_after(payload, -1)
        if iteration >= 0:
            sets.append("iteration = ?")
            values.append(min(iteration, MOST))
    elif isinstance(payload, Answered):
        sets += ["input_tokens = input_tokens + ?", "output_tokens = output_tokens + ?"]
        values += [payload.usage.total_input, payload.usage.total_output]
        if payload.matched_by:
            sets.append("reused_tokens = reused_tokens + ?")
            values.append(payload.usage.total_input + payload.usage.total_output)
        else:
            sets += ["cost = cost + ?", "unpriced = unpriced + ?"]
            values += [pico(payload.price.cost) if payload.price else 0, payload.price is None]
    elif isinstance(payload, ConfigChanged) and payload.server is not None:
        sets.append("server = ?")
        values.append(payload.server)
    elif isinstance(payload, ContentForgotten):
        sets.append("asked = ''")
    if isinstance(payload, CallClosed):
        sets += reservations.settled(payload)
    db.execute(f"UPDATE sessions SET {', '.join(sets)} WHERE session = ?", [*values, event.session])  # noqa: S608 - fixed names


def _asked(task: str) -> str:
    """Return the beginning of a task's prompt; nothing of a task that cannot be read."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return well_formed(str(json.loads(task)["prompt"])[:MAX_ASKED])
    return ""


def _begin(db: Connection, line: Mapping[str, Any]) -> None:
    """Insert a session's line, its labels before it: sums by label are made where a line appears."""
    for tag in filter(None, dict.fromkeys(line["tags"].split(","))):
        db.execute("INSERT OR IGNORE INTO session_tags VALUES (?, ?)", (line["session"], tag))
    insert(db, "sessions", line)


def _where(db: Connection, log: Connection, session: str) -> tuple[str, int]:
    """Return a session's state, and its number of runs of the tests; of a fork that has none of its own, its parent's."""
    row = one(db, "SELECT state, iteration, parent, forked_at FROM sessions WHERE session = ?", session)
    if row is None:
        return "", 0
    state, iteration, parent, forked_at = row
    return (_point(log, parent, forked_at)[0] if state == _FORKED else state), iteration


def _point(log: Connection, session: str, seq: int) -> tuple[str, int]:
    """Return the state and the number of runs of the tests at a point of a session, by its events."""
    state = ""
    for payload in _backwards(log, session, seq, _MOVES):
        if isinstance(payload, Transition):
            state = state or payload.target
            if (iteration := iteration_after(payload, -1)) >= 0:
                return state, iteration
    return state, 0


def _server_at(log: Connection, session: str, seq: int) -> str:
    """Return the address of a session's model at a point, by its events."""
    for payload in _backwards(log, session, seq, _SERVERS):
        if isinstance(payload, SessionStarted | SessionForked | ConfigChanged) and payload.server is not None:
            return payload.server
    return ""


_MOVES = ("SessionStarted", "SessionForked", "Decided", "Suspended", "Succeeded", "Failed", "Resumed")
_SERVERS = ("SessionStarted", "SessionForked", "ConfigChanged")


def _backwards(log: Connection, session: str, seq: int, kinds: Sequence[str]) -> Iterator[Payload]:
    """Yield the events of these kinds before a point, the last first, and then those of the session's parents."""
    marks = ", ".join("?" for _ in kinds)
    query = (
        "SELECT kind, version, payload, seq FROM events"  # noqa: S608 - only marks
        f" WHERE session = ? AND seq <= ? AND kind IN ({marks}) ORDER BY seq DESC"
    )
    seen = set[str]()
    with suppress(CorruptTape):  # a parent that cannot be read says nothing
        while session not in seen:
            seen.add(session)
            forked = None
            for row in log.execute(query, (session, seq, *kinds)):
                payload = decode_payload(*row)
                yield payload
                if isinstance(payload, SessionForked):
                    forked = payload
                    break
            if forked is None:
                return
            session, seq = forked.parent, forked.seq


_FORKED = "forked"
"""What stands as a fork's state until it has one of its own."""


def _line(event: Event) -> dict[str, Any]:
    """Return the line that a session's first event begins; what the event does not say is zero or empty."""
    return {
        "session": event.session,
        "reason": "",
        "iteration": 0,
        "events": event.seq + 1,
        "input_tokens": 0,
        "output_tokens": 0,
        "started_at": event.at,
        "updated_at": event.at,
        "head": event.hash,
    }


def _project_fork(db: Connection, event: Event, payload: SessionForked, log: Connection) -> None:
    """Begin a fork's line with its parent's; tokens are its own, and its next transition sets its state."""
    query = "SELECT task, model, tags, lineage, prompts, asked FROM sessions WHERE session = ?"
    parent = one(db, query, payload.parent) or ("", "", "", payload.parent, "", "")
    task, model, tags, lineage, prompts, asked = parent
    server = _server_at(log, payload.parent, payload.seq) if payload.server is None else payload.server
    labels = {
        "task": task,
        "model": payload.model or model,
        "server": server,
        "tags": ",".join(filter(None, (tags, *payload.tags))),
        "lineage": lineage,
        "prompts": pack_digits(payload.pack) if payload.pack else prompts,
        "asked": asked,
    }
    iteration = _point(log, payload.parent, payload.seq)[1]
    fork = {"state": _FORKED, "parent": payload.parent, "forked_at": payload.seq, "iteration": iteration}
    _begin(db, {**_line(event), **labels, **fork})
