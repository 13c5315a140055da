"""Budgets: what a call may come to is reserved before it is made, in the transaction that announces it.

Money is counted in whole picodollars (10^-12 of a dollar): exact, and summed by SQLite as it is.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from codetape.errors import BudgetSpent, UsageError

PICO = Decimal(10) ** 12
MOST = Decimal(1_000_000)  # dollars: more is a slip


@dataclass(frozen=True)
class Limit:
    """What may be spent in a scope: ``session``, ``tag:NAME`` or ``database``. ``cost`` is in picodollars."""

    scope: str
    tokens: int | None = None
    cost: int | None = None


@dataclass(frozen=True)
class Reservation:
    """What a call may come to: its estimated input and its maximum output. ``cost`` is None for a model without a price."""

    tokens: int
    cost: int | None
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True)
class Spent:
    """What a scope has spent, reservations of open and lost calls among it."""

    tokens: int = 0
    cost: int = 0


def check(limit: Limit, spent: Spent, wanted: Reservation) -> None:
    """Raise BudgetSpent where a call does not fit into what a limit leaves, UsageError for a call without a price."""
    name = {"session": "the session", "database": "the database"}.get(limit.scope, limit.scope.replace(":", " ", 1))
    if limit.tokens is not None and spent.tokens + wanted.tokens > limit.tokens:
        raise BudgetSpent(
            f"The next call does not fit into the budget of {name}, {limit.tokens:,} tokens: {spent.tokens:,} are used or"
            f" reserved, and it may take {wanted.tokens:,}."
        )
    if limit.cost is None:
        return
    if wanted.cost is None:
        raise BudgetSpent(f"The budget of {name} is in money, and the model has no price: nothing can be reserved.",
                          remedy="Name its price in [tool.codetape.prices], or give --max-tokens.")  # fmt: skip
    if spent.cost + wanted.cost > limit.cost:
        raise BudgetSpent(
            f"The next call does not fit into the budget of {name}, ${dollars(limit.cost)}: ${dollars(spent.cost)} are used or"
            f" reserved, and it may take ${dollars(wanted.cost)}."
        )


def pico(text: str) -> int:
    """Return dollars as picodollars. Raises UsageError for what is no amount."""
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= MOST:
        raise UsageError(f"{text[:40]!r} is no amount of dollars.", remedy="Give one such as 0.50.")
    return int((amount * PICO).to_integral_value())


def money(amount: int, unpriced: int) -> str:
    """Return a sum for a reader: what has no price is said, and never shown as nothing."""
    words = f"{unpriced} {'call' if unpriced == 1 else 'calls'} without a price"
    return (
        f"${dollars(amount)}" + (f", {words}" if unpriced else "") if amount or not unpriced else f"unpriced: {words}"
    )


def dollars(amount: int) -> str:
    """Return picodollars as a decimal text without needless zeros, two digits at least after the point."""
    whole, part = divmod(abs(amount), 10**12)
    digits = f"{part:012}".rstrip("0")
    return f"{'-' if amount < 0 else ''}{whole}.{digits:0<2}"
