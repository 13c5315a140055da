"""Two sessions compared: where they diverge and why, then prompts, code, tests, packages, verdicts and tokens, aligned.

Calls are aligned by iteration, purpose and occurrence within the iteration; nothing is matched by text.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codetape.domain.canonical import canonical
from codetape.domain.report import Report
from codetape.eventlog.events import Answered, CallBatched, CallClosed, Requested, TestsFinished
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.ports import Stream
from codetape.runtime.result import GenerateResult
from codetape.text.unified_diff import unified

Key = tuple[int, str, int]
"""Iteration, purpose, and which call of that purpose in the iteration."""


@dataclass(frozen=True)
class DiffedCall:
    """One call to a model or a sandbox, and its outcome."""

    key: Key
    seq: int
    state: str
    fingerprint: str
    messages: tuple[tuple[str, str], ...]
    said: str
    tokens: int


@dataclass(frozen=True)
class DivergencePoint:
    """Where two sessions diverge: the first events that differ, and why."""

    seq_a: int
    seq_b: int
    what: str
    why: str


@dataclass(frozen=True)
class ValueChange:
    """One difference. ``diff`` is a unified diff, or empty where one side has no such call."""

    where: str
    seq_a: int | None
    seq_b: int | None
    diff: str


@dataclass(frozen=True)
class SessionDiff:
    """What differs between two sessions; every field is empty where nothing does."""

    a: str
    b: str
    parting: DivergencePoint | None
    config: tuple[tuple[str, str, str], ...] = ()
    prompts: tuple[ValueChange, ...] = ()
    answers: tuple[ValueChange, ...] = ()
    code: str = ""
    tests: str = ""
    packages: tuple[tuple[str, str], ...] = ()
    runs: tuple[tuple[str, str, str], ...] = ()
    verdicts: tuple[tuple[str, str, str], ...] = ()
    tokens: tuple[tuple[str, int, int], ...] = field(default=())


def compare(a: Stream, b: Stream) -> SessionDiff:
    """Compare two sessions' streams. Raises CorruptTape for a bad log."""
    first, second = _Read(a), _Read(b)
    return SessionDiff(
        a=first.session.session,
        b=second.session.session,
        parting=_parting(first, second),
        config=tuple(_fields(first.config, second.config)),
        prompts=tuple(_prompts(first, second)),
        answers=tuple(_answers(first, second)),
        code=unified(first.session.work.code, second.session.work.code),
        tests=unified(first.session.work.tests, second.session.work.tests),
        packages=tuple(_packages(first.session, second.session)),
        runs=tuple(_rows(first.runs, second.runs)),
        verdicts=tuple(_rows(first.verdict, second.verdict)),
        tokens=tuple(_tokens(first, second)),
    )


class _Read:
    """A stream, read once: its calls by key, its runs of the tests, its final state."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.session = stream, SessionState()
        self.calls: dict[Key, DiffedCall] = {}
        self.runs: dict[str, str] = {}
        counts: Counter[tuple[int, str]] = Counter()
        asked: tuple[Key, int, Requested] | None = None
        for event in stream.events:
            payload, before = event.payload, self.session
            self.session = apply(self.session, event, stream.texts)
            if isinstance(payload, Requested):
                place = before.ledger.iteration, payload.purpose
                counts[place] += 1
                asked = ((*place, counts[place]), event.seq, payload)
            elif asked is not None and isinstance(payload, CallClosed):
                self._close(asked, before.state, payload, stream.texts)
                asked = None
        result = GenerateResult.of(self.session)
        self.config: dict[str, Any] = self.session.the_config.model_dump(mode="json")
        self.verdict = {
            "status": result.status,
            "confidence": result.confidence,
            "reason": result.reason,
            "iterations": str(result.iterations),
            "quarantined": ", ".join(q.test for q in result.quarantined),
        }

    def _close(self, asked: tuple[Key, int, Requested], state: str, payload: Any, texts: Mapping[str, str]) -> None:
        key, seq, request = asked
        answer, tokens = type(payload).__name__, 0
        if isinstance(payload, Answered):
            answer = (
                texts[payload.text]
                if payload.text is not None
                else f"(refused) {texts[payload.refusal or ''] if payload.refusal else ''}"
            )
            tokens = payload.usage.total_input + payload.usage.total_output
        elif isinstance(payload, TestsFinished):
            answer = canonical(_outcomes(Report.model_validate_json(texts[payload.report])))
            counted = f"{payload.passed} passed, {payload.failed} failed, {payload.errors} errors"
            self.runs[
                f"{key[1]} {key[0] + 1 if key[1] == 'run' else ''}".strip() + (f" again {key[2]}" if key[2] > 1 else "")
            ] = counted
        messages = tuple((role, texts[ref]) for role, ref in request.messages)
        self.calls[key] = DiffedCall(key, seq, state, request.fingerprint, messages, answer, tokens)


def _outcomes(report: Report) -> dict[str, str]:
    return {"exit": report.exit, **{t.id: f"{t.outcome} {t.exception}".strip() for t in report.tests}}


def _parting(first: _Read, second: _Read) -> DivergencePoint | None:
    """Find the first event that differs in more than time and session, and say why."""
    # how a call waited for its answer is no difference
    events = [[e for e in side.stream.events if not isinstance(e.payload, CallBatched)] for side in (first, second)]
    for old, new in zip(*events, strict=False):
        if old.hash == new.hash or (
            old.kind == new.kind
            and _without_session(old.stored_payload, old.session) == _without_session(new.stored_payload, new.session)
        ):
            continue
        if old.kind == new.kind == "SessionStarted":
            if old.payload.task == new.payload.task:
                continue  # another configuration, pack or version is reported at the first event that it changes
            return DivergencePoint(old.seq, new.seq, "the task", "they were asked for other things")
        return DivergencePoint(
            old.seq,
            new.seq,
            _event_named(old.kind, old.payload, new.kind, new.payload),
            _why(first, second, old.kind, new.kind),
        )
    if len(events[0]) == len(events[1]):
        return None
    shorter = min(len(first.stream.events), len(second.stream.events))
    return DivergencePoint(shorter, shorter, "the end", "one of them continues")


def _without_session(payload: str, session: str) -> str:
    return payload.replace(f'"{session}:', '":')


def _event_named(kind_a: str, a: Any, kind_b: str, b: Any) -> str:
    if kind_a == kind_b == "Requested":
        return (
            f"a request for {a.purpose}"
            if a.purpose == b.purpose
            else f"a request for {a.purpose}, for {b.purpose} in the other"
        )
    return kind_a if kind_a == kind_b else f"{kind_a}, {kind_b} in the other"


def _why(first: _Read, second: _Read, kind_a: str, kind_b: str) -> str:
    if "SessionForked" in (kind_a, kind_b):
        return "it is where one was forked"
    if kind_a != kind_b or kind_a != "Requested":
        return (
            "the world answered otherwise"
            if kind_a in ("Answered", "TestsFinished", "BuildFinished", "BuildRefused")
            else "the rules decided differently"
        )
    reasons = []
    if first.session.pack != second.session.pack:
        changed = sorted(
            n
            for n in {*first.session.pack, *second.session.pack}
            if first.session.pack.get(n) != second.session.pack.get(n)
        )
        reasons.append(f"other prompts ({', '.join(changed[:5])})")
    names = [name for name, _, _ in _fields(first.config, second.config)]
    reasons += [f"another configuration ({', '.join(names)})"] if names else []
    return "; ".join(reasons) or "what came before was otherwise"


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, canonical(old.get(name)), canonical(new.get(name))) for name in old if old.get(name) != new.get(name)
    ]


def _prompts(first: _Read, second: _Read) -> list[ValueChange]:
    changes = []
    for key in [*first.calls, *(k for k in second.calls if k not in first.calls)]:
        old, new = first.calls.get(key), second.calls.get(key)
        if old and new and old.fingerprint == new.fingerprint:
            continue
        if not (old or new) or not ((old and old.messages) or (new and new.messages)):
            continue
        parts = []
        if old and new:
            for number in range(max(len(old.messages), len(new.messages))):
                before, after = (
                    side.messages[number] if number < len(side.messages) else ("none", "") for side in (old, new)
                )
                if before != after:
                    parts.append(f"@ message {number + 1} ({after[0]})\n{unified(before[1], after[1])}")
        changes.append(ValueChange(_named(key), old.seq if old else None, new.seq if new else None, "\n".join(parts)))
    return changes


def _answers(first: _Read, second: _Read) -> list[ValueChange]:
    changes = []
    for key, old in first.calls.items():
        new = second.calls.get(key)
        if new is not None and old.said != new.said:
            changes.append(ValueChange(_named(key), old.seq, new.seq, unified(old.said, new.said)))
    return changes


def _named(key: Key) -> str:
    iteration, purpose, number = key
    return f"{purpose} after run {iteration}" + (f", ask {number}" if number > 1 else "")


def _packages(first: SessionState, second: SessionState) -> list[tuple[str, str]]:
    old, new = ({*session.ledger.packages, *session.ledger.system_packages} for session in (first, second))
    return [(name, "only in the first") for name in sorted(old - new)] + [
        (name, "only in the second") for name in sorted(new - old)
    ]


def _rows(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [
        (name, old.get(name, "none"), new.get(name, "none"))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _tokens(first: _Read, second: _Read) -> list[tuple[str, int, int]]:
    sums = [Counter[str](), Counter[str]()]
    for total, side in zip(sums, (first, second), strict=True):
        for call in side.calls.values():
            total[call.key[1]] += call.tokens
    names = [name for name in dict.fromkeys([*sums[0], *sums[1]]) if sums[0][name] or sums[1][name]]
    return [(name, sums[0][name], sums[1][name]) for name in (*names,)]
