"""Budgets: a limit, what a call may come to, and whether it fits."""

from dataclasses import dataclass

from codetape.domain.money import dollars
from codetape.errors import BudgetSpent


@dataclass(frozen=True)
class Limit:
    """What may be spent in a scope: ``session``, ``tag:NAME`` or ``database``. ``cost`` is in picodollars."""

    scope: str
    tokens: int | None = None
    cost: int | None = None


@dataclass(frozen=True)
class Reservation:
    """What a call may come to: its estimated input and its maximum output. ``cost`` is None for a model without a
    price."""

    tokens: int
    cost: int | None
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True)
class Spent:
    """What a scope has spent, with the reservations of open and lost calls."""

    tokens: int = 0
    cost: int = 0


def check(limit: Limit, spent: Spent, wanted: Reservation) -> None:
    """Raise BudgetSpent where a call does not fit into what a limit leaves, UsageError for a call without a price."""
    name = {"session": "the session", "database": "the database"}.get(limit.scope, limit.scope.replace(":", " ", 1))
    if limit.tokens is not None and spent.tokens + wanted.tokens > limit.tokens:
        raise BudgetSpent(
            f"The next call does not fit into the budget of {name}, {limit.tokens:,} tokens: {spent.tokens:,} are "
            "used or"
            f" reserved, and it may take {wanted.tokens:,}."
        )
    if limit.cost is None:
        return
    if wanted.cost is None:
        raise BudgetSpent(
            f"The budget of {name} is in money, and the model has no price: nothing can be reserved.",
            remedy=(
                "Say whose price it has with --price-as MODEL, name its price in [tool.codetape.prices] of pyproject.toml "
                "or [prices] of codetape.toml, or give --max-tokens."
            ),
        )
    if spent.cost + wanted.cost > limit.cost:
        raise BudgetSpent(
            f"The next call does not fit into the budget of {name}, ${dollars(limit.cost)}: ${dollars(spent.cost)} "
            "are used or"
            f" reserved, and it may take ${dollars(wanted.cost)}."
        )
