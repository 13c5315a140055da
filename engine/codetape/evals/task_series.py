"""Many tasks, several attempts each: a corpus of sessions, made from a file of tasks, and resumed where it stopped.

A session's id is the hash of everything that defines it: the task, the configuration, the prompt pack, the number of
the attempt and the series' name. So a series that is started again finds the sessions it has, and makes only the others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from codetape.domain.money import pico
from codetape.errors import CodetapeError, SessionNotFound, UsageError
from codetape.evals.attempt import Attempt
from codetape.evals.task_file import TaskSpec
from codetape.eventlog.envelope import Event
from codetape.eventlog.fold import fold
from codetape.eventlog.session_state import SessionState
from codetape.ports import EventStore
from codetape.runtime.agent import AutoCoderAgent, EventHook
from codetape.runtime.batched_calls import BatchedCalls
from codetape.text.records import records


@dataclass(frozen=True)
class Progress:
    """How far a series is. ``stopped`` did not end: an outage, a question, a budget. ``cost`` is in picodollars."""

    total: int
    done: int = 0
    solved: int = 0
    failed: int = 0
    stopped: int = 0
    tokens: int = 0
    cost: int = 0
    unpriced: int = 0

    @property
    def left(self) -> int:
        """The attempts that are not done."""
        return self.total - self.done

    def plus(self, attempt: Attempt) -> "Progress":
        """Return the progress after one more attempt."""
        return replace(
            self,
            done=self.done + 1,
            solved=self.solved + (attempt.solved is True),
            failed=self.failed + (attempt.solved is False),
            stopped=self.stopped + (attempt.solved is None),
            tokens=self.tokens + attempt.tokens,
            cost=self.cost + pico(attempt.cost or "0"),
            unpriced=self.unpriced + attempt.unpriced,
        )


@dataclass(frozen=True)
class Series:
    """The outcome of every attempt, in the order of tasks and attempts. ``found`` of them existed before."""

    attempts: tuple[Attempt, ...]
    found: int

    @property
    def progress(self) -> Progress:
        """The sums."""
        total = Progress(len(self.attempts))
        for attempt in self.attempts:
            total = total.plus(attempt)
        return total

    def records(self) -> list[dict[str, Any]]:
        """Return one flat record per attempt."""
        return records(self.attempts)


async def run_tasks(
    agent: AutoCoderAgent,
    tasks: Iterable[TaskSpec],
    *,
    attempts: int = 1,
    concurrent: int = 1,
    series: str = "",
    tags: Iterable[str] = (),
    on_progress: Callable[[Progress, Attempt | None], None] | None = None,
    on_event: EventHook | None = None,
    in_batches: bool = False,
    on_batch: Callable[[str], None] = lambda _words: None,
) -> Series:
    """Make ``attempts`` sessions of every task, up to ``concurrent`` at once; resume those that an earlier call left.

    With ``in_batches`` all go forward together, and their calls through the provider's batch endpoint;
    ``concurrent`` of them use the sandbox at once, and ``on_batch`` is told in words what becomes of each batch.

    All tasks are checked before the first session starts. An attempt that another process drives, or that an outage
    stopped, is counted as stopped and does not stop the others. Raises UsageError for a task that cannot be run.
    """
    if not 1 <= attempts <= 1000 or not 1 <= concurrent <= 256:
        raise UsageError("A series makes 1 to 1000 attempts a task, 1 to 256 of them at once.")
    if in_batches:
        agent.price_share()
    shared = agent.resolved()
    store = shared.opened_store()
    planned = [
        (
            task,
            number,
            shared.session_id(
                task.prompt, key=(series, number), tags=_tags(task, tags), task=task.id, **_other_options(task)
            ),
        )
        for task in tasks
        for number in range(1, attempts + 1)
    ]
    stored_ids = {row["session"] for row in store.sessions().rows}
    progress = [Progress(len(planned))]

    async def run_attempt(
        agent: AutoCoderAgent, slots: AbstractAsyncContextManager[None], task: TaskSpec, number: int, session: str
    ) -> Attempt:
        async with slots:
            attempt = await _attempt(agent, store, task, number, session, tuple(tags), on_event)
            progress[0] = progress[0].plus(attempt)
            if on_progress:
                on_progress(progress[0], attempt)
            return attempt

    if on_progress:
        on_progress(progress[0], None)
    async with together(len(planned), concurrent, on_batch if in_batches else None) as (batched, slots):
        of_all = replace(shared, batched=batched)
        results = await all_of([run_attempt(of_all, slots, *plan) for plan in planned])
    return Series(tuple(results), sum(session in stored_ids for _, _, session in planned))


@asynccontextmanager
async def together(
    attempts: int, concurrent: int, on_batch: Callable[[str], None] | None
) -> AsyncIterator[tuple[BatchedCalls | None, AbstractAsyncContextManager[None]]]:
    """Yield what attempts share: the batches of their calls, if ``on_batch`` is told of some, and a place for each.

    A place is entered for as long as an attempt goes on.
    """
    if on_batch is None:
        yield None, asyncio.Semaphore(concurrent)
        return
    async with BatchedCalls(attempts, executions=concurrent, on_progress=on_batch) as batched:
        yield batched, batched.places


async def all_of(work: list[Any]) -> list[Any]:
    """Await all. Where one raises, or the whole is cancelled, cancel the others and wait for their end first."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _tags(task: TaskSpec, tags: Iterable[str]) -> tuple[str, ...]:
    return (*task.options.get("tags", ()), *tags)


def _other_options(task: TaskSpec) -> dict[str, Any]:
    return {name: value for name, value in task.options.items() if name != "tags"}


async def _attempt(
    agent: AutoCoderAgent,
    store: EventStore,
    task: TaskSpec,
    number: int,
    session: str,
    tags: tuple[str, ...],
    on_event: EventHook | None,
) -> Attempt:
    last: list[SessionState] = []

    def hook(event: Event, state: SessionState) -> None:
        last[:] = [state]
        if on_event:
            on_event(event, state)

    try:
        # looked up here, not from the series' list: another process may have made it since that started
        if (stored_state := await recorded(store, session)) is not None:
            if stored_state.state in ("succeeded", "failed"):
                return Attempt.of(stored_state, number)
            await replace(agent, prompts=None).aresume(session, changes=agent.budget(), on_event=hook)
        else:
            await agent.agenerate(
                task.prompt,
                task=task.id,
                tags=_tags(task, tags),
                session=session,
                on_event=hook,
                **_other_options(task),
            )
        return Attempt.of(last[-1] if last else await loaded(store, session), number)
    except CodetapeError as error:
        if isinstance(error, UsageError) and not last:
            raise  # nothing was started: the task itself is at fault, so the whole series stops
        if (stored_state := await _ended(store, session)) is not None:  # another process was quicker
            return Attempt.of(stored_state, number)
        return _stopped(task, number, session, error)


async def recorded(store: EventStore, session: str) -> SessionState | None:
    """Return a session's state as the log has it now; None if there is no such session. Raises for a bad log."""
    try:
        return await loaded(store, session)
    except SessionNotFound:
        return None


async def loaded(store: EventStore, session: str) -> SessionState:
    """Return a session's state as the log has it now."""
    stream = await store.read(session)
    return fold(stream.events, stream.texts)


async def _ended(store: EventStore, session: str) -> SessionState | None:
    with suppress(CodetapeError):
        state = await loaded(store, session)
        return state if state.state in ("succeeded", "failed") else None
    return None


def _stopped(task: TaskSpec, number: int, session: str, error: CodetapeError) -> Attempt:
    graded = "oracle" if task.options.get("oracle") else "self"
    return Attempt(task.id, number, session, "error", None, graded, cause="error", reason=str(error))  # type: ignore[arg-type]  # one of the two words
