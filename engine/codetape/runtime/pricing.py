"""What a call cost: by the provider's own word, by a price that the user set, or by the price list of its date.

The price list is genai-prices' of the installed version; it is never updated over the network. A model that is in
neither has
no price, and its tokens are shown as unpriced: never as $0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from codetape.domain.money import MOST
from codetape.errors import UsageError

if TYPE_CHECKING:
    from codetape.domain.usage import Usage
    from codetape.eventlog.events import Price

BUCKETS = ("input", "cache_read", "cache_write", "output")
"""Priced buckets, a million tokens each; reasoning is paid as output, and cached input as input where it has no
price."""

_DIGITS = 18  # after the point: below a picodollar nothing is counted
_LEAST = Decimal(10) ** -_DIGITS
_MILLION = Decimal(1_000_000)
_FIELDS = {
    "input": "input_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
}


@dataclass(frozen=True)
class TokenPrice:
    """Dollars a million tokens by bucket, and where they are from."""

    source: Literal["settings", "genai-prices"]
    version: str
    model: str
    per_mtok: Mapping[str, Decimal]

    def cost(self, usage: Usage) -> Decimal:
        """Return what a call's tokens cost, in dollars."""
        plain = self.per_mtok.get("input", Decimal(0))
        output = usage.output + usage.reasoning
        return (
            usage.input * plain
            + usage.cache_read * self.per_mtok.get("cache_read", plain)
            + usage.cache_write * self.per_mtok.get("cache_write", plain)
            + output * self.per_mtok.get("output", Decimal(0))
        ) / _MILLION


@dataclass(frozen=True)
class Prices:
    """Prices by model. ``own`` are the user's: a glob over models to dollars a million tokens by bucket.

    ``price_as`` names the model whose price holds for every call, whatever the server: PROVIDER:MODEL or MODEL.
    """

    own: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)
    price_as: str = ""

    def rate(self, models: tuple[str, ...], billing: tuple[str, str], usage: Usage, at: str) -> TokenPrice | None:
        """Return the rate of a call: of the first of its model's names that has one. None where none has.

        ``billing`` is the provider's id, or else its address; both empty where nobody bills. ``at`` is the call's time.
        """
        if self.price_as:
            provider, sign, _ = self.price_as.partition(":")
            models, billing = (self.price_as,), (provider if sign else "", "")
        for glob, per in self.own.items():
            if name := next((name for name in models if fnmatchcase(name, glob)), ""):
                return TokenPrice("settings", "", name, per)
        if not any(billing) and not self.price_as:
            return None
        for name in models:
            if found := _listed(name.partition(":")[2] or name, billing, usage, at):
                return found
        return None

    def price(
        self, models: tuple[str, ...], billing: tuple[str, str], usage: Usage, at: str, raw: str = "", share: str = "1"
    ) -> Price | None:
        """Return what a call cost. ``raw`` is the provider's own JSON of its usage, which may hold a cost; ``share``
        the part of a known price that is paid."""
        rate = self.rate(models, billing, usage, at)
        computed = plain(rate.cost(usage) * Decimal(share)) if rate else ""
        reported = _reported(raw)
        if not (computed or reported):
            return None
        from codetape.eventlog.events import Price

        return Price(
            cost=reported or computed,
            source="provider" if reported or rate is None else rate.source,
            computed=computed,
            version=rate.version if rate else "",
            model=rate.model if rate else "",
            per_mtok={name: plain(value) for name, value in rate.per_mtok.items()} if rate else {},
            share=share if rate else "1",
        )


def priced_as(prices: Prices, model: str) -> Prices:
    """Return the prices with one model's for every call. Raises UsageError for a model that has none."""
    from codetape.domain.usage import Usage

    named = replace(prices, price_as=model)
    if named.rate((), ("", ""), Usage(input=1, output=1), "2030-01-01T00:00:00.000Z") is None:
        raise UsageError(
            f"No price is known of {model[:80]!r}.",
            remedy="Give PROVIDER:MODEL as price lists name it, such as openai:gpt-5-mini.",
        )
    return named


def plain(value: Decimal) -> str:
    """Return a decimal as a text without an exponent or needless zeros."""
    text = f"{value.quantize(_LEAST) if value.as_tuple().exponent < -_DIGITS else value:f}"  # type: ignore[operator]  # finite
    return text.rstrip("0").rstrip(".") if "." in text else text


def _reported(raw: str) -> str:
    """Return the cost that a provider named in its usage, such as OpenRouter's ``cost``."""
    try:
        value = json.loads(raw, parse_float=Decimal, parse_int=Decimal).get("cost") if raw else None
    except (ValueError, AttributeError, RecursionError):
        return ""
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 < value <= MOST or value.adjusted() < -_DIGITS:
        return ""  # one that says 0 knows no price: what it costs is then looked up
    return plain(value)


def _listed(name: str, billing: tuple[str, str], usage: Usage, at: str) -> TokenPrice | None:
    import genai_prices  # takes half a second: only where a call was made that somebody bills
    from genai_prices import data_snapshot

    provider, url = billing
    try:
        found = data_snapshot.get_snapshot().find_provider_model(name, None, provider or None, url or None)
        prices = found[1].get_prices(datetime.fromisoformat(at.replace("Z", "+00:00")))
    except (LookupError, ValueError):
        return None
    per = {bucket: _unit(getattr(prices, key, None), usage.total_input) for bucket, key in _FIELDS.items()}
    known = {bucket: value for bucket, value in per.items() if value is not None}
    if "input" not in known or "output" not in known:
        return None
    return TokenPrice("genai-prices", genai_prices.__version__, f"{found[0].id}/{found[1].id}", known)


def _unit(price: Any, tokens: int) -> Decimal | None:
    """Return a unit price; of a tiered one the tier that the call's whole input reaches, which holds for all of it."""
    if price is None or isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if tokens > tier.start]
    return Decimal(reached[-1] if reached else price.base)


def read_prices(table: Mapping[str, Any], source: str) -> Prices:
    """Read ``[tool.codetape.prices]``: a model or glob to dollars a million tokens by bucket. Raises UsageError."""
    own: dict[str, dict[str, Decimal]] = {}
    for model, per in table.items():
        if not isinstance(per, Mapping) or not {"input", "output"} <= set(per) <= {*BUCKETS}:
            raise UsageError(
                f"The price of {model} in {source} is not understood.",
                remedy="Give input and output, and maybe cache_read and cache_write, in dollars a million tokens.",
            )
        own[model] = {bucket: _amount(value, model, source) for bucket, value in per.items()}
    return Prices(own)


def _amount(value: Any, model: str, source: str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal(-1)
    if (
        isinstance(value, bool)
        or not amount.is_finite()
        or not 0 <= amount <= MOST
        or (amount and amount.adjusted() < -12)
    ):
        raise UsageError(f"The price of {model} in {source} is no amount: {value!r}.")
    return amount
