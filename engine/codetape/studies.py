"""What one does with many recorded sessions, from Python: choose, fork, compare, foresee, check, backtest.

    import codetape

    for one in codetape.whatif("replays", prompts="my-prompts"):
        print(one.task, one.first and one.first.purpose)
    report = codetape.check("replays", prompts="my-prompts", control=True, attempts=3)
    pandas.DataFrame(report.records())

``sources`` name sessions of the store, tape files or folders of them; without any the whole store is meant. Results are frozen
dataclasses; `records` makes flat rows of a list of them.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codetape import backtests, bundle, registry, regression, tape, verdicts
from codetape.agent import AutoCoderAgent, EventHook
from codetape.attempts import records
from codetape.batch import Batch, TaskSpec, read_tasks
from codetape.batch import run_tasks as _run_tasks
from codetape.budgets import pico
from codetape.compare import Comparison, compare
from codetape.corpus import Corpus, Filter, Member, is_tape
from codetape.errors import UsageError
from codetape.packs import load_pack
from codetape.ports import EventStore, Model, Sandbox
from codetape.recorded import DEFAULT_STORE, open_tape
from codetape.result import GenerateResult, run_sync
from codetape.verdicts import Report
from codetape.what_if import Change, WhatIf, foresee

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


def diff(a: str | Path, b: str | Path, *, store: Store = DEFAULT_STORE) -> Comparison:
    """Compare two sessions or tape files: where they part and why, and what differs after that."""
    return compare(open_tape(a, store=store).stream, open_tape(b, store=store).stream)


def sessions(*sources: str, store: Store = DEFAULT_STORE, where: Filter | None = None) -> list[Member]:
    """Return what is known of the sessions that are meant, newest first; ``row`` of each is a flat record."""

    async def look() -> list[Member]:
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
        yield foresee(stream, change)


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
    margin: float = verdicts.MARGIN,
    max_tokens: int | None = None,
    max_cost: str | None = None,
    number: int = 1,
    sandbox: str | Sandbox = "auto",
    on_progress: Any = None,
    **settings: Any,
) -> Report:
    """Test a change on recorded sessions, live, and judge it; the same check goes on where it was stopped.

    ``model`` is another model's name, or an object that answers for the recorded ones; ``control_model`` is one for the
    control. ``max_cost`` is in dollars, such as "2.00". Sessions of tape files are put into the store. No question is asked: to see first what
    it would cost, call `whatif`.
    """
    if control and baseline is not None:
        raise UsageError("A check has one control: fresh runs, or a baseline.")
    change = _change(prompts, model if isinstance(model, str) else None, changes)
    corpus = _corpus(sources, store, where)
    known = verdicts.read_baseline(baseline) if baseline is not None else None

    async def work() -> Report:
        kept = registry.sandbox(sandbox) if isinstance(sandbox, str) else sandbox
        servers = (str(settings.get("base_url") or ""), *(_named(m) for m in (model, control_model)))
        plan = await regression.planned(corpus, replace(change, facts=kept.facts()), number=number, where=servers)
        verdicts.refuse_own(known, plan)
        opened: Any = _opened(store)
        for one in plan.changed:
            if one.file:
                opened.put(tape.load(one.file).stream)
        name = plan.changed[0].model if plan.changed else "none"
        agent = AutoCoderAgent(model=model or name, sandbox=kept, store=opened, **settings)
        other = AutoCoderAgent(
            model=control_model or (model if model is not None and not isinstance(model, str) else name),
            sandbox=kept, store=opened, **settings,
        )  # fmt: skip
        live = regression.Live(
            candidate=agent,
            control=other if control else None,
            attempts=attempts,
            concurrent=concurrent,
            max_tokens=max_tokens,
            max_cost=pico(max_cost) if max_cost is not None else None,
            on_progress=on_progress,
        )
        checked = await regression.run(plan, live) if plan.changed else regression.Checked(plan, ())
        return verdicts.report(checked, control=control, baseline=known, margin=margin)

    return run_sync(work())


def backtest_rules(*sources: str, store: Store = DEFAULT_STORE, where: Filter | None = None) -> list[backtests.Changed]:
    """Return every recorded decision or request that the present code derives otherwise."""

    async def look() -> list[backtests.Changed]:
        members = _corpus(sources, store, where).members()
        return [changed async for member, stream in members for changed in backtests.rules(member, stream)]

    return run_sync(look())


def backtest_limits(
    *sources: str,
    store: Store = DEFAULT_STORE,
    where: Filter | None = None,
    max_iterations: Iterable[int] = (),
    max_tokens: Iterable[int] = (),
) -> list[backtests.Outcome]:
    """Return what each session would have come to under each limit; `backtests.summed` makes a row a limit."""
    wanted: list[tuple[backtests.LimitName, int]] = [("max_iterations", n) for n in max_iterations]
    wanted += [("max_tokens", n) for n in max_tokens]

    async def look() -> list[backtests.Outcome]:
        members = _corpus(sources, store, where).members()
        return [backtests.under(stream, name, n) async for _, stream in members for name, n in wanted]

    return run_sync(look())


def run_tasks(tasks: str | Path | Iterable[TaskSpec], agent: AutoCoderAgent, **options: Any) -> Batch:
    """Run every task of a file several times, or go on with it. Takes what `batch.run_tasks` takes."""
    found = read_tasks(tasks) if isinstance(tasks, str | Path) else tuple(tasks)
    return run_sync(_run_tasks(agent, found, **options))


def pytest_file(session: str, seq: int | None = None, *, store: Store = DEFAULT_STORE) -> str:
    """Return the tests that failed in a session, with their code, as a pytest file that needs no codetape."""
    folder = Path(session).parent if is_tape(session) and session != "demo" else None
    return bundle.bundle(open_tape(session, store=store).stream, seq, folder=folder)


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
    opened: Any = _opened(store) if wanted else None
    return Corpus(opened, tuple(map(str, sources)), (where or Filter()).checked(datetime.now(UTC)))


def _opened(store: Store) -> EventStore:
    return registry.store(str(store)) if isinstance(store, str | Path) else store


__all__ = [
    "Filter",
    "awhatif",
    "backtest_limits",
    "backtest_rules",
    "check",
    "diff",
    "fork",
    "pytest_file",
    "records",
    "run_tasks",
    "sessions",
    "whatif",
]
