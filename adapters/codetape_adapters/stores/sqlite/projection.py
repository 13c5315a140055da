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
from codetape.eventlog.call_history import after, begun, iteration_after, pack_digits
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    Answered,
    BuildFinished,
    BuildRefused,
    CallClosed,
    CallLost,
    CallRefused,
    CodeReverted,
    ConfigChanged,
    ContentForgotten,
    Decided,
    GaveUp,
    Payload,
    Requested,
    SessionForked,
    SessionStarted,
    Succeeded,
    TestsFinished,
    Transition,
)
from codetape.eventlog.upcasters import decode_payload
from codetape.ports import MAX_ASKED
from codetape_adapters.stores.sqlite.kept_tables import DatabaseTables, KeptTables
from codetape_adapters.stores.sqlite.reservations import MOST


def project(db: Connection, event: Event, texts: Mapping[str, str]) -> None:
    """Bring what a database keeps up to date with one more event; ``texts`` has the task of a session that starts."""
    add_event(DatabaseTables(db), db, event, texts)


def add_event(tables: KeptTables, log: Connection, event: Event, texts: Mapping[str, str]) -> None:
    """Bring tables up to date with one more event; ``log`` has the events that a fork continues from."""
    payload = event.payload
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
        _begin(tables, {**_line(event), **labels, "state": payload.target})
        return
    if isinstance(payload, SessionForked):
        _add_fork(tables, log, event, payload)
        return
    if isinstance(payload, Requested):
        if payload.effect == "ask":
            call = begun(event.session, event.seq, event.at, payload, *_where(tables, log, event.session))
            tables.begin_call(call)
    else:
        _add_rows(tables, event)
    tables.change_line(event.session, *_changes(event), payload if isinstance(payload, CallClosed) else None)


def _changes(event: Event) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what an event sets of its session's line, and what it adds to it."""
    payload = event.payload
    sets: dict[str, Any] = {"events": event.seq + 1, "updated_at": event.at, "head": event.hash}
    adds: dict[str, int] = {}
    if isinstance(payload, Transition):
        sets["state"] = payload.target
        sets["reason"] = payload.reason if isinstance(payload, Decided) else ""
        sets["confidence"] = payload.confidence if isinstance(payload, Succeeded) else ""
        iteration = iteration_after(payload, -1)
        if iteration >= 0:
            sets["iteration"] = min(iteration, MOST)
    elif isinstance(payload, Answered):
        adds = {"input_tokens": payload.usage.total_input, "output_tokens": payload.usage.total_output}
        if payload.matched_by:
            adds["reused_tokens"] = payload.usage.total_input + payload.usage.total_output
        else:
            adds["cost"] = pico(payload.price.cost) if payload.price else 0
            adds["unpriced"] = int(payload.price is None)
    elif isinstance(payload, ConfigChanged) and payload.server is not None:
        sets["server"] = payload.server
    elif isinstance(payload, ContentForgotten):
        sets["asked"] = ""
    return sets, adds


def _add_rows(tables: KeptTables, event: Event) -> None:
    """Bring the tables of calls, test runs, decisions and builds up to date with one event."""
    payload, key = event.payload, {"session": event.session, "seq": event.seq, "at": event.at}
    kind = type(payload).__name__  # as it is called today, whatever an older version stored
    if isinstance(payload, Decided):
        fields = {name: getattr(payload, name) for name in ("about", "usable", "reason", "source", "target")}
        confidence = payload.confidence if isinstance(payload, Succeeded) else None
        tables.insert("decision_rows", {**key, "kind": kind, **fields, "confidence": confidence})
        _go_on(tables, event.session, payload)
    elif isinstance(payload, Answered | CallRefused | CallLost | GaveUp):
        _go_on(tables, event.session, payload)
    elif isinstance(payload, TestsFinished):
        names = ("purpose", "exit", "passed", "failed", "errors", "skipped", "duration_ms")
        tables.insert("test_run_rows", {**key, **{name: getattr(payload, name) for name in names}})
    elif isinstance(payload, BuildFinished):
        tables.insert("build_rows", {**key, "outcome": kind, "image": payload.image, "reason": ""})
    elif isinstance(payload, BuildRefused):
        tables.insert("build_rows", {**key, "outcome": kind, "image": "", "reason": payload.reason})
    elif isinstance(payload, CodeReverted):
        tables.revert(event.session)


def _go_on(tables: KeptTables, session: str, payload: Payload) -> None:
    """Bring a session's last call up to date with one more event."""
    call = tables.last_call(session)
    if call is None:
        return
    changed = after(call, payload)
    if changed is call:
        return
    model, reason = (payload.model, payload.finish_reason) if isinstance(payload, Answered) else (None, None)
    tables.change_last_call(changed, model, reason)


def _asked(task: str) -> str:
    """Return the beginning of a task's prompt; nothing of a task that cannot be read."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        return well_formed(str(json.loads(task)["prompt"])[:MAX_ASKED])
    return ""


def _begin(tables: KeptTables, line: Mapping[str, Any]) -> None:
    """Insert a session's line, its labels before it: sums by label are made where a line appears."""
    for tag in filter(None, dict.fromkeys(line["tags"].split(","))):
        tables.insert("session_tags", {"session": line["session"], "tag": tag})
    tables.insert("sessions", line)


def _where(tables: KeptTables, log: Connection, session: str) -> tuple[str, int]:
    """Return a session's state, and its number of runs of the tests; of a fork that has none of its own, its parent's."""
    line = tables.line(session)
    if line is None:
        return "", 0
    state = _point(log, line["parent"], line["forked_at"])[0] if line["state"] == _FORKED else line["state"]
    return state, line["iteration"]


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


def _add_fork(tables: KeptTables, log: Connection, event: Event, payload: SessionForked) -> None:
    """Begin a fork's line with its parent's; tokens are its own, and its next transition sets its state."""
    parent = tables.line(payload.parent) or {**_OF_NOBODY, "lineage": payload.parent}
    server = _server_at(log, payload.parent, payload.seq) if payload.server is None else payload.server
    labels = {
        "task": parent["task"],
        "model": payload.model or parent["model"],
        "server": server,
        "tags": ",".join(filter(None, (parent["tags"], *payload.tags))),
        "lineage": parent["lineage"],
        "prompts": pack_digits(payload.pack) if payload.pack else parent["prompts"],
        "asked": parent["asked"],
    }
    iteration = _point(log, payload.parent, payload.seq)[1]
    fork = {"state": _FORKED, "parent": payload.parent, "forked_at": payload.seq, "iteration": iteration}
    _begin(tables, {**_line(event), **labels, **fork})


_OF_NOBODY = dict.fromkeys(("task", "model", "tags", "prompts", "asked"), "")
"""What a fork inherits from a parent that is not there."""
