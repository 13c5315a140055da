"""Two sessions compared: where they diverge and why, then prompts, code, tests, packages, verdicts and tokens, aligned.

Calls are aligned by purpose, iteration and how often the purpose was asked in it; nothing is matched by text.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codetape.domain.canonical import canonical
from codetape.domain.report import Report
from codetape.eventlog.events import Answered, Requested, TestsFinished
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.ports import Stream
from codetape.runtime.result import GenerateResult
from codetape.text.unified_diff import unified

Key = tuple[int, str, int]
"""Iteration, purpose, and which ask of the purpose in it."""


@dataclass(frozen=True)
class DiffedCall:
    """One call to a model or a sandbox, and what came of it."""

    key: Key
    seq: int
    state: str
    fingerprint: str
    messages: tuple[tuple[str, str], ...]
    said: str
    tokens: int


@dataclass(frozen=True)
class DivergencePoint:
    """Where two sessions part: what they share ends before these events, and why they differ there."""

    seq_a: int
    seq_b: int
    what: str
    why: str


@dataclass(frozen=True)
class ValueChange:
    """One thing that differs. ``diff`` is a unified diff, or empty where one side has nothing of the kind."""

    where: str
    seq_a: int | None
    seq_b: int | None
    diff: str


@dataclass(frozen=True)
class SessionDiff:
    """What differs between two sessions; everything is empty where nothing does."""

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
    one, other = _Read(a), _Read(b)
    return SessionDiff(
        a=one.run.session,
        b=other.run.session,
        parting=_parting(one, other),
        config=tuple(_fields(one.config, other.config)),
        prompts=tuple(_prompts(one, other)),
        answers=tuple(_answers(one, other)),
        code=unified(one.run.work.code, other.run.work.code),
        tests=unified(one.run.work.tests, other.run.work.tests),
        packages=tuple(_packages(one.run, other.run)),
        runs=tuple(_rows(one.runs, other.runs)),
        verdicts=tuple(_rows(one.verdict, other.verdict)),
        tokens=tuple(_tokens(one, other)),
    )


class _Read:
    """A stream, read once: its calls by key, its runs of the tests, its end."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.run = stream, SessionState()
        self.calls: dict[Key, DiffedCall] = {}
        self.runs: dict[str, str] = {}
        counts: Counter[tuple[int, str]] = Counter()
        asked: tuple[Key, int, Requested] | None = None
        for event in stream.events:
            payload, before = event.payload, self.run
            self.run = apply(self.run, event, stream.texts)
            if isinstance(payload, Requested):
                place = before.ledger.iteration, payload.purpose
                counts[place] += 1
                asked = ((*place, counts[place]), event.seq, payload)
            elif asked is not None and getattr(payload, "call", "") == asked[2].call:
                self._close(asked, before.state, payload, stream.texts)
                asked = None
        result = GenerateResult.of(self.run)
        self.config: dict[str, Any] = self.run.the_config.model_dump(mode="json")
        self.verdict = {
            "status": result.status,
            "confidence": result.confidence,
            "reason": result.reason,
            "iterations": str(result.iterations),
            "quarantined": ", ".join(q.test for q in result.quarantined),
        }

    def _close(self, asked: tuple[Key, int, Requested], state: str, payload: Any, texts: Mapping[str, str]) -> None:
        key, seq, request = asked
        said, tokens = type(payload).__name__, 0
        if isinstance(payload, Answered):
            said = (
                texts[payload.text]
                if payload.text is not None
                else f"(refused) {texts[payload.refusal or ''] if payload.refusal else ''}"
            )
            tokens = payload.usage.total_input + payload.usage.total_output
        elif isinstance(payload, TestsFinished):
            said = canonical(_outcomes(Report.model_validate_json(texts[payload.report])))
            counted = f"{payload.passed} passed, {payload.failed} failed, {payload.errors} errors"
            self.runs[
                f"{key[1]} {key[0] + 1 if key[1] == 'run' else ''}".strip() + (f" again {key[2]}" if key[2] > 1 else "")
            ] = counted
        messages = tuple((role, texts[ref]) for role, ref in request.messages)
        self.calls[key] = DiffedCall(key, seq, state, request.fingerprint, messages, said, tokens)


def _outcomes(report: Report) -> dict[str, str]:
    return {"exit": report.exit, **{t.id: f"{t.outcome} {t.exception}".strip() for t in report.tests}}


def _parting(one: _Read, other: _Read) -> DivergencePoint | None:
    """Find the first event that differs, time and session apart, and say what it comes from."""
    pairs = zip(one.stream.events, other.stream.events, strict=False)
    for old, new in pairs:
        if old.hash == new.hash or (
            old.kind == new.kind and _said(old.stored_payload, old.session) == _said(new.stored_payload, new.session)
        ):
            continue
        if old.kind == new.kind == "SessionStarted":
            if old.payload.task == new.payload.task:  # type: ignore[attr-defined]  # both are SessionStarted
                continue  # another configuration, pack or version: told where it first matters
            return DivergencePoint(old.seq, new.seq, "the task", "they were asked for other things")
        return DivergencePoint(
            old.seq, new.seq, _what(old.kind, old.payload, new.kind, new.payload), _why(one, other, old.kind, new.kind)
        )
    shorter = min(len(one.stream.events), len(other.stream.events))
    if len(one.stream.events) == len(other.stream.events):
        return None
    return DivergencePoint(shorter, shorter, "the end", "one of them continues")


def _said(payload: str, session: str) -> str:
    return payload.replace(f'"{session}:', '":')


def _what(kind_a: str, a: Any, kind_b: str, b: Any) -> str:
    if kind_a == kind_b == "Requested":
        return (
            f"a request for {a.purpose}"
            if a.purpose == b.purpose
            else f"a request for {a.purpose}, for {b.purpose} in the other"
        )
    return kind_a if kind_a == kind_b else f"{kind_a}, {kind_b} in the other"


def _why(one: _Read, other: _Read, kind_a: str, kind_b: str) -> str:
    if "SessionForked" in (kind_a, kind_b):
        return "it is where one was forked"
    if kind_a != kind_b or kind_a != "Requested":
        return (
            "the world answered otherwise"
            if kind_a in ("Answered", "TestsFinished", "BuildFinished", "BuildRefused")
            else "the rules decided differently"
        )
    reasons = []
    if one.run.pack != other.run.pack:
        changed = sorted(n for n in {*one.run.pack, *other.run.pack} if one.run.pack.get(n) != other.run.pack.get(n))
        reasons.append(f"other prompts ({', '.join(changed[:5])})")
    names = [name for name, _, _ in _fields(one.config, other.config)]
    reasons += [f"another configuration ({', '.join(names)})"] if names else []
    return "; ".join(reasons) or "what came before was otherwise"


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, canonical(old.get(name)), canonical(new.get(name))) for name in old if old.get(name) != new.get(name)
    ]


def _prompts(one: _Read, other: _Read) -> list[ValueChange]:
    found = []
    for key in [*one.calls, *(k for k in other.calls if k not in one.calls)]:
        old, new = one.calls.get(key), other.calls.get(key)
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
        found.append(ValueChange(_named(key), old.seq if old else None, new.seq if new else None, "\n".join(parts)))
    return found


def _answers(one: _Read, other: _Read) -> list[ValueChange]:
    found = []
    for key, old in one.calls.items():
        new = other.calls.get(key)
        if new is not None and old.said != new.said:
            found.append(ValueChange(_named(key), old.seq, new.seq, unified(old.said, new.said)))
    return found


def _named(key: Key) -> str:
    iteration, purpose, number = key
    return f"{purpose} after run {iteration}" + (f", ask {number}" if number > 1 else "")


def _packages(one: SessionState, other: SessionState) -> list[tuple[str, str]]:
    old, new = ({*run.ledger.packages, *run.ledger.system_packages} for run in (one, other))
    return [(name, "only in the first") for name in sorted(old - new)] + [
        (name, "only in the second") for name in sorted(new - old)
    ]


def _rows(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [
        (name, old.get(name, "none"), new.get(name, "none"))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _tokens(one: _Read, other: _Read) -> list[tuple[str, int, int]]:
    sums = [Counter[str](), Counter[str]()]
    for total, read in zip(sums, (one, other), strict=True):
        for call in read.calls.values():
            total[call.key[1]] += call.tokens
    names = [name for name in dict.fromkeys([*sums[0], *sums[1]]) if sums[0][name] or sums[1][name]]
    return [(name, sums[0][name], sums[1][name]) for name in (*names,)]
