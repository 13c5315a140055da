"""The page of what was spent across sessions: by purpose, disposition, task, model and day, with the calls behind."""

from collections.abc import Iterable, Sequence
from typing import Any

from codetape.domain.money import brief, money
from codetape.inspector.charts import bar
from codetape.inspector.rendering import Links, render
from codetape.reporting.calls import CallRecord
from codetape.reporting.spend import SpendRow, spend

KEYS = ("purpose", "disposition", "task", "model", "day")
ROWS = 20  # of each sum
CALLS = 20  # behind each bar, the dearest first


def spend_page(calls: Iterable[CallRecord], links: Links, *, place: str, head: str = "", left_out: int = 0) -> str:
    """Return the page. ``left_out`` is how many older sessions are not in it."""
    found = list(calls)
    total = spend(found).total
    return render(
        "spend.html",
        links,
        title="Spend",
        head=head,
        place=place,
        left_out=left_out,
        facts=[
            ("calls", f"{total.calls:,} made, {total.replayed:,} answered from recordings"),
            (
                "tokens",
                f"{total.tokens:,}" + (f", {total.replayed_tokens:,} more from recordings" if total.replayed else ""),
            ),
            ("money", money(total.cost, total.unpriced) if total.calls else "nothing"),
            ("repairs", f"{total.repairs:,} calls were made again because a reply could not be used"),
        ],
        tables=[_table(found, key, links) for key in KEYS] if found else [],
    )


def _table(calls: Sequence[CallRecord], key: str, links: Links) -> dict[str, Any]:
    rows = spend(calls, (key,)).rows
    kind = (
        "cost" if any(row.cost for row in rows) else "tokens" if any(row.tokens for row in rows) else "replayed tokens"
    )
    most = max((_weight(row, kind) for row in rows), default=0)
    dearest = sorted(calls, key=lambda call: (-(call.cost or 0), -(call.total_input + call.total_output)))
    return {
        "key": key,
        "weight": kind,
        "more": max(0, len(rows) - ROWS),
        "rows": [
            {
                "name": row.key[0].replace("_", " ") if key == "purpose" else row.key[0] or "none",
                "calls": row.calls,
                "replayed": row.replayed,
                "tokens": row.tokens,
                "cost": brief(row.cost, row.unpriced) if row.calls else "replayed",
                "bar": bar(_weight(row, kind), most),
                "behind": [_call(call, links) for call in _of(dearest, key, row.key[0])],
            }
            for row in (rows[-ROWS:] if key == "day" else rows[:ROWS])
        ],
    }


def _weight(row: SpendRow, kind: str) -> float:
    return float({"cost": row.cost, "tokens": row.tokens}.get(kind, row.replayed_tokens))


def _of(calls: Sequence[CallRecord], key: str, value: str) -> list[CallRecord]:
    matching = (call for call in calls if (call.at[:10] if key == "day" else str(getattr(call, key))) == value)
    return [call for call, _ in zip(matching, range(CALLS), strict=False)]


def _call(call: CallRecord, links: Links) -> dict[str, Any]:
    return {
        "name": call.name,
        "link": links.session(call.session, call.seq),
        "words": f"{call.task}: {call.purpose.replace('_', ' ')}, run {call.iteration + 1}, {call.disposition}",
        "tokens": call.total_input + call.total_output,
        "cost": call.paid,
    }
