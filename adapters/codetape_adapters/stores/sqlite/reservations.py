"""Budgets in the database: what is spent and reserved is checked inside the transaction that announces a call."""

from sqlite3 import Connection

from codetape.domain.budget import Limit, Reservation, Spent, check
from codetape.eventlog.events import CallClosed, unanswered

MOST = 2**63 - 1
"""The largest integer of a column."""
_TOKENS = "{0}input_tokens + {0}output_tokens - {0}reused_tokens + {0}open_tokens + {0}reserved_tokens"
_COST = "{0}cost + {0}open_cost + {0}reserved_cost"
_COLUMNS = "input_tokens, output_tokens, reused_tokens, open_tokens, reserved_tokens, cost, open_cost, reserved_cost"
_SCOPES = "SELECT 'database' UNION ALL SELECT 'tag:' || tag FROM session_tags WHERE session = NEW.session"
_ADD = (
    "UPDATE spent_rows SET tokens = tokens + {tokens}, cost = cost + {cost} WHERE scope IN (" + _SCOPES + ")"
).format
SUM_TABLES = (
    "CREATE TABLE session_tags (session TEXT NOT NULL, tag TEXT NOT NULL, UNIQUE (session, tag))",
    "CREATE TABLE spent_rows (scope TEXT NOT NULL UNIQUE, tokens INTEGER NOT NULL, cost INTEGER NOT NULL)",
    "CREATE TRIGGER sessions_spent AFTER INSERT ON sessions BEGIN"
    f" INSERT OR IGNORE INTO spent_rows SELECT *, 0, 0 FROM ({_SCOPES});"
    f" {_ADD(tokens=_TOKENS.format('NEW.'), cost=_COST.format('NEW.'))}; END",
    f"CREATE TRIGGER sessions_spend AFTER UPDATE OF {_COLUMNS} ON sessions BEGIN"
    f" {_ADD(tokens=_TOKENS.format('NEW.') + ' - (' + _TOKENS.format('OLD.') + ')', cost=_COST.format('NEW.') + ' - (' + _COST.format('OLD.') + ')')};"
    " END",
)
"""What the database and each label have spent and reserved, kept by every change of a session's line: a call's budget is
checked in constant time, inside the lock that every writer waits for."""
_SESSION = f"SELECT {_TOKENS.format('')}, {_COST.format('')} FROM sessions WHERE session = ?"


def sums(db: Connection) -> dict[str, tuple[int, int]]:
    """Return what each scope has spent and reserved, in tokens and picodollars, by the lines of the sessions."""
    found: dict[str, tuple[int, int]] = {"database": (0, 0)}
    tags: dict[str, list[str]] = {}
    for session, tag in db.execute("SELECT session, tag FROM session_tags"):
        tags.setdefault(session, []).append(f"tag:{tag}")
    for session, tokens, cost in db.execute(f"SELECT session, {_TOKENS.format('')}, {_COST.format('')} FROM sessions"):
        for scope in ("database", *tags.get(session, ())):
            before = found.get(scope, (0, 0))
            found[scope] = (min(before[0] + int(tokens), MOST), min(before[1] + int(cost), MOST))
    return found


def reserve(db: Connection, session: str, wanted: Reservation) -> None:
    """Reserve what a call may come to. Raises BudgetSpent where it does not fit: the transaction then rolls back."""
    for limit in wanted.limits:
        check(limit, spent(db, limit, session), wanted)
    db.execute(
        "UPDATE sessions SET open_tokens = ?, open_cost = ? WHERE session = ?",
        (wanted.tokens, wanted.cost or 0, session),
    )


def spent(db: Connection, limit: Limit, session: str) -> Spent:
    """Return what a limit's scope has spent and reserved."""
    if limit.scope == "session":
        row = db.execute(_SESSION, (session,)).fetchone()
    else:
        row = db.execute("SELECT tokens, cost FROM spent_rows WHERE scope = ?", (limit.scope,)).fetchone()
    return Spent(*row) if row else Spent()


def settled(payload: CallClosed) -> tuple[str, ...]:
    """Return what a call's end sets of a session's line: its reservation is released, but for each try that may be billed
    unanswered."""
    times = unanswered(payload)
    booked = [f"reserved_{what} = reserved_{what} + {times} * open_{what}" for what in ("tokens", "cost") if times]
    return *booked, "open_tokens = 0", "open_cost = 0"
