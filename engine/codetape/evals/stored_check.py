"""Checks as a store has them: their attempts by task and arm, found again from the sessions' labels and ids alone.

A store holds the attempts of a check, and what the change leaves alone it does not: so the verdict over all tasks is the
check's own report, and here stand its attempts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from codetape.domain.money import dollars
from codetape.domain.task import Config, Task
from codetape.evals.attempt import Attempt
from codetape.evals.check import (
    Arm,
    AttemptOutcome,
    Checked,
    CheckPlan,
    PlannedSession,
    attempt_id,
    pack_changes,
    pack_of,
)
from codetape.evals.chosen_sessions import check_of
from codetape.evals.judge import MARGIN, CheckReport, report
from codetape.eventlog.events import SessionForked, SessionStarted
from codetape.playback.whatif import Change
from codetape.ports import SessionRow, Stream

MAX_ATTEMPTS = 1000


@dataclass(frozen=True)
class StoredCheck:
    """The attempts of one check, as listed, the newest first."""

    id: str
    rows: tuple[SessionRow, ...]

    @property
    def ended(self) -> int:
        """How many attempts have an outcome."""
        return sum(row["state"] in ("succeeded", "failed") for row in self.rows)

    @property
    def solved(self) -> int:
        """How many attempts were solved."""
        return sum(row["state"] == "succeeded" for row in self.rows)


def stored_checks(rows: Iterable[SessionRow]) -> list[StoredCheck]:
    """Return the checks of a list of sessions, in the order of the list."""
    attempts: dict[str, list[SessionRow]] = {}
    for row in rows:
        if check := check_of(row):
            attempts.setdefault(check, []).append(row)
    return [StoredCheck(check, tuple(own)) for check, own in attempts.items()]


def stored_report(
    check: StoredCheck, rows: Sequence[SessionRow], origins: Mapping[str, Stream], attempts: Iterable[Stream]
) -> CheckReport:
    """Judge the attempts of a check that are stored. ``origins`` are the sessions that it continued, by id; of
    ``attempts`` some are enough, the candidate's among them: they say what was changed.

    Attempts whose origin is gone, or went on since, are of no known arm, and are left out.
    """
    by_id = {row["session"]: row for row in rows}
    outcomes = [outcome for row in check.rows if (outcome := _outcome(check.id, row, by_id, origins))]
    parents = dict.fromkeys(outcome.parent for outcome in reversed(outcomes))
    forked_at = {row["parent"]: row["forked_at"] for row in check.rows}
    changed = tuple(_planned(by_id[parent], forked_at[parent], origins) for parent in parents)
    change, differences = Change(), tuple[tuple[str, str], ...]()
    arms = {outcome.made.session: outcome for outcome in outcomes}
    for stream in attempts:
        outcome = arms.get(stream.events[-1].session)
        if outcome is not None and outcome.arm == "candidate":
            change = replace(change_of(stream), pack=pack_of(stream))
            differences = pack_changes(pack_of(origins[outcome.parent]), pack_of(stream))
            break
    plan = CheckPlan(check.id, change, changed, (), (), selected=True, prompt_changes=differences)
    control = any(outcome.arm == "control" for outcome in outcomes)
    return report(Checked(plan, tuple(outcomes)), control=control, margin=MARGIN)


def change_of(attempt: Stream) -> Change:
    """Return what an attempt changes: its own first event says so."""
    forked = next((e.payload for e in reversed(attempt.events) if isinstance(e.payload, SessionForked)), None)
    if forked is None:
        return Change()
    config = {**json.loads(attempt.texts[forked.config]), **({"model": forked.model} if forked.model else {})}
    return Change(
        pack_of(attempt) if forked.pack else None, {k: v for k, v in config.items() if k in Config.model_fields}
    )


def _outcome(
    check: str, row: SessionRow, rows: Mapping[str, SessionRow], origins: Mapping[str, Stream]
) -> AttemptOutcome | None:
    origin = rows.get(row["parent"])
    if origin is None or row["parent"] not in origins:
        return None
    arms: tuple[Arm, ...] = ("candidate", "control")
    for number in range(1, MAX_ATTEMPTS + 1):
        for arm in arms:
            if attempt_id(check, arm, row["parent"], origin["head"], number) == row["session"]:
                return AttemptOutcome(arm, row["parent"], _attempt(row, number, origins[row["parent"]]))
    return None


def _attempt(row: SessionRow, number: int, origin: Stream) -> Attempt:
    ended = row["state"] in ("succeeded", "failed")
    return Attempt(
        task=row["task"],
        attempt=number,
        session=row["session"],
        status=row["state"],
        solved=row["state"] == "succeeded" if ended else None,
        graded="oracle" if _has_oracle(origin) else "self",
        confidence=row["confidence"],
        reason=row["reason"],
        iterations=row["iteration"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cost=dollars(row["cost"]),
        unpriced=row["unpriced"],
    )


def _has_oracle(origin: Stream) -> bool:
    started = next((e.payload for e in origin.events if isinstance(e.payload, SessionStarted)), None)
    return started is not None and bool(Task.model_validate_json(origin.texts[started.task]).oracle)


def _planned(row: SessionRow, fork_at: int, origins: Mapping[str, Stream]) -> PlannedSession:
    return PlannedSession(
        session=row["session"],
        head=row["head"],
        task=row["task"],
        graded="oracle" if _has_oracle(origins[row["session"]]) else "self",
        solved=row["state"] == "succeeded",
        model=row["model"],
        fork_at=fork_at,
        first="",
        reusable=frozenset(),
        calls={},
        input_tokens={},
        output_tokens={},
    )
