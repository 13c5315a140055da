"""Budgets in the database: what is spent and reserved is checked inside the transaction that announces a call."""

from sqlite3 import Connection

from codetape.domain.budget import Limit, Reservation, Spent, check
from codetape.eventlog.events import CallClosed, unanswered

_SUMS = (
    "SELECT coalesce(sum(input_tokens + output_tokens - reused_tokens + open_tokens + reserved_tokens), 0),"
    " coalesce(sum(cost + open_cost + reserved_cost), 0) FROM sessions"
)


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
    kind, _, tag = limit.scope.partition(":")
    if kind == "session":
        row = db.execute(f"{_SUMS} WHERE session = ?", (session,)).fetchone()
    elif kind == "tag":
        row = db.execute(f"{_SUMS} WHERE instr(',' || tags || ',', ?)", (f",{tag},",)).fetchone()
    else:
        row = db.execute(_SUMS).fetchone()
    return Spent(*row)


def settled(payload: CallClosed) -> list[str]:
    """Return what a call's end sets: its reservation is released, but for each try that may be billed unanswered."""
    times = unanswered(payload)
    booked = [f"reserved_{what} = reserved_{what} + {times} * open_{what}" for what in ("tokens", "cost") if times]
    return [*booked, "open_tokens = 0", "open_cost = 0"]
