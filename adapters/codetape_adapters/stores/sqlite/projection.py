"""The list of sessions: a line for each, brought up to date with every event, and rebuildable from the events."""

from codetape.domain.money import pico
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import Answered, CallClosed, SessionForked, SessionStarted, Transition
from codetape_adapters.stores.sqlite import reservations
from codetape_adapters.stores.sqlite.connection import one
from codetape_adapters.stores.sqlite.database import Database


def project(db: Database, event: Event) -> None:
    """Bring a session's line up to date with one more event, in the event's own transaction."""
    payload = event.payload
    if isinstance(payload, SessionStarted):
        db.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, '', 0, 1, 0, 0, ?, ?, ?, '', 0, 0, 0, 0, 0, 0, 0, 0)",
            (
                event.session,
                payload.task_id,
                payload.model,
                ",".join(payload.tags),
                payload.target,
                event.at,
                event.at,
                event.hash,
            ),
        )
        return
    if isinstance(payload, SessionForked):
        _project_fork(db, event, payload)
        return
    sets, values = ["events = ?", "updated_at = ?", "head = ?"], [event.seq + 1, event.at, event.hash]
    if isinstance(payload, Transition):
        sets += ["state = ?", "reason = ?"]
        values += [payload.target, getattr(payload, "reason", "")]
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
    if isinstance(payload, CallClosed):
        sets += reservations.settled(payload)
    db.conn.execute(f"UPDATE sessions SET {', '.join(sets)} WHERE session = ?", [*values, event.session])  # noqa: S608 - fixed names


def _project_fork(db: Database, event: Event, payload: SessionForked) -> None:
    """Begin a fork's line with its parent's; tokens are its own, and where it stands is said by its next transition."""
    columns = "task, model, tags"
    found = one(db, f"SELECT {columns} FROM sessions WHERE session = ?", payload.parent) or ("", "", "")  # noqa: S608 - fixed names
    db.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, 'forked', '', 0, ?, 0, 0, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0)",
        (event.session, found[0], payload.model or found[1], ",".join(filter(None, (found[2], *payload.tags))), event.seq + 1, event.at, event.at, event.hash,
         payload.parent, payload.seq),
    )  # fmt: skip
