"""Recorded sessions under other rules or tighter limits: what would have come of them, without a call or a run.

`rules` derives every decision again with the present code. `under` says what a tighter limit would have solved and
spent: exactly,
for a limit only ends a session earlier, as long as no prompt mentions it; where one does, that is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from codetape.domain.money import dollars, pico
from codetape.domain.task import Grade
from codetape.evals.corpus import CorpusSession
from codetape.eventlog.events import Answered, CallLost, Requested
from codetape.playback.strict_replay import changed
from codetape.playback.whatif import Change, WhatIf, simulate
from codetape.ports import Stream
from codetape.text.records import records

LimitName = Literal["max_iterations", "max_tokens"]


@dataclass(frozen=True)
class ChangedDecision:
    """One decision or request that the present code derives differently than the session's did."""

    session: str
    task: str
    seq: int
    kind: str
    layer: str
    message: str


@dataclass(frozen=True)
class LimitOutcome:
    """What a session would have come to under a limit. ``refused`` says why that cannot be told; empty where it can.

    Tokens, calls and cost (dollars; of the calls that have a price) are what it would have spent.
    """

    session: str
    task: str
    graded: Grade
    limit: str
    refused: str
    was_solved: bool
    solved: bool
    status: str
    calls: int
    tokens: int
    cost: str
    was_calls: int
    was_tokens: int


@dataclass(frozen=True)
class LimitRow:
    """One limit over a corpus. The sums are of the sessions of which it can be told; ``was_`` is what those came to."""

    limit: str
    sessions: int
    refused: int
    solved: int
    was_solved: int
    calls: int
    tokens: int
    cost: str
    was_calls: int
    was_tokens: int


def rules(member: CorpusSession, stream: Stream) -> list[ChangedDecision]:
    """Derive a session's decisions and requests again; return what comes out differently, the log being followed
    throughout."""
    kinds = {event.seq: event for event in stream.events}
    return [
        ChangedDecision(
            member.session, member.task, found.seq, _kind(kinds[found.seq].payload), found.layer, found.message
        )
        for found in changed(stream)
    ]


def _kind(payload: Any) -> str:
    about = getattr(payload, "about", "") or getattr(payload, "purpose", "")
    return f"{type(payload).__name__} {about}".strip()


def under(stream: Stream, name: LimitName, limit: int) -> LimitOutcome:
    """Say what a session would have come to under a limit."""
    found = simulate(
        stream, Change(config={name: limit} if name == "max_iterations" else {})
    )  # no prompt can tell a budget
    config = found.config.max_iterations
    spent = _spent(stream, len(stream.events))
    stop, status, refused = len(stream.events), found.status, ""
    if found.first is not None and found.first.what == "request":
        refused = f"its {found.first.purpose} prompt at event {found.first.seq} mentions the limit"
    elif name == "max_tokens":
        stop = _out_of_tokens(stream, limit)
        status = found.status if stop == len(stream.events) else "suspended"
        if stop == len(stream.events) and getattr(stream.events[-1].payload, "cause", "") == "budget":
            refused = "it was stopped by a budget of its own"
    elif found.first is not None and found.ends == "failed: iterations":
        stop, status = found.first.seq, "failed"
    elif _was_cut(found, stream) and limit > config:
        refused = f"it ended at its own limit of {config}"
    elif found.first is not None:
        refused = f"it would continue differently at event {found.first.seq}"
    calls, tokens, cost = _spent(stream, stop)
    return LimitOutcome(
        session=found.session,
        task=found.task,
        graded=found.graded,
        limit=f"{name}={limit}",
        refused=refused,
        was_solved=found.status == "succeeded",
        solved=status == "succeeded",
        status=status,
        calls=calls,
        tokens=tokens,
        cost=dollars(cost),
        was_calls=spent[0],
        was_tokens=spent[1],
    )


def _was_cut(found: WhatIf, stream: Stream) -> bool:
    return found.status == "failed" and getattr(stream.events[-1].payload, "reason", "") == "iterations"


def _spent(stream: Stream, stop: int) -> tuple[int, int, int]:
    """Return calls, tokens and picodollars of the answers before an event."""
    answers = [e.payload for e in stream.events[:stop] if isinstance(e.payload, Answered)]
    tokens = sum(a.usage.total_input + a.usage.total_output for a in answers)
    return len(answers), tokens, sum(pico(a.price.cost) for a in answers if a.price)


def _out_of_tokens(stream: Stream, limit: int) -> int:
    """Return the first ask that a budget of tokens would not have let through; the stream's length where there is
    none."""
    spent = reserved = 0
    free = {e.payload.call for e in stream.events if isinstance(e.payload, Answered) and e.payload.matched_by}
    for event in stream.events:
        payload = event.payload
        if isinstance(payload, Requested) and payload.effect == "ask" and payload.call not in free:
            reserved = payload.input_estimate + payload.max_output_tokens
            if spent + reserved > limit:
                return event.seq
        elif isinstance(payload, CallLost):
            spent += reserved  # a lost call keeps its reservation
        elif isinstance(payload, Answered) and not payload.matched_by:
            spent += payload.usage.total_input + payload.usage.total_output
    return len(stream.events)


def summed(outcomes: Iterable[LimitOutcome]) -> list[LimitRow]:
    """Return a row a limit, in the order in which they first come."""
    by_limit: dict[str, list[LimitOutcome]] = {}
    for outcome in outcomes:
        by_limit.setdefault(outcome.limit, []).append(outcome)
    rows = []
    for limit, found in by_limit.items():
        told = [o for o in found if not o.refused]
        rows.append(
            LimitRow(
                limit=limit,
                sessions=len(found),
                refused=len(found) - len(told),
                solved=sum(o.solved for o in told),
                was_solved=sum(o.was_solved for o in told),
                calls=sum(o.calls for o in told),
                tokens=sum(o.tokens for o in told),
                cost=dollars(sum(pico(o.cost) for o in told)),
                was_calls=sum(o.was_calls for o in told),
                was_tokens=sum(o.was_tokens for o in told),
            )
        )
    return rows


__all__ = ["ChangedDecision", "LimitOutcome", "LimitRow", "records", "rules", "summed", "under"]
