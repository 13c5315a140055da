"""What a database has: sessions by name, stored events of calls, and the images that sessions need."""

from collections.abc import Collection, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from codetape.errors import CorruptTape, SessionNotFound
from codetape.eventlog.kept_call import CallLabels, KeptCall
from codetape.eventlog.stored_event import SESSION_ID, TIME, StoredEvent
from codetape.ports import CALL_EVENT_KINDS
from codetape_adapters.stores.sqlite.connection import one, translated
from codetape_adapters.stores.sqlite.recovery import session_ids

_ROW = "e.session, e.seq, e.kind, e.version, e.at, e.payload, e.prev_hash, e.hash"


def find(db: Connection, path: Path, name: str) -> str:
    """Return the id that a unique prefix, or ``last``, names. Raises SessionNotFound."""
    with translated(path):
        if name and one(db, "SELECT 1 FROM sessions WHERE session = ?", name):
            return name
        if name == "last":  # by arrival: the times of an imported tape are those of its maker's clock
            query = "SELECT session FROM sessions ORDER BY rowid DESC LIMIT 1"
            matches = [row[0] for row in db.execute(query)]
        else:
            query = "SELECT session FROM sessions WHERE substr(session, 1, ?) = ? ORDER BY session <> ? LIMIT 3"
            matches = [row[0] for row in db.execute(query, (len(name), name, name))]
            matches = matches[:1] if name in matches[:1] else matches
    if len(matches) == 1 and name:
        return str(matches[0])
    if name and name in session_ids(db, path):  # a damaged list may not name what the log has
        return name
    if not name:
        raise SessionNotFound("A session must be named.", remedy="`codetape list` shows them; `last` is the last one.")
    problem = "names more than one session" if matches else "names no session"
    raise SessionNotFound(
        f"{name!r} {problem} in {path}.", remedy="`codetape list` shows them; with --task NAME those of a task."
    )


def call_events(db: Connection, path: Path, sessions: Collection[str] | None = None) -> Iterator[StoredEvent]:
    """Yield the events of calls, parents first: of all sessions, or of these and their ancestors."""
    kinds = ",".join(f"'{kind}'" for kind in CALL_EVENT_KINDS)
    of_model = "EXISTS (SELECT 1 FROM call_rows c WHERE c.session = e.session AND c.seq = e.seq)"
    query = (
        f"SELECT {_ROW} FROM sessions s JOIN events e USING (session) WHERE e.kind IN ({kinds})"  # noqa: S608 - fixed names
        f" AND (e.kind <> 'Requested' OR {of_model})"
    )
    with translated(path):
        names = _with_parents(db, sessions) if sessions is not None else None
        if names is not None and len(names) <= 100:
            marks = ",".join("?" * len(names))
            rows = db.execute(f"{query} AND s.session IN ({marks}) ORDER BY s.rowid, e.seq", sorted(names))
        else:
            rows = db.execute(f"{query} ORDER BY s.rowid, e.seq")
        yield from (StoredEvent.of(row) for row in rows if names is None or row[0] in names)


def kept_calls(
    db: Connection, path: Path, sessions: Collection[str] | None = None
) -> Iterator[tuple[CallLabels, list[KeptCall]]]:
    """Yield the calls of these sessions, or of all, a session at a time, as they are kept. Raises CorruptTape."""
    labels = f"SELECT {', '.join(CallLabels._fields)} FROM sessions s"  # noqa: S608 - fixed names
    calls = ", ".join(f"c.{name}" for name in KeptCall._fields)
    query = f"SELECT {calls} FROM sessions s JOIN call_rows c USING (session)"  # noqa: S608 - fixed names
    few, names = "", list[str]()
    if sessions is not None and len(sessions) <= 100:
        few, names = f" WHERE s.session IN ({','.join('?' * len(sessions))})", sorted(sessions)
    with translated(path):
        # beside the calls, and not with each of them: of ten thousand sessions these are a tenth of the rows
        lines = {values[0]: values for values in db.execute(labels + few, names)}
        rows = db.execute(f"{query}{few} ORDER BY s.rowid, c.seq", names)
        for session, group in groupby(rows, key=itemgetter(0)):
            if session in lines and (sessions is None or session in sessions):  # or it has begun since
                yield _labels(lines[session]), [_call(session, values) for values in group]


def _labels(values: tuple[Any, ...]) -> CallLabels:
    if any(type(value) is not str for value in values) or not SESSION_ID.fullmatch(values[0]):
        raise _not_ours(str(values[0]))
    session, task, tags, lineage, model, prompts = values
    return CallLabels(session, task, tuple(filter(None, tags.split(","))), lineage, model, prompts)


def _call(session: str, values: tuple[Any, ...]) -> KeptCall:
    """Return a kept call, if each value is of its column's type and range: a column of SQLite's takes any."""
    if tuple(map(type, values)) not in _CALL_TYPES:
        raise _not_ours(session)
    call = KeptCall._make(values)
    if min(_figures(values)) < 0 or (call.usable or 0) < 0 or (call.cost or 0) < 0:
        raise _not_ours(session)
    if not (TIME.fullmatch(call.at) and call.purpose.isidentifier()):
        raise _not_ours(session)
    return call


def _not_ours(session: str) -> CorruptTape:
    return CorruptTape(
        f"The calls kept of session {session} have a value that no call has.",
        remedy="`codetape verify --all --rebuild` makes them again from its events.",
    )


_NONE = type(None)
_figures = itemgetter(*(at for at, hint in enumerate(KeptCall.__annotations__.values()) if hint is int))
_CALL_TYPES = frozenset(
    tuple(
        {"usable": usable, "cost": cost}.get(name, str if hint is str else int)
        for name, hint in KeptCall.__annotations__.items()
    )
    for usable in (int, _NONE)
    for cost in (int, _NONE)
)


def _with_parents(db: Connection, sessions: Collection[str]) -> set[str]:
    parents = dict(db.execute("SELECT session, parent FROM sessions WHERE parent <> ''").fetchall())
    family, queue = set[str](), list(sessions)
    while queue:
        if (name := queue.pop()) not in family:
            family.add(name)
            queue += [parents[name]] if name in parents else []
    return family


def images_needed(db: Connection, path: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the sessions, with their states, that last built each image."""
    query = (
        "SELECT b.image, b.session, s.state FROM build_rows b JOIN sessions s USING (session) WHERE b.outcome = "
        "'BuildFinished'"
        " AND b.seq = (SELECT max(seq) FROM build_rows l WHERE l.session = b.session AND l.outcome = 'BuildFinished')"
    )
    sessions_by_image: dict[str, list[tuple[str, str]]] = {}
    with translated(path):
        for image, session, state in db.execute(query):
            sessions_by_image.setdefault(image, []).append((session, state))
    return sessions_by_image
