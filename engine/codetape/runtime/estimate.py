"""What calls that are not made yet would cost."""

from decimal import Decimal

from codetape.domain.usage import Usage
from codetape.ports import Billing
from codetape.runtime.pricing import Prices, plain

_PRICED = ("openai", "anthropic")  # adapters whose name is their provider's in price lists


class CostEstimate:
    """A sum of estimates in dollars; unknown as soon as one model has no price. ``at`` is the time whose prices
    hold, ``share`` the part of them that is paid."""

    def __init__(self, prices: Prices, at: str, share: str = "1") -> None:
        self._prices, self._at, self._share = prices, at, Decimal(share)
        self._sum: Decimal | None = Decimal(0)

    def add(self, model: str, tokens_in: int, tokens_out: int, server: str = "") -> None:
        """Add what so many tokens of a model cost; ``server`` is its address, empty for the provider's own."""
        if self._sum is None or not (tokens_in or tokens_out):
            return
        usage = Usage(input=tokens_in, output=tokens_out)
        provider = model.partition(":")[0]
        rate = self._prices.rate(
            (model,), Billing(provider if provider in _PRICED and not server else "", server), usage, self._at
        )
        self._sum = None if rate is None else self._sum + rate.cost(usage) * self._share

    @property
    def text(self) -> str:
        """The sum; empty where it is not known."""
        return "" if self._sum is None else plain(self._sum) if self._sum else "0"
