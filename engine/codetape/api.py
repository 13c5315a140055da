"""Each study of sessions, orchestrated once: the command line and Python call the same functions."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from codetape.decider.remedies import EXAMPLE
from codetape.domain.money import pico
from codetape.domain.task import Task
from codetape.errors import UsageError
from codetape.evals import backtest, judge
from codetape.evals import check as regression
from codetape.evals.batch import Batch
from codetape.evals.batch import run_tasks as _run_tasks
from codetape.evals.corpus import Corpus, CorpusSession, Filter
from codetape.evals.judge import CheckReport
from codetape.evals.task_file import TaskSpec, read_tasks
from codetape.eventlog.envelope import Event
from codetape.eventlog.fold import fold
from codetape.eventlog.session_state import SessionState
from codetape.playback import pytest_export, strict_replay, tape_file
from codetape.playback.diff import SessionDiff, compare
from codetape.playback.strict_replay import Follow, Replayed
from codetape.playback.tape_file import is_tape
from codetape.playback.whatif import Change, WhatIf, simulate
from codetape.ports import EventStore, Model, Sandbox, Stream
from codetape.runtime import plugins
from codetape.runtime.agent import AutoCoderAgent, EventHook
from codetape.runtime.prompt_pack_files import load_pack
from codetape.runtime.result import GenerateResult
from codetape.runtime.sync import run_sync

DEFAULT_STORE = ".codetape/tape.db"
Store = str | Path | EventStore
Prompts = str | Path | Mapping[str, str]


def fork(
    session: str,
    at: int | str,
    *,
    store: Store = DEFAULT_STORE,
    model: str | Model | None = None,
    prompts: Prompts | None = None,
    changes: Mapping[str, Any] | None = None,
    say: str = "",
    reply: str | None = None,
    sandbox: str | Sandbox = "auto",
    on_event: EventHook | None = None,
    **settings: Any,
) -> GenerateResult:
    """Go on from a point of a recorded session, live, as a session of its own; see `AutoCoderAgent.afork`.

    ``settings`` are the agent's that say how its model is reached: base_url, api_key_env, model_options.
    """
    known = open_tape(session, store=store)
    agent = AutoCoderAgent(
        model=model or known.run.the_config.model, sandbox=sandbox, store=store, prompts=prompts, **settings
    )
    work = agent.afork(known.session, at, changes=changes, say=say, reply=reply, on_event=on_event)
    return run_sync(work)


def diff(a: str | Path, b: str | Path, *, store: Store = DEFAULT_STORE) -> SessionDiff:
    """Compare two sessions or tape files: where they part and why, and what differs after that."""
    return compare(open_tape(a, store=store).stream, open_tape(b, store=store).stream)


def sessions(*sources: str, store: Store = DEFAULT_STORE, where: Filter | None = None) -> list[CorpusSession]:
    """Return what is known of the sessions that are meant, newest first; ``row`` of each is a flat record."""

    async def look() -> list[CorpusSession]:
        return [member async for member, _ in _corpus(sources, store, where).members()]

    return run_sync(look())


async def awhatif(
    *sources: str,
    store: Store = DEFAULT_STORE,
    where: Filter | None = None,
    prompts: Prompts | None = None,
    model: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> AsyncIterator[WhatIf]:
    """Yield what a change would do to each session; none is held longer than it is looked at."""
    change = _change(prompts, model, changes)
    async for _, stream in _corpus(sources, store, where).members():
        yield simulate(stream, change)


def whatif(*sources: str, **options: Any) -> list[WhatIf]:
    """Return what a change would do to each session, without a call. Takes what `awhatif` takes."""

    async def look() -> list[WhatIf]:
        return [found async for found in awhatif(*sources, **options)]

    return run_sync(look())


def check(
    *sources: str,
    store: Store = DEFAULT_STORE,
    where: Filter | None = None,
    prompts: Prompts | None = None,
    model: str | Model | None = None,
    changes: Mapping[str, Any] | None = None,
    attempts: int = 1,
    concurrent: int = 1,
    control: bool = False,
    control_model: Model | None = None,
    baseline: str | Path | None = None,
    margin: float = judge.MARGIN,
    max_tokens: int | None = None,
    max_cost: str | None = None,
    number: int = 1,
    sandbox: str | Sandbox = "auto",
    on_progress: Any = None,
    **settings: Any,
) -> CheckReport:
    """Test a change on recorded sessions, live, and judge it; the same check goes on where it was stopped.

    ``model`` is another model's name, or an object that answers for the recorded ones; ``control_model`` is one for the
    control. ``max_cost`` is in dollars, such as "2.00". Sessions of tape files are put into the store. No question is asked: to see first what
    it would cost, call `whatif`.
    """
    if control and baseline is not None:
        raise UsageError("A check has one control: fresh runs, or a baseline.")
    change = _change(prompts, model if isinstance(model, str) else None, changes)
    corpus = _corpus(sources, store, where)
    known = judge.read_baseline(baseline) if baseline is not None else None

    async def work() -> CheckReport:
        kept = plugins.sandbox(sandbox) if isinstance(sandbox, str) else sandbox
        servers = (str(settings.get("base_url") or ""), *(_named(m) for m in (model, control_model)))
        plan = await regression.planned(corpus, replace(change, facts=kept.facts()), number=number, where=servers)
        judge.refuse_own(known, plan)
        opened: Any = _store_of(store)
        for one in plan.changed:
            if one.file:
                opened.put(tape_file.load(one.file).stream)
        name = plan.changed[0].model if plan.changed else "none"
        agent = AutoCoderAgent(model=model or name, sandbox=kept, store=opened, **settings)
        other = AutoCoderAgent(
            model=control_model or (model if model is not None and not isinstance(model, str) else name),
            sandbox=kept, store=opened, **settings,
        )  # fmt: skip
        live = regression.CheckSetup(
            candidate=agent,
            control=other if control else None,
            attempts=attempts,
            concurrent=concurrent,
            max_tokens=max_tokens,
            max_cost=pico(max_cost) if max_cost is not None else None,
            on_progress=on_progress,
        )
        checked = await regression.run(plan, live) if plan.changed else regression.Checked(plan, ())
        return judge.report(checked, control=control, baseline=known, margin=margin)

    return run_sync(work())


def backtest_rules(
    *sources: str, store: Store = DEFAULT_STORE, where: Filter | None = None
) -> list[backtest.ChangedDecision]:
    """Return every recorded decision or request that the present code derives otherwise."""

    async def look() -> list[backtest.ChangedDecision]:
        members = _corpus(sources, store, where).members()
        return [changed async for member, stream in members for changed in backtest.rules(member, stream)]

    return run_sync(look())


def backtest_limits(
    *sources: str,
    store: Store = DEFAULT_STORE,
    where: Filter | None = None,
    max_iterations: Iterable[int] = (),
    max_tokens: Iterable[int] = (),
) -> list[backtest.LimitOutcome]:
    """Return what each session would have come to under each limit; `backtests.summed` makes a row a limit."""
    wanted: list[tuple[backtest.LimitName, int]] = [("max_iterations", n) for n in max_iterations]
    wanted += [("max_tokens", n) for n in max_tokens]

    async def look() -> list[backtest.LimitOutcome]:
        members = _corpus(sources, store, where).members()
        return [backtest.under(stream, name, n) async for _, stream in members for name, n in wanted]

    return run_sync(look())


def run_tasks(tasks: str | Path | Iterable[TaskSpec], agent: AutoCoderAgent, **options: Any) -> Batch:
    """Run every task of a file several times, or go on with it. Takes what `batch.run_tasks` takes."""
    found = read_tasks(tasks) if isinstance(tasks, str | Path) else tuple(tasks)
    return run_sync(_run_tasks(agent, found, **options))


def pytest_file(session: str, seq: int | None = None, *, store: Store = DEFAULT_STORE) -> str:
    """Return the tests that failed in a session, with their code, as a pytest file that needs no codetape."""
    folder = Path(session).parent if is_tape(session) and session != "demo" else None
    return pytest_export.bundle(open_tape(session, store=store).stream, seq, folder=folder)


def _named(model: str | Model | None) -> str:
    return (
        model if isinstance(model, str) else f"{type(model).__qualname__} {getattr(model, 'name', '')}" if model else ""
    )


def _change(prompts: Prompts | None, model: str | None, changes: Mapping[str, Any] | None) -> Change:
    config = {**(changes or {}), **({"model": model} if model else {})}
    pack = load_pack(None if prompts == "current" else prompts) if prompts is not None else None
    if pack is None and not config:
        raise UsageError("Nothing is changed.", remedy="Give prompts, a model's name or changes.")
    return Change(pack, config)


def _corpus(sources: tuple[str, ...], store: Store, where: Filter | None) -> Corpus:
    wanted = not sources or not all(is_tape(source) or Path(source).is_dir() for source in sources)
    opened: Any = _store_of(store) if wanted else None
    return Corpus(opened, tuple(map(str, sources)), (where or Filter()).checked(datetime.now(UTC)))


def _store_of(store: Store) -> EventStore:
    return plugins.store(str(store)) if isinstance(store, str | Path) else store


@dataclass(frozen=True)
class RecordedSession:
    """A session as it is recorded: its events and texts, checked, and what they fold to."""

    session: str
    stream: Stream

    @property
    def events(self) -> tuple[Event, ...]:
        """The events in order."""
        return self.stream.events

    @property
    def texts(self) -> Mapping[str, str]:
        """The texts that the events refer to, by hash."""
        return self.stream.texts

    @cached_property
    def run(self) -> SessionState:
        """The state after the last event."""
        return fold(self.events, self.texts)

    @property
    def task(self) -> Task:
        """What was asked for."""
        return self.run.the_task

    @cached_property
    def result(self) -> GenerateResult:
        """The outcome, as `generate` gave it."""
        return GenerateResult.of(self.run, self.stream)

    @property
    def head(self) -> str:
        """The last event's hash: it covers everything before it."""
        return self.events[-1].hash


def open_tape(place: str | Path, *, store: str | Path | EventStore = DEFAULT_STORE) -> RecordedSession:
    """Read a tape file, or a session of a store. Hashes, chain and texts are checked.

    Raises UsageError where there is no such file, StoreError where there is no such session, CorruptTape for a bad one.
    """
    if not str(place):
        raise UsageError("No tape is named.", remedy="Give a file, or a session's id, or `last`.")
    if Path(place).is_file() or place == "demo":
        read = tape_file.load(str(place))
        return RecordedSession(read.session, read.stream)
    if isinstance(place, Path):
        raise UsageError(f"There is no tape {place}.")
    if str(place).endswith(".jsonl"):
        raise UsageError(f"There is no tape {place}.", remedy="A session is named by its id, or `last`.")
    opened = _opened(store)
    name = _found(opened, place)
    return RecordedSession(name, run_sync(opened.read(name)))


def replay(
    place: str | Path | RecordedSession,
    *,
    store: str | Path | EventStore = DEFAULT_STORE,
    prompts: str | Path = "recorded",
    rules: Follow = "recorded",
) -> Replayed:
    """Derive every request and decision of a recorded session anew, and compare. No key, sandbox or network.

    ``prompts`` is "recorded" for the pack on the tape, "current" for the one that ships, or a folder. ``rules`` says
    whether what only these versions derive otherwise is listed as drift ("recorded") or is a divergence ("current").
    Raises Divergence at the first event that differs, and what `open_tape` raises.
    """
    if rules not in ("recorded", "current"):
        raise UsageError(f"There are no rules {rules!r}.", remedy="Give recorded or current.")
    found = place if isinstance(place, RecordedSession) else open_tape(place, store=store)
    pack = None if prompts == "recorded" else load_pack(None if prompts == "current" else prompts)
    return strict_replay.replay(found.stream, pack=pack, rules=rules)


def resume(
    session: str,
    *,
    store: str | Path | EventStore = DEFAULT_STORE,
    model: Model | None = None,
    sandbox: str | Sandbox = "auto",
    base_url: str | None = None,
    api_key_env: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    answers: Mapping[str, Literal["allow", "deny"]] | None = None,
    max_iterations: int | None = None,
    on_event: EventHook | None = None,
) -> GenerateResult:
    """Go on with a session from exactly where its log ends, under its own model and prompts; return the outcome.

    ``model`` is an object that stands for the recorded model, where its name alone does not make one. ``answers`` says
    of packages that were asked about whether they may be installed. Recorded answers are never asked for again.
    Raises UsageError for what would change nothing, or would be another session (a fork); LeaseHeld where another
    process drives it.
    """
    known = open_tape(session, store=store)
    given = tuple((answers or {}).items())
    check_resumable(known.run, dict(given), max_iterations)
    agent = AutoCoderAgent(
        model=model or known.run.the_config.model,
        base_url=base_url,
        api_key_env=api_key_env,
        model_options=model_options or {},
        sandbox=sandbox,
        store=store,
    )
    changes = {"max_iterations": max_iterations} if max_iterations else {}
    return run_sync(agent.aresume(known.session, answers=dict(given), changes=changes, on_event=on_event))


def check_resumable(run: SessionState, answers: Mapping[str, str], max_iterations: int | None) -> None:
    """Refuse what would do nothing: an answer to another question, a session that has ended for good. Raises UsageError."""
    name = run.session
    if wrong := sorted({*answers.values()} - {"allow", "deny"}):
        raise UsageError(f"{wrong[0]!r} is no answer.", remedy="Give allow or deny.")
    if run.state == "succeeded":
        raise UsageError(f"Session {name} has succeeded: there is nothing to resume.")
    asked = run.work.question.subject if run.work.question and run.state == "suspended" else ""
    if other := sorted(set(answers) - {asked}):
        about = f"It asks about {spoken(asked)}." if asked else "It asks about nothing."
        raise UsageError(f"Session {name} does not ask about {', '.join(map(spoken, other))}.", remedy=about)
    if run.state == "failed":
        ran = run.ledger.iteration
        if run.cause != "iterations":
            raise UsageError(f"Session {name} has failed: {run.reason}", remedy="Its end is final.")
        if (max_iterations or run.the_config.max_iterations) <= ran:
            raise UsageError(f"Session {name} has failed: {run.reason}", remedy=f"It goes on with --max-iterations above {ran}.")  # fmt: skip


def spoken(subject: str) -> str:
    """Return a question's subject as a person names it."""
    return subject.rpartition("::")[2] if subject.startswith(EXAMPLE) else subject


def _opened(store: str | Path | EventStore) -> EventStore:
    if not isinstance(store, str | Path):
        return store
    opened = plugins.store(str(store))
    path = getattr(opened, "path", None)
    if isinstance(path, Path) and not path.exists():
        raise UsageError(f"There is no database at {store}.", remedy="`codetape run` makes one; --db names another.")
    return opened


def _found(store: EventStore, name: str) -> str:
    find = getattr(store, "find", None)
    return str(find(name)) if find else name
