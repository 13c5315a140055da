"""Recorded sessions under other rules or tighter limits: how they would have ended, without a call or an execution.

`rules` derives every decision again with the present code. `under` says what a tighter limit would have solved and
spent. That is exact: a limit only ends a session earlier, as long as no prompt mentions it. Where one does, the answer
is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from codetape.domain.money import dollars, money, pico
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
    """One decision or request that the present code derives differently than the session recorded it."""

    session: str
    task: str
    seq: int
    kind: str
    layer: str
    message: str


@dataclass(frozen=True)
class LimitOutcome:
    """How a session would have ended under a limit. ``refused`` says why that is unknown; empty where it is known.

    Tokens, calls and cost (dollars; of the calls that have a price, None where none has) are what it would have spent;
    ``unpriced`` calls have none.
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
    cost: str | None
    unpriced: int
    was_calls: int
    was_tokens: int


@dataclass(frozen=True)
class LimitRow:
    """One limit over a corpus. The sums leave out refused sessions; ``was_`` sums are what the others recorded."""

    limit: str
    sessions: int
    refused: int
    solved: int
    was_solved: int
    calls: int
    tokens: int
    cost: str | None
    unpriced: int
    was_calls: int
    was_tokens: int

    @property
    def money(self) -> str:
        """The cost for a reader."""
        return money(pico(self.cost or "0"), self.unpriced)


def rules(member: CorpusSession, stream: Stream) -> list[ChangedDecision]:
    """Derive a session's decisions and requests again and return those that differ; the log is followed throughout."""
    events = {event.seq: event for event in stream.events}
    return [
        ChangedDecision(
            member.session, member.task, drift.seq, _kind(events[drift.seq].payload), drift.layer, drift.message
        )
        for drift in changed(stream)
    ]


def _kind(payload: Any) -> str:
    about = getattr(payload, "about", "") or getattr(payload, "purpose", "")
    return f"{type(payload).__name__} {about}".strip()


def under(stream: Stream, name: LimitName, limit: int) -> LimitOutcome:
    """Say how a session would have ended under a limit."""
    # max_tokens is no part of the change: a budget stops a session, but no prompt and no decision mentions it
    simulated = simulate(stream, Change(config={name: limit} if name == "max_iterations" else {}))
    own_limit = simulated.config.max_iterations
    totals = _spent(stream, len(stream.events))
    stop, status, refused = len(stream.events), simulated.status, ""
    if simulated.first is not None and simulated.first.what == "request":
        refused = f"its {simulated.first.purpose} prompt at event {simulated.first.seq} mentions the limit"
    elif name == "max_tokens":
        stop = _out_of_tokens(stream, limit)
        status = simulated.status if stop == len(stream.events) else "suspended"
        if stop == len(stream.events) and getattr(stream.events[-1].payload, "cause", "") == "budget":
            refused = "it was stopped by a budget of its own"
    elif simulated.first is not None and simulated.ends == "failed: iterations":
        stop, status = simulated.first.seq, "failed"
    elif _was_cut(simulated, stream) and limit > own_limit:
        refused = f"it ended at its own limit of {own_limit}"
    elif simulated.first is not None:
        refused = f"it would continue differently at event {simulated.first.seq}"
    calls, tokens, cost, unpriced = _spent(stream, stop)
    return LimitOutcome(
        session=simulated.session,
        task=simulated.task,
        graded=simulated.graded,
        limit=f"{name}={limit}",
        refused=refused,
        was_solved=simulated.status == "succeeded",
        solved=status == "succeeded",
        status=status,
        calls=calls,
        tokens=tokens,
        cost=dollars(cost) if cost or not unpriced else None,
        unpriced=unpriced,
        was_calls=totals[0],
        was_tokens=totals[1],
    )


def _was_cut(simulated: WhatIf, stream: Stream) -> bool:
    return simulated.status == "failed" and getattr(stream.events[-1].payload, "reason", "") == "iterations"


def _spent(stream: Stream, stop: int) -> tuple[int, int, int, int]:
    """Return calls, tokens, picodollars, and calls without a price, of the answers before an event."""
    answers = [e.payload for e in stream.events[:stop] if isinstance(e.payload, Answered)]
    tokens = sum(a.usage.total_input + a.usage.total_output for a in answers)
    paid = [a.price for a in answers if not a.matched_by]
    return len(answers), tokens, sum(pico(price.cost) for price in paid if price), paid.count(None)


def _out_of_tokens(stream: Stream, limit: int) -> int:
    """Return the seq of the first model call that a token budget would have refused; the stream's length if none."""
    spent = reserved = 0
    reused = {e.payload.call for e in stream.events if isinstance(e.payload, Answered) and e.payload.matched_by}
    for event in stream.events:
        payload = event.payload
        if isinstance(payload, Requested) and payload.effect == "ask" and payload.call not in reused:
            reserved = payload.input_estimate + payload.max_output_tokens
            if spent + reserved > limit:
                return event.seq
        elif isinstance(payload, CallLost):
            spent += reserved  # a lost call may have been billed: it keeps its reservation, as in the store
        elif isinstance(payload, Answered) and not payload.matched_by:
            spent += payload.usage.total_input + payload.usage.total_output
    return len(stream.events)


def summed(outcomes: Iterable[LimitOutcome]) -> list[LimitRow]:
    """Return one row per limit, in the order in which the limits first come."""
    by_limit: dict[str, list[LimitOutcome]] = {}
    for outcome in outcomes:
        by_limit.setdefault(outcome.limit, []).append(outcome)
    rows = []
    for limit, group in by_limit.items():
        accepted = [o for o in group if not o.refused]
        cost, unpriced = sum(pico(o.cost or "0") for o in accepted), sum(o.unpriced for o in accepted)
        rows.append(
            LimitRow(
                limit=limit,
                sessions=len(group),
                refused=len(group) - len(accepted),
                solved=sum(o.solved for o in accepted),
                was_solved=sum(o.was_solved for o in accepted),
                calls=sum(o.calls for o in accepted),
                tokens=sum(o.tokens for o in accepted),
                cost=dollars(cost) if cost or not unpriced else None,
                unpriced=unpriced,
                was_calls=sum(o.was_calls for o in accepted),
                was_tokens=sum(o.was_tokens for o in accepted),
            )
        )
    return rows


__all__ = ["ChangedDecision", "LimitOutcome", "LimitRow", "records", "rules", "summed", "under"]
