"""What a change of prompts, model or settings would do to a recorded session, simulated without making a call.

The session is replayed from its log under the change. Its first request (or decision) that differs is where a fork with
the change would begin. Each recorded reply is then reused, made again, or unknown: unknown is a reply whose request
depends on an answer that does not exist yet. A later request does not depend on one if it renders as recorded from the
state before the first difference: so a changed prompt for code leaves the tests, which never see the code, as they are.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from codetape.decider import decide
from codetape.decider.commands import CallModel, Command, Record
from codetape.decider.model_calls import PURPOSE_OF, ask
from codetape.domain.canonical import canonical
from codetape.domain.task import Config, SandboxFacts
from codetape.errors import CodetapeError, UsageError
from codetape.eventlog import machine
from codetape.eventlog.envelope import Event, encode
from codetape.eventlog.events import Answered, Requested
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.eventlog.structure import closed_calls
from codetape.playback.strict_replay import is_derived, made_by
from codetape.ports import Stream
from codetape.text.records import records
from codetape.text.unified_diff import unified

AT_START = ("skip_tests", "packages", "system_packages", "commands", "sandbox")
"""Settings that a session reads when it starts: changed later, they have no effect, or half of it."""

BUDGETS = ("max_cost", "max_tokens", "max_seconds")
"""Settings that stop a session and change no request or decision."""

_ONLY_REQUESTS = {"model", "parameters", "max_output_tokens", "system_prompt"}
_CUT = 4000
ReuseKind = Literal["reused", "made", "unknown", "dropped"]
Key = tuple[str, int]
"""A request's fingerprint, and how often the session was answered it before."""


@dataclass(frozen=True)
class Change:
    """What is changed: the prompt pack, if any, and fields of the configuration, ``model`` among them.

    ``facts`` are those of the sandbox that a fork would run in, if known: prompts and decisions may depend on them.
    """

    pack: Mapping[str, str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: SandboxFacts | None = None

    def __post_init__(self) -> None:
        if wrong := sorted(set(self.config) & {*AT_START}):
            raise UsageError(
                f"{wrong[0]} is taken up when a session starts: no fork can change it.",
                remedy="Make new sessions, with `codetape run`.",
            )
        if wrong := sorted(set(self.config) & {*BUDGETS}):
            raise UsageError(
                f"{wrong[0]} is a budget: it ends a session, and changes no request.",
                remedy="`codetape backtest limits` says what it would have ended.",
            )
        if wrong := sorted(set(self.config) - {*Config.model_fields}):
            raise UsageError(
                f"The configuration has no {', '.join(wrong)}.", remedy="`codetape show --json` shows one."
            )

    @property
    def decides(self) -> bool:
        """Whether decisions may differ, and not only requests."""
        return self.facts is not None or not set(self.config) <= _ONLY_REQUESTS

    def under(self, session: SessionState) -> SessionState:
        """Return a state as it would be under the change. Raises UsageError for an invalid value."""
        try:
            config = (
                Config.model_validate({**session.the_config.model_dump(mode="json"), **self.config})
                if self.config
                else session.the_config
            )
        except ValidationError as error:
            wrong = ", ".join(sorted({str(e["loc"][0]) for e in error.errors()}))
            raise UsageError(f"The configuration has no such value: {wrong}.") from error
        if self.facts is not None:
            config = config.model_copy(update={"sandbox": self.facts})
        return session.evolve(config=config, pack=session.pack if self.pack is None else self.pack)

    def on(self, facts: SandboxFacts) -> "Change":
        """Return the change for a session that ran in such a sandbox: without facts, where they are the same."""
        same = self.facts is None or self.facts.model_copy(update={"why": facts.why}) == facts
        return replace(self, facts=None) if same else self


@dataclass(frozen=True)
class SimulatedCall:
    """One recorded reply, and its reuse under the change. Tokens are an estimate where the call is made again.

    ``occurrence`` counts how often the very same request was answered in the session before.
    """

    session: str
    task: str
    seq: int
    purpose: str
    reuse: ReuseKind
    input_tokens: int
    output_tokens: int
    fingerprint: str
    occurrence: int


@dataclass(frozen=True)
class FirstChange:
    """The first event that differs. ``what`` is request or decision; ``shown`` says how it differs."""

    seq: int
    purpose: str
    what: Literal["request", "decision"]
    shown: str


@dataclass(frozen=True)
class WhatIf:
    """What the change would do to one session. ``fork_at`` is the last event that stays, where anything differs.

    ``first_call`` is the purpose and fingerprint of the first call that would be made; empty where none would, or where
    it is unknown. ``config`` is the session's own at its end. ``ends`` says how the session would end without another
    call.
    """

    session: str
    task: str
    status: str
    graded: Literal["oracle", "self"]
    first: FirstChange | None
    fork_at: int | None
    calls: tuple[SimulatedCall, ...]
    config: Config
    first_call: tuple[str, str] = ("", "")
    ends: str = ""

    @property
    def differs(self) -> bool:
        """Whether the change changes anything."""
        return self.first is not None

    def tokens(self, reuse: ReuseKind) -> tuple[int, int]:
        """Return input and output tokens of the calls with a reuse."""
        calls = [c for c in self.calls if c.reuse == reuse]
        return sum(c.input_tokens for c in calls), sum(c.output_tokens for c in calls)

    def count(self, reuse: ReuseKind) -> int:
        """Return how many calls have a reuse."""
        return sum(c.reuse == reuse for c in self.calls)

    def record(self) -> dict[str, Any]:
        """Return one flat record of the session, for a table."""
        first = self.first
        row: dict[str, Any] = {
            "session": self.session, "task": self.task, "status": self.status, "graded": self.graded,
            "differs": self.differs, "first_seq": first.seq if first else None, "first": first.purpose if first else "",
            "first_what": first.what if first else "", "fork_at": self.fork_at, "ends": self.ends,
        }  # fmt: skip
        for reuse in ("reused", "made", "unknown", "dropped"):
            tokens = self.tokens(reuse)
            row |= {reuse: self.count(reuse), f"{reuse}_input": tokens[0], f"{reuse}_output": tokens[1]}
        return row

    def records(self) -> list[dict[str, Any]]:
        """Return one flat record per call."""
        return records(self.calls)


def simulate(stream: Stream, change: Change) -> WhatIf:
    """Say what a change would do to a recorded session.

    Raises UsageError for an invalid value, CorruptTape for a bad log.
    """
    session, before, split = SessionState(), SessionState(), None
    command: Command | None = None
    for number, event in enumerate(stream.events):
        if event.seq == 1:
            change = change.on(session.the_config.sandbox)
        if event.seq and _looked_at(event, change):
            command = _decided(change.under(session))
            if _differs(event, command) and not _drifted(event, command, session):
                split, before = number, session
                break
        session = apply(session, event, stream.texts)
    asked = _Asked(stream)
    if split is None:
        return _result(session, asked.all("reused"))
    event = stream.events[split]
    first = _first(event, command, stream)
    after = _After(before, change, command)
    for later in stream.events[split:]:  # the reuse of a later call depends on the recorded state at its request
        if isinstance(later.payload, Requested):
            asked.states[later.seq] = session.state
        session = apply(session, later, stream.texts)
    calls = [asked.call(seq, "reused") for seq in asked.seqs if seq < event.seq]
    calls += [asked.call(seq, *after.reuse(asked, seq)) for seq in asked.seqs if seq >= event.seq]
    return _result(session, calls, first, event.seq - 1, after.first_call(asked), after.ends)


def _looked_at(event: Event, change: Change) -> bool:
    payload = event.payload
    if isinstance(payload, Requested):
        return payload.effect == "ask" or change.decides
    return change.decides and is_derived(payload)


def _decided(session: SessionState) -> Command | None:
    """Return the next command; None where a pack does not render, which is a difference too."""
    try:
        return decide(session)
    except CodetapeError:
        return None


def _drifted(event: Event, command: Command | None, session: SessionState) -> bool:
    """Whether a decision differs without the change too: then these versions cause it, and the log is followed."""
    if isinstance(event.payload, Requested) or not isinstance(command, Record):
        return False
    plain = _decided(session)
    return isinstance(plain, Record) and plain.draft.payload == command.draft.payload


def _differs(event: Event, command: Command | None) -> bool:
    payload = event.payload
    if isinstance(payload, Requested):
        return isinstance(command, Record) or command is None or made_by(command).fingerprint != payload.fingerprint
    if not isinstance(command, Record):
        return True
    derived = command.draft.payload
    return type(derived) is not type(payload) or (
        derived != payload and canonical(derived.model_dump(mode="json")) != event.stored_payload
    )


def _first(event: Event, command: Command | None, stream: Stream) -> FirstChange:
    payload = event.payload
    if isinstance(payload, Requested) and isinstance(command, CallModel):
        old = [(role, stream.texts[ref]) for role, ref in payload.messages]
        new = [(m.role, m.content) for m in command.request.messages]
        parts = [
            f"@ message {number + 1} ({after[0]})\n{unified(before[1], after[1])}"
            for number, (before, after) in enumerate(zip(old, new, strict=False))
            if before != after
        ]
        beside = f"recorded {stream.texts[payload.detail]}\nnow      {canonical(command.request.detail)}"
        return FirstChange(event.seq, command.request.purpose, "request", ("\n".join(parts) or beside)[:_CUT])
    was = (
        payload.purpose if isinstance(payload, Requested) else f"{event.kind} {getattr(payload, 'reason', '')}".strip()
    )
    if isinstance(command, Record):
        derived = command.draft.payload
        now = f"{type(derived).__name__} {getattr(derived, 'reason', '')}".strip()
    else:
        now = f"a request for {getattr(made_by(command), 'purpose', 'build')}" if command else "nothing"
    return FirstChange(event.seq, was, "decision", f"recorded: {was}; now: {now}")


class _Asked:
    """A stream's answered model calls, by the seq of their Requested."""

    def __init__(self, stream: Stream) -> None:
        self._requests: dict[int, Requested] = {}
        self._answers: dict[int, Answered] = {}
        self._occurrence: dict[int, int] = {}
        self.states: dict[int, str] = {}
        self.session = stream.events[-1].session if stream.events else ""
        counts: Counter[str] = Counter()
        for event, closing in closed_calls(stream.events):
            if isinstance(event.payload, Requested) and isinstance(closing.payload, Answered):
                fingerprint = event.payload.fingerprint
                self._requests[event.seq], self._answers[event.seq] = event.payload, closing.payload
                self._occurrence[event.seq] = counts[fingerprint]
                counts[fingerprint] += 1

    @property
    def seqs(self) -> list[int]:
        """The seqs of the answered calls."""
        return list(self._answers)

    @property
    def fingerprints(self) -> set[str]:
        """The fingerprints of all answered requests."""
        return {self._requests[seq].fingerprint for seq in self._answers}

    def request(self, seq: int) -> Requested:
        """Return the request at a seq."""
        return self._requests[seq]

    def all(self, reuse: ReuseKind) -> list[SimulatedCall]:
        """Return all calls, each with this reuse."""
        return [self.call(seq, reuse) for seq in self.seqs]

    def call(self, seq: int, reuse: ReuseKind, estimate: int | None = None) -> SimulatedCall:
        """Return the call; ``estimate`` is the new request's, scaled by how far the recorded estimate was off."""
        request, usage = self._requests[seq], self._answers[seq].usage
        tokens = usage.total_input
        if estimate is not None:
            tokens = (
                round(estimate * tokens / request.input_estimate) if request.input_estimate and tokens else estimate
            )
        return SimulatedCall(
            self.session,
            "",
            seq,
            request.purpose,
            reuse,
            tokens,
            usage.total_output,
            request.fingerprint,
            self._occurrence[seq],
        )


class _After:
    """What can be said of the session from its first difference on."""

    def __init__(self, session: SessionState, change: Change, command: Command | None) -> None:
        self._old, self._new = session, change.under(session)
        self._first = command
        self._requests_by_purpose: dict[str, tuple[str, Any]] = {}
        self._first_matched = False
        self.ends = ""
        self._follow()

    def _follow(self) -> None:
        """Take the decisions that need nothing from outside, up to the first effect or the end."""
        session, command = self._new, self._first
        for _ in range(100):  # a bound, in case the rules never reach an effect
            if not isinstance(command, Record):
                break
            draft = command.draft
            session = apply(
                session,
                encode(session.session, session.seq, session.ended_at, draft.payload, session.head),
                draft.texts,
            )
            command = _decided(session)
        self._first = command
        if command is None and session.state not in machine.ACTIVE:
            self.ends = f"{session.state}: {session.cause or session.reason}".rstrip(": ")

    def first_call(self, asked: _Asked) -> tuple[str, str]:
        """Return the first call that would be made, where it is known and not recorded."""
        if isinstance(self._first, CallModel) and self._first.request.fingerprint not in asked.fingerprints:
            return self._first.request.purpose, self._first.request.fingerprint
        return "", ""

    def reuse(self, asked: _Asked, seq: int) -> tuple[ReuseKind, int | None]:
        """Return the reuse of a recorded reply, and the new request's estimate where there is one."""
        request = asked.request(seq)
        if self.ends:
            return "dropped", None
        if (
            isinstance(self._first, CallModel)
            and self._first.request.purpose == request.purpose
            and not self._first_matched
        ):
            self._first_matched = True
            if self._first.request.fingerprint != request.fingerprint:
                return "made", self._first.request.input_estimate
        old, new = self._rendered(asked.states.get(seq, ""), request.purpose)
        if old != request.fingerprint or new is None:
            return "unknown", None
        return ("reused", None) if new.fingerprint == request.fingerprint else ("made", new.input_estimate)

    def _rendered(self, state: str, purpose: str) -> tuple[str, Any]:
        """Return a later state's request, rendered from the state before the first difference.

        The pair is the fingerprint without the change and the request with it; empty where it cannot be rendered.
        """
        if purpose not in self._requests_by_purpose:
            requests: tuple[str, Any] = ("", None)
            if PURPOSE_OF.get(state) == purpose and (self._old.work.plan is not None or purpose == "plan"):
                try:
                    requests = (
                        ask(self._old.evolve(state=state)).request.fingerprint,
                        ask(self._new.evolve(state=state)).request,
                    )
                except CodetapeError:
                    requests = ("", None)
            self._requests_by_purpose[purpose] = requests
        return self._requests_by_purpose[purpose]


def _result(
    session: SessionState,
    calls: list[SimulatedCall],
    first: FirstChange | None = None,
    fork_at: int | None = None,
    first_call: tuple[str, str] = ("", ""),
    ends: str = "",
) -> WhatIf:
    task = session.the_task
    return WhatIf(
        session=session.session,
        task=task.id,
        status=session.state,
        graded="oracle" if task.oracle else "self",
        first=first,
        fork_at=fork_at,
        calls=tuple(replace(call, task=task.id) for call in calls),
        config=session.the_config,
        first_call=first_call,
        ends=ends,
    )
