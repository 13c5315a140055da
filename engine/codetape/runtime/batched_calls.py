"""Calls of many sessions that go forward together: gathered, sent as one batch a model, and waited for.

A batch is sent when no session can go on without it. Each session's tape says in which batch its call waits before that
is sent, so that it is found again whatever happens to this process, and is paid once.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from codetape.domain.canonical import sha256
from codetape.domain.model_request import ModelRequest
from codetape.errors import BatchOutOfReach, ModelUnavailable, UsageError
from codetape.eventlog.session_state import OpenCall
from codetape.ports import BatchEndpoint, ItemFailed, Model, Reply, RequestRefused

MOST_TOGETHER = 500  # sessions that go forward at once: each is held in memory, and keeps its lease alive
MOST_BATCHES = 3  # that one call is put into, where they give no answer
FIRST_POLL, LAST_POLL = 2.0, 60.0  # seconds between questions to the provider: they grow from one to the other
MOST_FAILED_POLLS = 30  # in a row, half an hour or more

Tell = Callable[[str, str], Awaitable[None]]
"""Records the key of the batch that a call waits in, and the provider's id of it."""


@dataclass(eq=False)
class _Waiting:
    """One call that waits, how many batches had no answer to it, and what they said."""

    model: Model
    call: str
    request: ModelRequest
    tell: Tell
    answer: asyncio.Future[Reply | RequestRefused]
    batches: int = 0
    tries: list[str] = field(default_factory=list)
    unanswered: int = 0

    @property
    def server(self) -> tuple[str, str | None, str]:
        """What calls of one batch have in common."""
        return self.model.name, self.model.server, self.model.api

    @property
    def endpoint(self) -> BatchEndpoint:
        if self.model.batches is None:
            raise no_batches(self.model)
        return self.model.batches


@dataclass(eq=False)
class _Batch:
    """A batch at the provider; ``since`` is when it was sent, at the earliest, where its id has to be looked up."""

    key: str
    batch_id: str
    endpoint: BatchEndpoint
    since: str = ""
    calls: dict[str, _Waiting] = field(default_factory=dict)

    def name(self, call: str) -> str:
        """Return a call's name in the batch."""
        return f"{self.key}-{sha256(call)[:32]}"


class _Places:
    """A place for each of the sessions that go forward at once, entered for as long as one does."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._places, self._ended = asyncio.Semaphore(MOST_TOGETHER), ended

    async def __aenter__(self) -> None:
        await self._places.acquire()

    async def __aexit__(self, *ended: object) -> None:
        self._places.release()
        self._ended()


class BatchedCalls:
    """What ``sessions`` that go forward together share. A context manager: what waits when it is left is not told.

    Each enters one of the ``places`` while it goes on; at most ``executions`` of them use the sandbox at once. ``on_progress`` is told in words what becomes of a batch.
    """

    def __init__(
        self,
        sessions: int = 1,
        *,
        executions: int = 1,
        on_progress: Callable[[str], None] = lambda _words: None,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.slots = asyncio.Semaphore(executions)
        self.places = _Places(self._one_ended)
        self._left, self._waiting = sessions, 0
        self._queue: list[_Waiting] = []
        self._sent: dict[str, _Batch] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._tell_people, self._sleep = on_progress, sleep

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *ended: object) -> None:
        """Stop asking for what is not answered."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _one_ended(self) -> None:
        self._left -= 1
        self._send_if_all_wait()

    async def ask(self, model: Model, call: str, request: ModelRequest, tell: Tell) -> Reply | RequestRefused:
        """Return the answer to a call, when its batch has it.

        Raises ModelUnavailable where there will be none, and BatchOutOfReach where there may be one that cannot be
        asked for now.
        """
        waiting = _Waiting(model, call, request, tell, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        return await self._answer(waiting)

    async def rejoin(
        self, model: Model, open_call: OpenCall, since: str, request: ModelRequest, tell: Tell
    ) -> Reply | RequestRefused:
        """Return the answer to a call that was put into a batch before, as `ask` does."""
        waiting = _Waiting(model, open_call.call, request, tell, asyncio.get_running_loop().create_future())
        batch = self._sent.get(open_call.batch)
        if batch is None:
            batch = _Batch(open_call.batch, open_call.batch_id, waiting.endpoint, since)
            self._sent[batch.key] = batch
            self._start(batch, self._follow)
        batch.calls[batch.name(open_call.call)] = waiting
        return await self._answer(waiting)

    async def _answer(self, waiting: _Waiting) -> Reply | RequestRefused:
        self._waiting += 1
        self._send_if_all_wait()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._waiting -= waiting.answer.cancelled()
            if waiting in self._queue:
                self._queue.remove(waiting)
            raise

    # ---- sending

    def _send_if_all_wait(self) -> None:
        if not self._queue or self._waiting < min(self._left, MOST_TOGETHER):
            return
        by_server: dict[tuple[str, str | None, str], list[_Waiting]] = {}
        for waiting in self._queue:
            by_server.setdefault(waiting.server, []).append(waiting)
        self._queue = []
        for calls in by_server.values():
            batch = _Batch(secrets.token_hex(8), "", calls[0].endpoint)
            batch.calls = {batch.name(waiting.call): waiting for waiting in calls}
            self._sent[batch.key] = batch
            self._start(batch, self._send)

    def _start(self, batch: _Batch, work: Callable[[_Batch], Awaitable[None]]) -> None:
        """Begin work on a batch; where it raises, every call of the batch ends so."""

        async def whole() -> None:
            try:
                await work(batch)
            except Exception as error:  # noqa: BLE001 - whatever it was: a session that waits for it must not wait for ever
                for waiting in batch.calls.values():
                    self._settle(waiting, error)
            finally:
                self._sent.pop(batch.key, None)
                self._send_if_all_wait()

        task = asyncio.create_task(whole())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _send(self, batch: _Batch) -> None:
        await self._told(batch)
        if not batch.calls:
            return
        try:
            batch.batch_id = await batch.endpoint.send(batch.key, {n: w.request for n, w in batch.calls.items()})
        except ModelUnavailable as error:
            if not error.maybe_billed:
                raise
            raise _out_of_reach(batch, error) from error
        await self._told(batch)
        model = next(iter(batch.calls.values())).model.name if batch.calls else ""
        self._tell_people(f"{_shown(batch)}: {_calls(len(batch.calls))} of {model} sent together")
        await self._follow(batch)

    async def _told(self, batch: _Batch) -> None:
        """Have each session's tape say which batch its call is in; one whose tape cannot is left out."""
        for name, waiting in [*batch.calls.items()]:
            if waiting.answer.done():  # its session was stopped
                del batch.calls[name]
                continue
            try:
                await waiting.tell(batch.key, batch.batch_id)
            except Exception as error:  # noqa: BLE001 - whatever it was, it is that session's
                del batch.calls[name]
                self._settle(waiting, error)

    # ---- waiting

    async def _follow(self, batch: _Batch) -> None:
        """Ask for a batch until it has ended, and give its answers out."""
        if not batch.batch_id and not await self._found(batch):
            return
        seen, seconds, failed = -1, FIRST_POLL, 0
        while batch.calls:
            try:
                state, calls = await batch.endpoint.state(batch.batch_id), dict(batch.calls)
                found = None
                if state.ended and not state.failed:
                    requests = {name: waiting.request for name, waiting in calls.items()}
                    found = await batch.endpoint.replies(batch.batch_id, requests)
            except ModelUnavailable as error:
                failed += 1
                if error.status in (401, 403) or failed >= MOST_FAILED_POLLS:
                    raise _out_of_reach(batch, error) from error
            else:
                failed = 0
                if state.failed:
                    raise ModelUnavailable(f"The provider gave up the batch: {state.failed}")
                if found is not None:
                    self._give_out(batch, calls, found)
                    continue
                if state.answered != seen:
                    seen = state.answered
                    self._tell_people(f"{_shown(batch)}: {state.answered} of {state.total} answered")
            await self._sleep(seconds)
            seconds = min(LAST_POLL, seconds * 1.5)

    async def _found(self, batch: _Batch) -> bool:
        """Look a batch up by its key; where it was never sent, put its calls into another one."""
        await asyncio.sleep(0)  # those that resume beside this one join it first
        try:
            while (found := await batch.endpoint.find(batch.key, batch.since)) is None:
                await self._sleep(LAST_POLL)
        except ModelUnavailable as error:
            raise _out_of_reach(batch, error) from error
        batch.batch_id = found
        if found:
            self._tell_people(f"{_shown(batch)}: found again")
            await self._told(batch)
            return True
        self._queue.extend(batch.calls.values())
        batch.calls = {}
        return False

    def _give_out(
        self, batch: _Batch, calls: Mapping[str, _Waiting], found: Mapping[str, Reply | RequestRefused | ItemFailed]
    ) -> None:
        again = 0
        for name, waiting in calls.items():
            del batch.calls[name]
            outcome = found.get(name, ItemFailed("The batch has no answer to it.", again=True))
            if isinstance(outcome, ItemFailed):
                again += self._ask_again(waiting, outcome)
            else:
                self._settle(waiting, _with_tries(outcome, waiting))
        self._tell_people(
            f"{_shown(batch)}: ended, {_calls(len(calls) - again)} answered" + (f", {again} asked again" * bool(again))
        )

    def _ask_again(self, waiting: _Waiting, failed: ItemFailed) -> bool:
        waiting.tries.append(failed.message)
        waiting.unanswered += failed.maybe_billed
        waiting.batches += 1
        if failed.again and waiting.batches < MOST_BATCHES:
            self._queue.append(waiting)
            return True
        error = ModelUnavailable(
            f"The batch gave no answer: {failed.message}",
            remedy="Resume later." if failed.again else "",
            tries=tuple(waiting.tries),
            unanswered=waiting.unanswered,
        )
        self._settle(waiting, error)
        return False

    def _settle(self, waiting: _Waiting, outcome: Reply | RequestRefused | Exception) -> None:
        """Let a session go on. It no longer waits from here on, whenever it gets its turn."""
        if waiting.answer.done():
            return
        self._waiting -= 1
        if isinstance(outcome, Exception):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)


def no_batches(model: Model) -> UsageError:
    """Return the error that a model answers one request at a time."""
    return UsageError(
        f"{model.name} answers no batches.",
        remedy="Models of openai: and anthropic: do; others go on without batches (--batch).",
    )


def _with_tries(outcome: Reply | RequestRefused, waiting: _Waiting) -> Reply | RequestRefused:
    if isinstance(outcome, RequestRefused) or not waiting.tries:
        return outcome
    return replace(outcome, tries=tuple(waiting.tries), unanswered=waiting.unanswered)


def _out_of_reach(batch: _Batch, error: ModelUnavailable) -> BatchOutOfReach:
    return BatchOutOfReach(
        f"{_shown(batch)} cannot be reached: {error.message}",
        remedy="Its calls wait there, and are found again: resume, or give the same command once more.",
    )


def _shown(batch: _Batch) -> str:
    return f"batch {batch.batch_id or batch.key}"


def _calls(count: int) -> str:
    return f"{count} {'call' if count == 1 else 'calls'}"
