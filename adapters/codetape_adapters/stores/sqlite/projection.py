"""The list of sessions: a line for each, brought up to date with every event, and rebuildable from the events."""

from sqlite3 import Connection
from typing import Any

from codetape.domain.money import pico
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import Answered, CallClosed, ConfigChanged, SessionForked, SessionStarted, Transition
from codetape_adapters.stores.sqlite import reservations
from codetape_adapters.stores.sqlite.connection import one
from codetape_adapters.stores.sqlite.read_models import add, insert


def project(db: Connection, event: Event) -> None:
    """Bring a session's line and the read models up to date with one more event, in the event's own transaction."""
    payload = event.payload
    add(db, event.session, event.seq, event.at, payload)
    if isinstance(payload, SessionStarted):
        insert(
            db,
            "sessions",
            {
                **_line(event),
                "task": payload.task_id,
                "model": payload.model,
                "server": payload.server,
                "tags": ",".join(payload.tags),
                "state": payload.target,
            },
        )
        return
    if isinstance(payload, SessionForked):
        _project_fork(db, event, payload)
        return
    sets, values = ["events = ?", "updated_at = ?", "head = ?"], [event.seq + 1, event.at, event.hash]
    if isinstance(payload, Transition):
        sets += ["state = ?", "reason = ?", "confidence = ?"]
        values += [payload.target, getattr(payload, "reason", ""), getattr(payload, "confidence", "")]
        iteration = getattr(payload, "ledger", {}).get("iteration")
        if isinstance(iteration, int):
            sets.append("iteration = ?")
            values.append(iteration)
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
    if isinstance(payload, CallClosed):
        sets += reservations.settled(payload)
    db.execute(f"UPDATE sessions SET {', '.join(sets)} WHERE session = ?", [*values, event.session])  # noqa: S608 - fixed names


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


def _project_fork(db: Connection, event: Event, payload: SessionForked) -> None:
    """Begin a fork's line with its parent's; tokens are its own, and its next transition sets its state."""
    parent = one(db, "SELECT task, model, tags, server FROM sessions WHERE session = ?", payload.parent)
    task, model, tags, server = parent or ("", "", "", "")
    insert(
        db,
        "sessions",
        {
            **_line(event),
            "task": task,
            "model": payload.model or model,
            "server": server if payload.server is None else payload.server,
            "tags": ",".join(filter(None, (tags, *payload.tags))),
            "state": "forked",
            "parent": payload.parent,
            "forked_at": payload.seq,
        },
    )
