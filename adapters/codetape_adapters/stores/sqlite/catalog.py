"""What a database has: sessions by name, stored events of calls, and the images that sessions need."""

from collections.abc import Collection, Iterator
from pathlib import Path
from sqlite3 import Connection

from codetape.errors import SessionNotFound
from codetape.eventlog.envelope import StoredEvent
from codetape.ports import CALL_EVENT_KINDS
from codetape_adapters.stores.sqlite.connection import one, translated
from codetape_adapters.stores.sqlite.recovery import session_ids

_ROW = "e.session, e.seq, e.kind, e.version, e.at, e.payload, e.prev_hash, e.hash"


def find(db: Connection, path: Path, name: str) -> str:
    """Return the id that a unique prefix, or ``last``, names. Raises SessionNotFound."""
    with translated(path):
        if name and one(db, "SELECT 1 FROM sessions WHERE session = ?", name):
            return name
        if name == "last":  # the last that came here: a tape's clock is its maker's
            query = "SELECT session FROM sessions ORDER BY rowid DESC LIMIT 1"
            found = [row[0] for row in db.execute(query)]
        else:
            query = "SELECT session FROM sessions WHERE substr(session, 1, ?) = ? ORDER BY session <> ? LIMIT 3"
            found = [row[0] for row in db.execute(query, (len(name), name, name))]
            found = found[:1] if name in found[:1] else found
    if len(found) == 1 and name:
        return str(found[0])
    if name and name in session_ids(db, path):  # a damaged list may not name what the log has
        return name
    if not name:
        raise SessionNotFound("A session must be named.", remedy="`codetape list` shows them; `last` is the last one.")
    what = "names more than one session" if found else "names no session"
    raise SessionNotFound(f"{name!r} {what} in {path}.", remedy="`codetape list` shows them.")


def call_events(db: Connection, path: Path, sessions: Collection[str] | None = None) -> Iterator[StoredEvent]:
    """Yield what the log holds of calls, session by session, parents first; of these sessions, and what they come
    from."""
    kinds = ",".join(f"'{kind}'" for kind in CALL_EVENT_KINDS)
    of_model = "EXISTS (SELECT 1 FROM call_rows c WHERE c.session = e.session AND c.seq = e.seq)"
    query = (
        f"SELECT {_ROW} FROM sessions s JOIN events e USING (session) WHERE e.kind IN ({kinds})"  # noqa: S608 - fixed names
        f" AND (e.kind <> 'Requested' OR {of_model})"
    )
    with translated(path):
        wanted = _with_parents(db, sessions) if sessions is not None else None
        if wanted is not None and len(wanted) <= 100:
            marks = ",".join("?" * len(wanted))
            found = db.execute(f"{query} AND s.session IN ({marks}) ORDER BY s.rowid, e.seq", sorted(wanted))
        else:
            found = db.execute(f"{query} ORDER BY s.rowid, e.seq")
        yield from (StoredEvent.of(row) for row in found if wanted is None or row[0] in wanted)


def _with_parents(db: Connection, sessions: Collection[str]) -> set[str]:
    parents = dict(db.execute("SELECT session, parent FROM sessions WHERE parent <> ''").fetchall())
    wanted, left = set[str](), list(sessions)
    while left:
        if (name := left.pop()) not in wanted:
            wanted.add(name)
            left += [parents[name]] if name in parents else []
    return wanted


def images_needed(db: Connection, path: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the sessions, with their states, that last built each image."""
    query = (
        "SELECT b.image, b.session, s.state FROM build_rows b JOIN sessions s USING (session) WHERE b.outcome = "
        "'BuildFinished'"
        " AND b.seq = (SELECT max(seq) FROM build_rows l WHERE l.session = b.session AND l.outcome = 'BuildFinished')"
    )
    found: dict[str, list[tuple[str, str]]] = {}
    with translated(path):
        for image, session, state in db.execute(query):
            found.setdefault(image, []).append((session, state))
    return found
