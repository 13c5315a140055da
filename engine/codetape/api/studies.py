"""Studies of many sessions: simulate a change, check it, backtest, run series of tasks.

    import codetape

    for simulation in codetape.whatif("replays", prompts="my-prompts"):
        print(simulation.task, simulation.first and simulation.first.purpose)
    report = codetape.check("replays", prompts="my-prompts", control=True, attempts=3)
    pandas.DataFrame(report.records())

Results are frozen dataclasses; `codetape.records` turns a list of them into flat rows.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from codetape.api.opening import AgentSettings, StoreLike, corpus, opened
from codetape.domain.money import dollars, pico
from codetape.errors import UsageError
from codetape.evals import backtest, task_series
from codetape.evals import check as checks
from codetape.evals.check import Checked, CheckPlan, CheckSetup
from codetape.evals.chosen_sessions import Filter
from codetape.evals.corpus import CorpusSession
from codetape.evals.judge import MARGIN, Baseline, CheckReport, read_baseline, refuse_own, report
from codetape.evals.task_file import TaskSpec, read_tasks
from codetape.evals.task_series import Series
from codetape.playback import tape_file
from codetape.playback.whatif import Change, WhatIf, simulate
from codetape.ports import DEFAULT_STORE, Model, Sandbox, Stream
from codetape.runtime import plugins
from codetape.runtime.agent import AutoCoderAgent, Prompts
from codetape.runtime.clock import SystemClock
from codetape.runtime.estimate import CostEstimate
from codetape.runtime.pricing import Prices
from codetape.runtime.prompt_pack_files import load_pack
from codetape.runtime.sync import run_sync

OnProgress = Callable[[task_series.Progress, checks.AttemptOutcome | None], None]


def change_of(prompts: Prompts | None, model: str | None, changes: Mapping[str, Any] | None) -> Change:
    """Return a change of prompts ("current" for those that ship), model or settings. Raises UsageError if nothing
    changes."""
    config = {**(changes or {}), **({"model": model} if model else {})}
    pack = load_pack(None if prompts == "current" else prompts) if prompts is not None else None
    if pack is None and not config:
        raise UsageError("Nothing is changed.", remedy="Give prompts, a model's name or other settings.")
    return Change(pack, config)


async def awhatif(
    *sources: str,
    store: StoreLike = DEFAULT_STORE,
    where: Filter | None = None,
    prompts: Prompts | None = None,
    model: str | None = None,
    changes: Mapping[str, Any] | None = None,
    jobs: int = 1,
) -> AsyncIterator[WhatIf]:
    """Yield what a change would do to each session, in ``jobs`` processes, one for each CPU where it is 0; of each only
    one session is in memory at a time. A program that gives another number than 1 must keep what it does behind
    ``if __name__ == "__main__"``."""
    change = change_of(prompts, model, changes)
    async for _, simulation in awhatif_members(*sources, change=change, store=store, where=where, jobs=jobs):
        yield simulation


def whatif(*sources: str, **options: Any) -> list[WhatIf]:
    """Return what a change would do to each session, without a call. Takes what `awhatif` takes."""

    async def look() -> list[WhatIf]:
        return [simulation async for simulation in awhatif(*sources, **options)]

    return run_sync(look())


async def awhatif_members(
    *sources: str, change: Change, store: StoreLike = DEFAULT_STORE, where: Filter | None = None, jobs: int = 1
) -> AsyncIterator[tuple[CorpusSession, WhatIf]]:
    """Yield each session with what a change would do to it."""
    async for simulated in corpus(sources, store, where).each(partial(_simulated, change), jobs):
        yield simulated


def _simulated(change: Change, member: CorpusSession, stream: Stream) -> tuple[CorpusSession, WhatIf]:
    return member, simulate(stream, change)


# ---- check


@dataclass(frozen=True)
class PreparedCheck:
    """A check that can be estimated and run. Its sessions carry ``plan.id``: the same check continues them."""

    plan: CheckPlan
    setup: CheckSetup
    baseline: Baseline | None
    margin: float
    prices: Prices
    servers: tuple[str, str] = ("", "")

    @property
    def arms(self) -> int:
        """How many arms each attempt has: the candidate, and the control if there is one."""
        return 1 if self.setup.control is None else 2

    def cost(self, share: str = "1") -> tuple[str, str] | None:
        """Return in dollars what the calls to be made cost, and what recorded calls that depend on them cost, at a
        ``share`` of the price; None if a model has no price."""
        made_cost, unknown_cost = (CostEstimate(self.prices, SystemClock().now(), share) for _ in range(2))
        candidate, control = self.servers
        for session, _ in self.plan.attempts(self.setup.attempts):
            model = str(self.plan.change.config.get("model", session.model))
            for kind, estimate in (("made", made_cost), ("unknown", unknown_cost)):
                estimate.add(model, session.input_tokens[kind], session.output_tokens[kind], candidate)
            if self.setup.control is not None:
                unknown_cost.add(session.model, session.control_input, session.control_output, control)
        return (made_cost.text, unknown_cost.text) if made_cost.text and unknown_cost.text else None

    def worst(self) -> tuple[int, int, str]:
        """Return an upper bound on calls, tokens and dollars; the last is empty where a model has no price.

        A budget of the check bounds tokens and dollars further.
        """
        attempts = [session for session, _ in self.plan.attempts(self.setup.attempts)]
        estimate = CostEstimate(self.prices, SystemClock().now())
        for session in attempts:
            model = str(self.plan.change.config.get("model", session.model))
            arms = [(model, self.servers[0]), *([(session.model, self.servers[1])] if self.setup.control else [])]
            for name, server in arms:
                estimate.add(name, session.worst_input, session.worst_output, server)
        calls = sum(session.worst_calls for session in attempts) * self.arms
        tokens = sum(session.worst_tokens for session in attempts) * self.arms
        most_tokens, most_cost = self.setup.max_tokens, self.setup.max_cost
        cost = estimate.text
        if cost and most_cost is not None:
            cost = dollars(min(pico(cost), most_cost))
        return calls, tokens if most_tokens is None else min(tokens, most_tokens), cost

    def costs(self) -> dict[str, tuple[str, str]]:
        """Return `cost` by how the calls can be made: "each" by itself, and in a "batch" where the model answers some."""
        ways = {"each": self.cost()}
        with suppress(UsageError):  # it answers none, or cannot be made here: that is told where it is used
            ways["batch"] = self.cost(self.setup.candidate.price_share())
        return {way: cost for way, cost in ways.items() if cost is not None}

    def refuse_unpriced(self) -> None:
        """Raise UsageError if a budget of money cannot be kept, because a model has no price."""
        if self.setup.max_cost is not None and self.cost() is None:
            raise UsageError(
                "The budget max_cost (--max-cost) cannot be kept: a model has no price.",
                remedy="Name it in [tool.codetape.prices], or give max_tokens (--max-tokens).",
            )

    async def arun(
        self, on_progress: OnProgress | None = None, on_batch: Callable[[str], None] | None = None
    ) -> CheckReport:
        """Make the attempts that do not exist yet, and judge. Sessions of tape files are put into the store."""
        if not self.plan.changed:
            return self._judged(Checked(self.plan, ()))
        self.refuse_unpriced()
        if files := [session.file for session in self.plan.changed if session.file]:
            self.setup.candidate.opened_store().put(*(tape_file.load(file).stream for file in files))
        setup = replace(
            self.setup,
            on_progress=on_progress or self.setup.on_progress,
            on_batch=on_batch or self.setup.on_batch,
        )
        return self._judged(await checks.run(self.plan, setup))

    def _judged(self, checked: Checked) -> CheckReport:
        return report(checked, control=self.setup.control is not None, baseline=self.baseline, margin=self.margin)


async def prepare_check(
    *sources: str,
    store: StoreLike = DEFAULT_STORE,
    where: Filter | None = None,
    prompts: Prompts | None = None,
    model: str | Model | None = None,
    changes: Mapping[str, Any] | None = None,
    attempts: int = 1,
    concurrent: int = 1,
    control: bool = False,
    control_model: Model | None = None,
    control_base_url: str | None = None,
    baseline: str | Path | None = None,
    margin: float = MARGIN,
    max_tokens: int | None = None,
    max_cost: str | None = None,
    number: int = 1,
    sandbox: str | Sandbox = "auto",
    in_batches: bool = False,
    jobs: int = 1,
    **settings: Unpack[AgentSettings],
) -> PreparedCheck:
    """Plan a check, without a call, in ``jobs`` processes (see `awhatif`). Takes what `check` takes."""
    if control and baseline is not None:
        raise UsageError("A check has one control: fresh runs, or a baseline.")
    change = change_of(prompts, model if isinstance(model, str) else None, changes)
    former_report = read_baseline(baseline) if baseline is not None else None
    opened_sandbox = plugins.sandbox(sandbox) if isinstance(sandbox, str) else sandbox
    control_settings: AgentSettings = {**settings, "base_url": control_base_url or settings.get("base_url")}
    endpoints = (_server(settings), _server(control_settings), _class_of(model), _class_of(control_model))
    change = replace(change, facts=opened_sandbox.facts())
    plan = await checks.planned(corpus(sources, store, where), change, number=number, where=endpoints, jobs=jobs)
    refuse_own(former_report, plan)
    opened_store = opened(store, reading=False)
    recorded_model = _makeable(plan.changed[0].model) if plan.changed else _NONE
    candidate = AutoCoderAgent(model=model or recorded_model, sandbox=opened_sandbox, store=opened_store, **settings)
    control_by = control_model or (model if model is not None and not isinstance(model, str) else recorded_model)
    setup = CheckSetup(
        candidate=candidate,
        control=AutoCoderAgent(model=control_by, sandbox=opened_sandbox, store=opened_store, **control_settings)
        if control
        else None,
        attempts=attempts,
        concurrent=concurrent,
        max_tokens=max_tokens,
        max_cost=pico(max_cost) if max_cost is not None else None,
        in_batches=in_batches,
    )
    servers = (_server(settings), _server(control_settings))
    return PreparedCheck(plan, setup, former_report, margin, settings.get("prices") or Prices(), servers)


_NONE = "tape:none"  # in the place of a model that is asked nothing


def _makeable(recorded: str) -> str:
    """Return the name of a recorded model, where it can be made here: without, a check can still be planned, and says
    so when it is run."""
    with suppress(UsageError):
        plugins.check_model(recorded)
        return recorded
    return _NONE


def _server(settings: AgentSettings) -> str:
    return settings.get("base_url") or os.environ.get("OPENAI_BASE_URL") or ""


def _class_of(model: str | Model | None) -> str:
    return "" if model is None or isinstance(model, str) else type(model).__qualname__


def check(*sources: str, on_progress: OnProgress | None = None, **options: Any) -> CheckReport:
    """Test a change on recorded sessions, live, and judge it; the same check continues where it was stopped.

    ``model`` is another model's name, or an object that answers for the recorded ones; ``control_model`` is one for the
    control. ``max_cost`` is in dollars, such as "2.00". Sessions of tape files are put into the store. Takes what
    `prepare_check` takes. No question is asked: to see first what it would cost, call `whatif` or `prepare_check`.
    """

    async def work() -> CheckReport:
        prepared = await prepare_check(*sources, **options)
        return await prepared.arun(on_progress)

    return run_sync(work())


# ---- backtest


class Backtested(NamedTuple):
    """How many sessions were examined, and every decision that is derived differently."""

    sessions: int
    changed: list[backtest.ChangedDecision]


async def abacktest_rules(*sources: str, store: StoreLike = DEFAULT_STORE, where: Filter | None = None) -> Backtested:
    """Derive the decisions of recorded sessions with the present code."""
    changed, count = list[backtest.ChangedDecision](), 0
    async for member, stream in corpus(sources, store, where).members():
        count += 1
        changed.extend(backtest.rules(member, stream))
    return Backtested(count, changed)


def backtest_rules(
    *sources: str, store: StoreLike = DEFAULT_STORE, where: Filter | None = None
) -> list[backtest.ChangedDecision]:
    """Return every recorded decision or request that the present code derives differently."""
    return run_sync(abacktest_rules(*sources, store=store, where=where)).changed


async def abacktest_limits(
    *sources: str,
    store: StoreLike = DEFAULT_STORE,
    where: Filter | None = None,
    max_iterations: Iterable[int] = (),
    max_tokens: Iterable[int] = (),
) -> list[backtest.LimitOutcome]:
    """Return the outcome of each session under each limit; see `backtest_limits`."""
    limits: list[tuple[backtest.LimitName, int]] = [("max_iterations", n) for n in max_iterations]
    limits += [("max_tokens", n) for n in max_tokens]
    members = corpus(sources, store, where).members()
    return [backtest.under(stream, name, n) async for _, stream in members for name, n in limits]


def backtest_limits(*sources: str, **options: Any) -> list[backtest.LimitOutcome]:
    """Return the outcome of each session under each limit; `backtest.summed` makes one row per limit.

    Takes ``max_iterations`` and ``max_tokens``, each several numbers, and ``store`` and ``where``.
    """
    return run_sync(abacktest_limits(*sources, **options))


# ---- series of tasks


async def arun_tasks(tasks: str | Path | Iterable[TaskSpec], agent: AutoCoderAgent, **options: Any) -> Series:
    """Run every task of a file several times, or continue with it. Takes what `evals.task_series.run_tasks` takes."""
    specs = read_tasks(tasks) if isinstance(tasks, str | Path) else tuple(tasks)
    return await task_series.run_tasks(agent, specs, **options)


def run_tasks(tasks: str | Path | Iterable[TaskSpec], agent: AutoCoderAgent, **options: Any) -> Series:
    """Run every task of a file several times, or continue with it; see `arun_tasks`."""
    return run_sync(arun_tasks(tasks, agent, **options))
