"""The regression test of a change of prompts, model or settings: recorded sessions, resumed afresh from where it
matters.

Each session of a corpus is forked at its first request that the change alters, and run live from there, k times;
answers that
rest on nothing new are reused. The outcomes are compared task by task with a control: the old prompts run afresh from
the same state, a former report, or past outcomes where nobody chose them for what they were.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from codetape.decider.environments import most_calls
from codetape.domain.budget import Limit
from codetape.domain.canonical import canonical, sha256
from codetape.domain.task import Grade
from codetape.errors import CodetapeError, UsageError
from codetape.evals.attempt import Attempt
from codetape.evals.batch import Progress, all_of, loaded, recorded
from codetape.evals.corpus import Corpus, CorpusSession
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import PersonAnswered
from codetape.eventlog.session_state import SessionState
from codetape.playback.recorded_model import Key, RecordedThenLive, answered, answers
from codetape.playback.whatif import Change, ReuseKind, WhatIf, simulate
from codetape.ports import Model, Stream, complete, same_server
from codetape.runtime import plugins
from codetape.runtime.agent import AutoCoderAgent

Arm = Literal["candidate", "control"]
REUSE_KINDS: tuple[ReuseKind, ...] = ("reused", "made", "unknown", "dropped")


@dataclass(frozen=True)
class PlannedSession:
    """One session of the corpus, and what the change would do to it; small, for there may be many.

    ``control_`` figures are what the old prompts would ask for afresh from the same state, as recorded; ``worst_`` ones
    bound
    what one continuation can come to.
    """

    session: str
    head: str
    task: str
    graded: Grade
    solved: bool
    model: str
    fork_at: int | None
    first: str
    reusable: frozenset[Key]
    calls: Mapping[str, int]
    input_tokens: Mapping[str, int]
    output_tokens: Mapping[str, int]
    control_calls: int = 0
    control_input: int = 0
    control_output: int = 0
    drifted: bool = False
    file: str = ""
    worst_calls: int = 0
    worst_tokens: int = 0
    server: str | None = None

    @classmethod
    def of(cls, found: WhatIf, member: CorpusSession, *, drifted: bool = False) -> "PlannedSession":
        """Make the record from what was simulated. ``drifted`` says that the session ran in another sandbox than the
        check will."""
        tokens: dict[ReuseKind, tuple[int, int]] = {reuse: found.tokens(reuse) for reuse in REUSE_KINDS}
        after = found.fork_at if found.fork_at is not None else 0
        again = [c for c in found.calls if c.seq > after and c.reuse != "reused"] if found.differs else []
        return cls(
            session=found.session,
            head=str(member.row["head"]),
            task=found.task,
            graded=found.graded,
            solved=found.status == "succeeded",
            model=member.model,
            fork_at=found.fork_at,
            first=found.first.purpose if found.first else "",
            reusable=frozenset(
                (c.fingerprint, c.occurrence) for c in found.calls if c.reuse == "reused" and c.seq > after
            ),
            calls={reuse: found.count(reuse) for reuse in REUSE_KINDS},
            input_tokens={reuse: pair[0] for reuse, pair in tokens.items()},
            output_tokens={reuse: pair[1] for reuse, pair in tokens.items()},
            control_calls=len(again),
            control_input=sum(call.input_tokens for call in again),
            control_output=sum(call.output_tokens for call in again),
            drifted=drifted,
            file=member.file,
            server=found.config.server,
            worst_calls=most_calls(found.config) if found.differs else 0,
            worst_tokens=_most_tokens(found) if found.differs else 0,
        )


def _most_tokens(found: WhatIf) -> int:
    """Return a bound on the tokens of one continuation: every call as long as the longest recorded, or its own
    budget."""
    longest = max((call.input_tokens for call in found.calls), default=0)
    most = most_calls(found.config) * (longest + found.config.max_output_tokens)
    return most if found.config.max_tokens is None else min(most, found.config.max_tokens)


@dataclass(frozen=True)
class CheckPlan:
    """What a check would do: its id, the sessions that the change alters, and those that it leaves alone or that never
    ended.

    The id is the hash of the change, of where it is run, and of the round: a check that is begun again resumes the
    attempts that
    it has. ``selected`` says that sessions were chosen for how they ended, or one by one.
    """

    id: str
    change: Change
    changed: tuple[PlannedSession, ...]
    same: tuple[PlannedSession, ...]
    skipped: tuple[str, ...]
    selected: bool
    number: int = 1

    def sums(self) -> dict[str, dict[str, int]]:
        """Return calls and tokens by reuse, over the sessions that the change alters, one attempt each."""
        found: dict[str, dict[str, int]] = {reuse: {"calls": 0, "input": 0, "output": 0} for reuse in REUSE_KINDS}
        for one in (*self.changed, *self.same):
            for reuse in REUSE_KINDS:
                found[reuse]["calls"] += one.calls[reuse]
                found[reuse]["input"] += one.input_tokens[reuse]
                found[reuse]["output"] += one.output_tokens[reuse]
        return found


@dataclass(frozen=True)
class AttemptOutcome:
    """One attempt of one arm, on one session of the corpus."""

    arm: Arm
    parent: str
    made: Attempt


@dataclass(frozen=True)
class Checked:
    """All outcomes of a check. ``stopped_by_budget`` says that some attempts were not made."""

    plan: CheckPlan
    outcomes: tuple[AttemptOutcome, ...]
    stopped_by_budget: bool = False
    found: int = 0


def check_id(change: Change, number: int = 1, where: tuple[str, ...] = ()) -> str:
    """Return a check's id: 12 hex digits. Another ``number`` draws fresh attempts at the same change.

    ``where`` names what answers beside the model's name: servers, an object's class. The sandbox's facts are the
    change's.
    """
    pack = sorted((change.pack or {}).items())
    facts = change.facts.model_dump(mode="json", exclude={"why"}) if change.facts else None
    return sha256(canonical([pack, change.pack is None, dict(change.config), number, list(where), facts]))[:12]


async def planned(corpus: Corpus, change: Change, *, number: int = 1, where: tuple[str, ...] = ()) -> CheckPlan:
    """Say what a check of a corpus would do. No call is made, and no session is held longer than it is looked at.

    The change should hold the facts of the sandbox that the check will run in: where sessions ran in another, more may
    differ.
    """
    changed: list[PlannedSession] = []
    same: list[PlannedSession] = []
    skipped = []
    async for member, stream in corpus.members():
        if why := _unfit(member, stream):
            skipped.append(f"{member.name} {why}")
            continue
        found = simulate(stream, replace(change, facts=None))
        if not found.differs:  # another sandbox alone is no change of what is tested
            same.append(PlannedSession.of(found, member))
            continue
        here = change.on(found.config.sandbox).facts is None
        changed.append(PlannedSession.of(found if here else simulate(stream, change), member, drifted=not here))
    made = check_id(change, number, where)
    return CheckPlan(made, change, tuple(changed), tuple(same), tuple(skipped), corpus.selected, number)


def _unfit(member: CorpusSession, stream: Stream) -> str:
    """Return why a session cannot be resumed by itself; empty where it can."""
    if not member.ended:
        return f"is {member.state}"
    if any(tag.startswith("check:") for tag in str(member.row["tags"]).split(",")):
        return "is an attempt of a check"
    if any(isinstance(event.payload, PersonAnswered) for event in stream.events):
        return "rests on a person's answer"
    return ""


@dataclass(frozen=True)
class CheckSetup:
    """What a check runs with: an agent for each arm, whose model is a name or an object, and how much at once."""

    candidate: AutoCoderAgent
    control: AutoCoderAgent | None = None
    attempts: int = 1
    concurrent: int = 1
    max_tokens: int | None = None
    max_cost: int | None = None
    on_progress: Callable[[Progress, AttemptOutcome | None], None] | None = None
    on_event: Callable[[Event, SessionState], None] | None = field(default=None)


async def run(plan: CheckPlan, live: CheckSetup) -> Checked:
    """Make the attempts of a check, or resume them. Its sessions carry the label ``check:ID``, which is its budget's
    scope too.

    An attempt that an outage, a question or a budget stopped has no outcome; the same check resumes it.
    """
    if not 1 <= live.attempts <= 1000 or not 1 <= live.concurrent <= 256:
        raise UsageError("A check makes 1 to 1000 attempts a session, 1 to 256 of them at once.")
    work = _Work(plan, live)
    if live.on_progress:
        live.on_progress(work.progress, None)
    made = await all_of([work.attempt(*one) for one in work.list])
    return Checked(plan, tuple(o for o in made if o is not None), work.spent, work.found)


class _Work:
    """The attempts of a check, made up to so many at once."""

    def __init__(self, plan: CheckPlan, live: CheckSetup) -> None:
        self.plan, self.live = plan, live
        tag = f"check:{plan.id}"
        budget = Limit(f"tag:{tag}", live.max_tokens, live.max_cost)
        limit = (budget,) if (budget.tokens, budget.cost) != (None, None) else ()
        self.agents: dict[Arm, AutoCoderAgent] = {"candidate": self._shared(live.candidate, limit)}
        if live.control is not None:
            same_store = replace(
                live.control, store=self.agents["candidate"].store, sandbox=self.agents["candidate"].sandbox
            )
            self.agents["control"] = self._shared(same_store, limit)
        self.store = self.agents["candidate"].opened_store()
        self.known = {row["session"] for row in self.store.sessions().rows if row["parent"]}
        self.tag = tag
        self.list: list[tuple[PlannedSession, Arm, int]] = [
            (one, arm, number) for one in plan.changed for number in range(1, live.attempts + 1) for arm in self.agents
        ]
        self._try_models()
        self.slots = asyncio.Semaphore(live.concurrent)
        self.progress = Progress(len(self.list))
        self.spent, self.found = False, 0

    def _try_models(self) -> None:
        """Make each model once, before anything is begun: a missing key, or another server, is told now. Raises
        UsageError."""
        for arm, agent in self.agents.items():
            live = [one for one in self.plan.changed if one.control_calls or arm == "candidate"]
            for one in {(one.model, one.server): one for one in live}.values():
                name = self._model(one, arm)
                other = name.partition(":")[0] != one.model.partition(":")[0]
                named = agent.base_url is not None and agent.server_named
                same_server(one.server, _maker(agent, name)(), named=named or other)

    def _model(self, one: PlannedSession, arm: Arm) -> str:
        return str(self.plan.change.config.get("model", one.model)) if arm == "candidate" else one.model

    @staticmethod
    def _shared(agent: AutoCoderAgent, limit: tuple[Limit, ...]) -> AutoCoderAgent:
        return replace(agent.resolved(), limits=(*agent.limits, *limit))

    async def attempt(self, one: PlannedSession, arm: Arm, number: int) -> AttemptOutcome | None:
        """Make one attempt, or find it made; None where a budget forbade to begin it."""
        async with self.slots:
            session = sha256(canonical([self.plan.id, arm, one.session, one.head, number]))[:16]
            if self.spent and session not in self.known:
                return None
            made = await self._made(one, arm, number, session)
            self.spent = (
                self.spent or made.cause == "budget"
            )  # a session of a check has no budget of its own: a shared one is spent
            outcome = AttemptOutcome(arm, one.session, made)
            self.progress = self.progress.plus(made)
            if self.live.on_progress:
                self.live.on_progress(self.progress, outcome)
            return outcome

    async def _made(self, one: PlannedSession, arm: Arm, number: int, session: str) -> Attempt:
        last: list[SessionState] = []

        def hook(event: Event, state: SessionState) -> None:
            last[:] = [state]
            if self.live.on_event:
                self.live.on_event(event, state)

        try:
            there = await recorded(self.store, session)
            if there is not None and there.state in ("succeeded", "failed"):
                self.found += 1
                return Attempt.of(there, number)
            await self._go(one, arm, session, there is not None, hook)
            return Attempt.of(last[-1] if last else await loaded(self.store, session), number)
        except CodetapeError as error:
            if isinstance(error, UsageError) and not last:
                raise  # nothing was begun: what is asked for cannot be
            with suppress(CodetapeError):
                if (there := await loaded(self.store, session)).state in ("succeeded", "failed"):
                    return Attempt.of(there, number)  # another process was quicker
            return Attempt(one.task, number, session, "error", None, one.graded, cause="error", reason=str(error))

    async def _go(self, one: PlannedSession, arm: Arm, session: str, there: bool, hook: Any) -> None:
        agent, change = self.agents[arm], self.plan.change
        parent: Stream = await self.store.read(one.session)
        known = {key: reply for key, reply in answers(parent).items() if key in one.reusable}
        model = self._model(one, arm)
        before = (
            await self.store.read(session) if there else Stream(parent.events[: (one.fork_at or 0) + 1], parent.texts)
        )
        counts = Counter(fingerprint for fingerprint, _, _ in answered(before))
        reusing = RecordedThenLive(model, _maker(agent, model), known, counts)
        if there:
            await replace(agent, model=reusing, prompts=None).aresume(session, on_event=hook)
            return
        pack = change.pack if arm == "candidate" else None
        changes = {k: v for k, v in change.config.items() if k != "model"} if arm == "candidate" else {}
        changes |= {"max_tokens": None, "max_cost": "", "max_seconds": None}  # the check has a budget of its own
        agent = replace(agent, model=reusing, prompts=pack)
        await agent.afork(one.session, one.fork_at or 0, changes=changes, fork=session, tags=(self.tag,), on_event=hook)


def _maker(agent: AutoCoderAgent, name: str) -> Callable[[], Model]:
    """Return what makes the live model: the agent's own object, or one by the recorded name."""
    if not isinstance(agent.model, str):
        given = complete(agent.model)
        return lambda: given
    options = {"base_url": agent.base_url, "api_key_env": agent.api_key_env, **agent.model_options}
    return lambda: plugins.model(name, options)
