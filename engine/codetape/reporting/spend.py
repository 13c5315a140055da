"""Spend: calls summed by one or more keys. Replayed calls cost nothing and are counted separately."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from codetape.domain.money import dollars, picodollars
from codetape.errors import UsageError
from codetape.reporting.calls import CallRecord
from codetape.runtime.pricing import Prices, plain

KEYS = (
    "model", "provider", "purpose", "state", "iteration", "session", "task", "tag", "day", "prompts", "disposition", "lineage",
    "call",
)  # fmt: skip
"""Keys of the sums. A call with several labels counts under each; the total counts it once."""


@dataclass
class SpendRow:
    """A sum of calls. Buckets are disjoint; ``cost`` is in picodollars, of the calls that have a price.

    ``unpriced`` calls have none. ``estimated`` calls have tokens by rule of thumb. ``possibly_billed`` tokens belong to
    lost calls, and are in no bucket. ``retries`` failed in transport before a reply came. Of replayed calls only number
    and tokens are counted.
    """

    key: tuple[str, ...]
    calls: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cost: int = 0
    unpriced: int = 0
    estimated: int = 0
    possibly_billed: int = 0
    lost: int = 0
    retries: int = 0
    repairs: int = 0
    failures: int = 0
    replayed: int = 0
    replayed_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens that were paid for."""
        return self.input + self.cache_read + self.cache_write + self.output + self.reasoning

    def add(self, call: CallRecord) -> None:
        """Add one call."""
        if call.replayed:
            self.replayed += 1
            self.replayed_tokens += call.total_input + call.total_output
            return
        self.calls += 1
        self.input += call.input
        self.cache_read += call.cache_read
        self.cache_write += call.cache_write
        self.output += call.output
        self.reasoning += call.reasoning
        self.cost += call.cost or 0
        self.unpriced += call.source == "unpriced"
        self.estimated += call.estimated
        self.lost += bool(call.reserved)
        self.possibly_billed += call.reserved
        self.retries += call.tries
        self.repairs += call.disposition == "repair"
        self.failures += call.disposition in ("unusable", "rejected", "abandoned", "transport retry")

    def add_all(self, row: "SpendRow") -> None:
        """Add what another row has summed up."""
        for name, value in vars(row).items():
            if name != "key":
                setattr(self, name, getattr(self, name) + value)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return a flat record, for tables; money in dollars."""
        sums = {name: value for name, value in vars(self).items() if name != "key"}
        cost = "" if self.unpriced and not self.cost else dollars(self.cost)  # no price is not a price of 0
        return {**dict(zip(names, self.key, strict=True)), **sums, "tokens": self.tokens, "cost": cost}


@dataclass(frozen=True)
class Spend:
    """Sums by key, the largest first, and the total, in which each call counts once."""

    by: tuple[str, ...]
    rows: tuple[SpendRow, ...]
    total: SpendRow
    prices_as_of: str = ""

    def records(self) -> list[dict[str, Any]]:
        """Return one flat record per row."""
        return [row.record(self.by) for row in self.rows]


def spend(
    calls: Iterable[CallRecord], by: Sequence[str] = ("purpose",), *, prices: Prices | None = None, as_of: str = ""
) -> Spend:
    """Sum calls. ``as_of`` prices them again, with the list's prices of that time; the tape stays unchanged. Raises
    UsageError for an unknown key."""
    if wrong := [name for name in by if name not in KEYS]:
        raise UsageError(f"Spend cannot be told apart by {wrong[0]!r}.", remedy=f"Known are: {', '.join(KEYS)}.")
    if len({*by}) < len(by):
        raise UsageError("Spend is told apart by each key once.", remedy="Name no key twice.")
    rows: dict[tuple[str, ...], SpendRow] = {}
    total, counted_twice = SpendRow(()), "tag" in by
    for call in calls:
        priced = _repriced(call, prices or Prices(), as_of) if as_of else call
        if counted_twice:
            total.add(priced)
        for key in _keys(priced, by):
            if (row := rows.get(key)) is None:
                row = rows[key] = SpendRow(key)
            row.add(priced)
    for row in () if counted_twice else rows.values():
        total.add_all(row)
    ordered = sorted(rows.values(), key=lambda row: (-row.cost, -row.tokens, row.key))
    if set(by) <= {"state", "iteration", "day"}:  # keys with an order of their own
        ordered = sorted(
            rows.values(), key=lambda row: [(len(word), word) if word.isdecimal() else (0, word) for word in row.key]
        )
    return Spend(tuple(by), tuple(ordered), total, as_of)


def as_made(call: CallRecord) -> CallRecord:
    """Return a replayed call as one that was made, and has no price yet; any other as it is."""
    return call._replace(replayed=False, source=call.source or "unpriced", cost=None) if call.replayed else call


def _keys(call: CallRecord, by: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the keys of a call: one, but for a call of several labels."""
    if "tag" not in by:
        return [tuple([_word(call, name) for name in by])]
    keys: list[tuple[str, ...]] = [()]
    for name in by:
        words = tuple(dict.fromkeys(call.tags)) or ("",) if name == "tag" else (_word(call, name),)
        keys = [(*key, word) for key in keys for word in words]
    return keys


def _word(call: CallRecord, name: str) -> str:
    return call.at[:10] if name == "day" else call.name if name == "call" else str(getattr(call, name))


def _repriced(call: CallRecord, prices: Prices, at: str) -> CallRecord:
    if call.replayed or not call.source:
        return call
    from codetape.domain.usage import Usage

    usage = Usage(
        input=call.input,
        cache_read=call.cache_read,
        cache_write=call.cache_write,
        output=call.output,
        reasoning=call.reasoning,
    )
    # a call that no provider priced then gets none now: only the user's own prices can apply to it
    provider, _, model = call.price_model.partition("/") if call.source != "settings" else ("", "", "")
    names = tuple(filter(None, (call.model, model)))
    rate = prices.rate(names, (provider, ""), usage, at)
    if rate is None:
        return call._replace(cost=None, source="unpriced")
    return call._replace(cost=picodollars(plain(rate.cost(usage))), source=rate.source)
