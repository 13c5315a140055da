"""What the stores use of sqlite-utils' Database. For reading, a connection alone is enough, and loads in no time."""

import sqlite3
from typing import Any, Protocol


class Database(Protocol):
    """A connection, and how a statement is run on it."""

    conn: sqlite3.Connection

    def execute(self, sql: str, parameters: Any = ...) -> sqlite3.Cursor:
        """Run one statement."""


class ReadingDatabase:
    """A database that is only read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.conn = connection

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self.conn.execute(sql, parameters)


def writing(connection: sqlite3.Connection) -> Database:
    """Return a database that is written to."""
    import sqlite_utils

    found: Database = sqlite_utils.Database(connection)
    return found
