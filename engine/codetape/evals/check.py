"""A regression test of a change of prompts, model or settings on recorded sessions, run live from where it matters.

Each session of a corpus is forked at its first request that the change alters, and run live from there, k times.
Replies that depend on nothing new are reused. The outcomes are compared task by task with a control: the old prompts
run again from the same state, a former report, or past outcomes where nobody selected sessions by outcome.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from codetape.decider.environments import most_calls
from codetape.domain.budget import Limit
from codetape.domain.canonical import canonical, sha256
from codetape.domain.task import Grade
from codetape.errors import CodetapeError, UsageError
from codetape.evals.attempt import Attempt
from codetape.evals.chosen_sessions import CHECK_TAG
from codetape.evals.corpus import Corpus, CorpusSession
from codetape.evals.task_series import Progress, all_of, loaded, recorded, together
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import PersonAnswered, SessionForked, SessionStarted
from codetape.eventlog.session_state import SessionState
from codetape.playback.recorded_model import Key, RecordedThenLive, answers
from codetape.playback.whatif import Change, ReuseKind, WhatIf, simulate
from codetape.ports import Model, Stream, complete, same_server
from codetape.runtime import plugins
from codetape.runtime.agent import AutoCoderAgent
from codetape.runtime.batched_calls import no_batches
from codetape.text.unified_diff import unified

Arm = Literal["candidate", "control"]
REUSE_KINDS: tuple[ReuseKind, ...] = ("reused", "made", "unknown", "dropped")


@dataclass(frozen=True)
class PlannedSession:
    """One session of the corpus, and what the change would do to it; kept small, for there may be many.

    ``control_`` figures are what the old prompts would call again from the same state, as recorded; ``worst_`` ones
    are an upper bound for one continuation.
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
    worst_input: int = 0
    worst_output: int = 0
    server: str | None = None
    api: str = ""

    @classmethod
    def of(cls, found: WhatIf, member: CorpusSession, *, drifted: bool = False) -> "PlannedSession":
        """Make the record from a simulation. ``drifted``: the session ran in another sandbox than the check will."""
        tokens: dict[ReuseKind, tuple[int, int]] = {reuse: found.tokens(reuse) for reuse in REUSE_KINDS}
        after = found.fork_at if found.fork_at is not None else 0
        rerun_calls = [c for c in found.calls if c.seq > after and c.reuse != "reused"] if found.differs else []
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
            control_calls=len(rerun_calls),
            control_input=sum(call.input_tokens for call in rerun_calls),
            control_output=sum(call.output_tokens for call in rerun_calls),
            drifted=drifted,
            file=member.file,
            server=found.config.server,
            api=found.config.api,
            worst_calls=most_calls(found.config) if found.differs else 0,
            worst_input=_most_tokens(found)[0] if found.differs else 0,
            worst_output=_most_tokens(found)[1] if found.differs else 0,
        )

    @property
    def worst_tokens(self) -> int:
        """An upper bound on the tokens of one continuation."""
        return self.worst_input + self.worst_output


def _most_tokens(simulated: WhatIf) -> tuple[int, int]:
    """Return an upper bound on the tokens of one continuation, in and out.

    Every call counts as much input as the longest recorded one; the session's own budget caps the sum.
    """
    longest = max((call.input_tokens for call in simulated.calls), default=0)
    calls, budget = most_calls(simulated.config), simulated.config.max_tokens
    given, made = calls * longest, calls * simulated.config.max_output_tokens
    if budget is None or given + made <= budget:
        return given, made
    return max(0, budget - made), min(made, budget)  # output is the dearer of the two


@dataclass(frozen=True)
class CheckPlan:
    """What a check would do: the sessions that the change alters, those that it leaves alone, and the skipped ones.

    The id is the hash of the change, of where it runs, and of the round: a check that is started again resumes the
    attempts that it has. ``selected`` says that sessions were chosen for how they ended, or one by one. ``prompt_changes`` are the prompts' files
    that differ from those of the first session that the change alters, each with its difference.
    """

    id: str
    change: Change
    changed: tuple[PlannedSession, ...]
    same: tuple[PlannedSession, ...]
    skipped: tuple[str, ...]
    selected: bool
    number: int = 1
    prompt_changes: tuple[tuple[str, str], ...] = ()

    def attempts(self, each: int) -> list[tuple[PlannedSession, int]]:
        """Return ``each`` attempts a task: the session that each continues, and its number among that session's.

        A task with several sessions has its attempts spread over them, so that no task weighs more than another.
        """
        tasks: dict[str, list[PlannedSession]] = {}
        for session in self.changed:
            tasks.setdefault(session.task, []).append(session)
        return [
            (sessions[number % len(sessions)], number // len(sessions) + 1)
            for sessions in tasks.values()
            for number in range(each)
        ]

    def sums(self, each: int | None = None) -> dict[str, dict[str, int]]:
        """Return calls and tokens by reuse: of so many attempts a task, or over all planned sessions, one attempt each."""
        totals: dict[str, dict[str, int]] = {reuse: {"calls": 0, "input": 0, "output": 0} for reuse in REUSE_KINDS}
        planned = (*self.changed, *self.same) if each is None else [session for session, _ in self.attempts(each)]
        for session in planned:
            for reuse in REUSE_KINDS:
                totals[reuse]["calls"] += session.calls[reuse]
                totals[reuse]["input"] += session.input_tokens[reuse]
                totals[reuse]["output"] += session.output_tokens[reuse]
        return totals


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
    """Return a check's id: 12 hex digits. Another ``number`` makes new attempts at the same change.

    ``where`` names what answers besides the model's name: servers, an object's class. The sandbox's facts are the
    change's.
    """
    pack = sorted((change.pack or {}).items())
    facts = change.facts.model_dump(mode="json", exclude={"why"}) if change.facts else None
    return sha256(canonical([pack, change.pack is None, dict(change.config), number, list(where), facts]))[:12]


def attempt_id(check: str, arm: Arm, origin: str, head: str, number: int) -> str:
    """Return the session id of an attempt: the same check finds its attempts by it."""
    return sha256(canonical([check, arm, origin, head, number]))[:16]


async def planned(
    corpus: Corpus, change: Change, *, number: int = 1, where: tuple[str, ...] = (), jobs: int = 1
) -> CheckPlan:
    """Say what a check of a corpus would do. No call is made, and one session at a time is in memory, of each of ``jobs``
    processes.

    The change should hold the facts of the sandbox that the check will run in: where sessions ran in another, more may
    differ.
    """
    changed: list[PlannedSession] = []
    same: list[PlannedSession] = []
    skipped: list[str] = []
    prompt_changes: tuple[tuple[str, str], ...] = ()
    async for one in corpus.each(partial(_look_ahead, change), jobs):
        if one.session is None:
            skipped.append(one.unfit)
        elif one.differs:
            prompt_changes = prompt_changes or one.prompt_changes
            changed.append(one.session)
        else:
            same.append(one.session)
    plan_id = check_id(change, number, where)
    return CheckPlan(
        plan_id, change, tuple(changed), tuple(same), tuple(skipped), corpus.selected, number, prompt_changes
    )


class _LookedAhead(NamedTuple):
    """What a check would do with a session: nothing where it is unfit, or where the change changes nothing."""

    session: "PlannedSession | None"
    differs: bool = False
    unfit: str = ""
    prompt_changes: tuple[tuple[str, str], ...] = ()


def _look_ahead(change: Change, member: CorpusSession, stream: Stream) -> _LookedAhead:
    if why := _unfit(member, stream):
        return _LookedAhead(None, unfit=f"{member.name} {why}")
    simulated = simulate(stream, replace(change, facts=None))
    if not simulated.differs:  # another sandbox alone is not the change under test
        return _LookedAhead(PlannedSession.of(simulated, member))
    pack = pack_of(stream)
    same_sandbox = change.on(simulated.config.sandbox).facts is None
    simulated = simulated if same_sandbox else simulate(stream, change)
    session = PlannedSession.of(simulated, member, drifted=not same_sandbox)
    return _LookedAhead(session, differs=True, prompt_changes=pack_changes(pack, change.pack or pack))


def pack_of(stream: Stream) -> dict[str, str]:
    """Return the prompt pack that a session ends with: its own, or that of the last fork that brought one."""
    packs = [e.payload.pack for e in stream.events if isinstance(e.payload, SessionStarted | SessionForked)]
    return {name: stream.texts[ref] for name, ref in next((pack for pack in reversed(packs) if pack), {}).items()}


def pack_changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the files of two prompt packs that differ, each with its difference."""
    names = sorted({*old, *new})
    return tuple(
        (name, unified(old.get(name, ""), new.get(name, ""))) for name in names if old.get(name) != new.get(name)
    )


def _unfit(member: CorpusSession, stream: Stream) -> str:
    """Return why a session cannot be run again unattended; empty where it can."""
    if not member.ended:
        return f"is {member.state}"
    if any(tag.startswith(CHECK_TAG) for tag in str(member.row["tags"]).split(",")):
        return "is an attempt of a check"
    if any(isinstance(event.payload, PersonAnswered) for event in stream.events):
        return "rests on a person's answer"
    return ""


@dataclass(frozen=True)
class CheckSetup:
    """What a check runs with: an agent for each arm, whose model is a name or an object, and its limits.

    ``in_batches`` and ``on_batch`` are those of `codetape.evals.task_series.run_tasks`.
    """

    candidate: AutoCoderAgent
    control: AutoCoderAgent | None = None
    attempts: int = 1
    concurrent: int = 1
    max_tokens: int | None = None
    max_cost: int | None = None
    on_progress: Callable[[Progress, AttemptOutcome | None], None] | None = None
    on_event: Callable[[Event, SessionState], None] | None = field(default=None)
    in_batches: bool = False
    on_batch: Callable[[str], None] = lambda _words: None


async def run(plan: CheckPlan, live: CheckSetup) -> Checked:
    """Make the attempts of a check, or resume them.

    Its sessions carry the label ``check:ID``, and its budget applies to that label. An attempt that an outage, a
    question or a budget stopped has no outcome; the same check resumes it.
    """
    if not 1 <= live.attempts <= 1000 or not 1 <= live.concurrent <= 256:
        raise UsageError("A check makes 1 to 1000 attempts a task, 1 to 256 of them at once.")
    work = _Work(plan, live)
    if live.on_progress:
        live.on_progress(work.progress, None)
    on_batch = live.on_batch if live.in_batches else None
    async with together(len(work.entries), live.concurrent, on_batch) as (batched, slots):
        work.agents = {arm: replace(agent, batched=batched) for arm, agent in work.agents.items()}
        outcomes = await all_of([work.attempt(*entry, slots) for entry in work.entries])
    return Checked(plan, tuple(o for o in outcomes if o is not None), work.budget_spent, work.ended_before)


class _Work:
    """The attempts of a check, and its progress. ``origin`` is the planned session that an attempt forks."""

    def __init__(self, plan: CheckPlan, live: CheckSetup) -> None:
        self.plan, self.live = plan, live
        tag = f"{CHECK_TAG}{plan.id}"
        budget = Limit(f"tag:{tag}", live.max_tokens, live.max_cost)
        limit = (budget,) if (budget.tokens, budget.cost) != (None, None) else ()
        self.agents: dict[Arm, AutoCoderAgent] = {"candidate": self._shared(live.candidate, limit)}
        if live.control is not None:
            same_store = replace(
                live.control, store=self.agents["candidate"].store, sandbox=self.agents["candidate"].sandbox
            )
            self.agents["control"] = self._shared(same_store, limit)
        self.store = self.agents["candidate"].opened_store()
        self.stored_ids = {row["session"] for row in self.store.sessions().rows if row["parent"]}
        self.tag = tag
        self.entries: list[tuple[PlannedSession, Arm, int]] = [
            (origin, arm, number) for origin, number in plan.attempts(live.attempts) for arm in self.agents
        ]
        self._try_models()
        self.progress = Progress(len(self.entries))
        self.budget_spent, self.ended_before = False, 0

    def _try_models(self) -> None:
        """Make each model once before anything starts: a missing key or another server is reported now.

        Raises UsageError.
        """
        for arm, agent in self.agents.items():
            origins = [origin for origin in self.plan.changed if origin.control_calls or arm == "candidate"]
            for origin in {(origin.model, origin.server): origin for origin in origins}.values():
                name = self._model(origin, arm)
                other_provider = not plugins.same_adapter(name, origin.model)
                named = agent.base_url is not None and agent.server_named
                made = _maker(agent, name, origin)()
                same_server(origin.server, made, named=named or other_provider)
                if self.live.in_batches and made.batches is None:
                    raise no_batches(made)

    def _model(self, origin: PlannedSession, arm: Arm) -> str:
        return str(self.plan.change.config.get("model", origin.model)) if arm == "candidate" else origin.model

    @staticmethod
    def _shared(agent: AutoCoderAgent, limit: tuple[Limit, ...]) -> AutoCoderAgent:
        return replace(agent.resolved(), limits=(*agent.limits, *limit))

    async def attempt(
        self, origin: PlannedSession, arm: Arm, number: int, slots: AbstractAsyncContextManager[None]
    ) -> AttemptOutcome | None:
        """Make one attempt, or find it ended; None where the budget did not allow a new one."""
        async with slots:
            session = attempt_id(self.plan.id, arm, origin.session, origin.head, number)
            if self.budget_spent and session not in self.stored_ids:
                return None
            attempt = await self._attempted(origin, arm, number, session)
            # a session of a check has no budget of its own: the shared one is spent
            self.budget_spent = self.budget_spent or attempt.cause == "budget"
            outcome = AttemptOutcome(arm, origin.session, attempt)
            self.progress = self.progress.plus(attempt)
            if self.live.on_progress:
                self.live.on_progress(self.progress, outcome)
            return outcome

    async def _attempted(self, origin: PlannedSession, arm: Arm, number: int, session: str) -> Attempt:
        last: list[SessionState] = []

        def hook(event: Event, state: SessionState) -> None:
            last[:] = [state]
            if self.live.on_event:
                self.live.on_event(event, state)

        try:
            stored_state = await recorded(self.store, session)
            if stored_state is not None and stored_state.state in ("succeeded", "failed"):
                self.ended_before += 1
                return Attempt.of(stored_state, number)
            await self._run(origin, arm, session, stored_state is not None, hook)
            return Attempt.of(last[-1] if last else await loaded(self.store, session), number)
        except CodetapeError as error:
            if isinstance(error, UsageError) and not last:
                raise  # nothing was started: the change itself is at fault, so the whole check stops
            with suppress(CodetapeError):
                if (stored_state := await loaded(self.store, session)).state in ("succeeded", "failed"):
                    return Attempt.of(stored_state, number)  # another process was quicker
            return Attempt(origin.task, number, session, "error", None, origin.graded, cause="error", reason=str(error))

    async def _run(self, origin: PlannedSession, arm: Arm, session: str, started: bool, hook: Any) -> None:
        agent, change = self.agents[arm], self.plan.change
        parent: Stream = await self.store.read(origin.session)
        replies = {key: reply for key, reply in answers(parent).items() if key in origin.reusable}
        model = self._model(origin, arm)
        before = (
            await self.store.read(session)
            if started
            else Stream(parent.events[: (origin.fork_at or 0) + 1], parent.texts)
        )
        model_with_replies = RecordedThenLive(model, _maker(agent, model, origin), replies, before.events)

        def on_event(event: Event, state: SessionState) -> None:
            model_with_replies.saw(event)
            hook(event, state)

        if started:
            await replace(agent, model=model_with_replies, prompts=None).aresume(session, on_event=on_event)
            return
        pack = change.pack if arm == "candidate" else None
        changes = {k: v for k, v in change.config.items() if k != "model"} if arm == "candidate" else {}
        changes |= {"max_tokens": None, "max_cost": "", "max_seconds": None}  # the check has a budget of its own
        agent = replace(agent, model=model_with_replies, prompts=pack)
        await agent.afork(
            origin.session, origin.fork_at or 0, changes=changes, fork=session, tags=(self.tag,), on_event=on_event
        )


def _maker(agent: AutoCoderAgent, name: str, origin: PlannedSession) -> Callable[[], Model]:
    """Return a function that makes the live model: the agent's own object, or one of that name by its recorded API."""
    if not isinstance(agent.model, str):
        model = complete(agent.model)
        return lambda: model
    api = {"api": origin.api} if origin.api and plugins.same_adapter(name, origin.model) else {}
    options = {"base_url": agent.base_url, "api_key_env": agent.api_key_env, **api, **agent.model_options}
    return lambda: plugins.model(name, options)
