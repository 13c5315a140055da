"""Amounts of money as whole picodollars, and as text."""

from decimal import Decimal, InvalidOperation

from codetape.errors import UsageError

PICO = Decimal(10) ** 12
MOST = Decimal(1_000_000)  # dollars: a larger amount is a typing error


def pico(text: str) -> int:
    """Return dollars as picodollars. Raises UsageError for a text that is no amount."""
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= MOST:
        raise UsageError(f"{text[:40]!r} is not a valid dollar amount.", remedy="Give one such as 0.50.")
    return picodollars(amount)


def picodollars(amount: Decimal | str) -> int:
    """Return a valid amount of dollars as whole picodollars."""
    return int((Decimal(amount) * PICO).to_integral_value())


def money(amount: int, unpriced: int) -> str:
    """Return a sum for a reader: calls without a price are named, and never shown as $0."""
    words = f"{unpriced} {'call' if unpriced == 1 else 'calls'} without a price"
    return (
        f"${dollars(amount)}" + (f", {words}" if unpriced else "") if amount or not unpriced else f"unpriced: {words}"
    )


def brief(amount: int, unpriced: int) -> str:
    """Return a sum as one word for a table: "+" says that calls without a price come on top of it."""
    if amount:
        return f"${dollars(amount)}{'+' if unpriced else ''}"
    return "unpriced" if unpriced else "-"


def dollars(amount: int) -> str:
    """Return picodollars as a decimal text without needless zeros, two digits at least after the point."""
    whole, part = divmod(abs(amount), 10**12)
    digits = f"{part:012}".rstrip("0")
    return f"{'-' if amount < 0 else ''}{whole}.{digits:0<2}"
