"""Whether a database's schema is ours: a file from elsewhere may hold views, triggers and columns that act in our name.

What is under our names, or attached to our tables, must be just what the migrations make. Objects beside that are a
user's own, and are never asked for anything.
"""

import sqlite3
from sqlite3 import Connection
from typing import NamedTuple

from codetape.domain.canonical import canonical, sha256

DIGEST = "6bb38da376b6efec5add86f7764597713d414060acbf38c6d9e138f7ed03245d"
"""Of the newest schema, so that an unchanged one is known without the code that migrates; a test keeps it true."""
_STEPS = "_sqlite_migrations"  # sqlite-utils' own record, in the form of whichever version made it
_SHOWN = 60


class SchemaObject(NamedTuple):
    """A row of the schema table. Names are in lower case: SQLite tells none apart by that."""

    kind: str
    name: str
    table: str
    sql: str

    @property
    def words(self) -> str:
        """What it is, for a message."""
        return f"the {self.kind[:_SHOWN]} {self.name[:_SHOWN]}"


class Difference(NamedTuple):
    """One way in which a schema is not ours. ``tables`` says that it touches what is read."""

    message: str
    tables: bool


def digest(db: Connection) -> str:
    """Return the hash of a schema."""
    return sha256(canonical(sorted(_objects(db))))


def differences(db: Connection, version: int) -> tuple[Difference, ...]:
    """Return how a schema differs from ours of that version: what is missing, other, or attached to ours."""
    if digest(db) == DIGEST:
        return ()
    expected = {(o.kind, o.name): o for o in _made(version)}
    names = {o.name for o in expected.values()} | {_STEPS}
    tables = {o.name for o in expected.values() if o.kind == "table"}
    found = {(o.kind, o.name): o for o in _objects(db)}
    wrong = [Difference(f"{o.words} is missing", o.kind == "table") for key, o in expected.items() if key not in found]
    for key, one in found.items():
        ours = expected.get(key)
        if ours is None and (one.name in names or one.table in names):
            read = one.name in tables or one.kind == "index"  # the planner may take an index for a table
            wrong.append(Difference(f"{one.words} is not codetape's", read))
        elif ours is not None and ours != one:
            wrong.append(Difference(f"{one.words} is another one than codetape's", one.kind == "table"))
    return tuple(wrong)


def _made(version: int) -> list[SchemaObject]:
    """Return the schema that the first steps make, in memory."""
    import sqlite_utils

    from codetape_adapters.stores.sqlite.migrations import MIGRATIONS

    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database = sqlite_utils.Database(connection)
        steps = [step.name for step in MIGRATIONS.pending(database)]
        MIGRATIONS.apply(database, stop_before=steps[version : version + 1] or None)
        return _objects(connection)
    finally:
        connection.close()


def _objects(db: Connection) -> list[SchemaObject]:
    rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    objects = (
        SchemaObject(str(k), str(n).lower(), str(t).lower(), " ".join(str(s or "").split())) for k, n, t, s in rows
    )
    return [o for o in objects if not _of_sqlite(o)]


def _of_sqlite(one: SchemaObject) -> bool:
    """Whether SQLite or sqlite-utils made it by themselves: an index of a UNIQUE column, the planner's figures."""
    own = one.kind == "table" and one.name in ("sqlite_stat1", "sqlite_stat4", "sqlite_sequence", _STEPS)
    return own or (one.kind == "index" and not one.sql)
