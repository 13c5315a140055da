"""A session: fold, decide, perform, append, until it ends. Effects are performed by `effects`, for this module alone.

Every call is announced by `Requested` before it is made and closed by exactly one outcome after it;
the append is durable before the state changes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from codetape.decider import decide
from codetape.decider.commands import Build, CallModel, Command, Execute, Record
from codetape.decider.request_events import requested
from codetape.domain.budget import Limit, Reservation
from codetape.domain.canonical import canonical
from codetape.domain.model_request import ModelRequest
from codetape.domain.task import Config, Task
from codetape.errors import (
    BudgetSpent,
    CodetapeError,
    CorruptTape,
    InfrastructureError,
    ModelUnavailable,
    SandboxUnavailable,
    UsageError,
)
from codetape.eventlog import machine
from codetape.eventlog.envelope import Event, encode
from codetape.eventlog.events import (
    Blobs,
    CallBatched,
    CallLost,
    ConfigChanged,
    GaveUp,
    NewEvent,
    PersonAnswered,
    Resumed,
    SessionStarted,
    Suspended,
)
from codetape.eventlog.fold import apply, fold
from codetape.eventlog.session_state import OpenCall, SessionState
from codetape.ports import Clock, EventStore, Lease, Model, Reply, RequestRefused, Sandbox, same_server
from codetape.rules.build_approval import Approval
from codetape.runtime.batched_calls import BatchedCalls
from codetape.runtime.call_budget import reservation
from codetape.runtime.effects import Effects
from codetape.runtime.pricing import Prices
from codetape.runtime.redaction import Redactor
from codetape.runtime.versions import versions

HEARTBEAT_SECONDS = 15

T = TypeVar("T")
_Taken = tuple[Event, Mapping[str, str], SessionState, SessionState]
"""An event with its texts, and the states before and after it."""


def started(task: Task, config: Config, pack: dict[str, str]) -> NewEvent:
    """Return a session's first event: everything that its decisions depend on."""
    texts = Blobs()
    payload = SessionStarted(
        trigger="start",
        source="new",
        target="planning",
        task_id=task.id,
        tags=task.tags,
        model=config.model,
        server=config.server or "",
        task=texts.put(canonical(task.model_dump(mode="json"))),
        config=texts.put(canonical(config.model_dump(mode="json"))),
        pack={name: texts.put(text) for name, text in sorted(pack.items())},
        versions=versions(),
    )
    return NewEvent(payload, texts)


class CodeGenSession:
    """One run of the loop, against one log. Not to be shared between tasks."""

    def __init__(
        self,
        session: str,
        *,
        model: Model,
        sandbox: Sandbox,
        store: EventStore,
        clock: Clock,
        redactor: Redactor,
        on_event: Callable[[Event, SessionState], None] | None = None,
        prices: Prices | None = None,
        limits: tuple[Limit, ...] = (),
        batched: BatchedCalls | None = None,
        approval: Approval | None = None,
    ) -> None:
        """Make the parts. ``approval`` is what the user allows a recorded session; None for a new one of their own."""
        self.session = session
        self._effects = Effects(model, sandbox, clock, redactor, prices or Prices())
        self._limits = limits
        self._batched = batched
        self._approval = approval
        self._model, self._sandbox, self._store, self._clock = model, sandbox, store, clock
        self._redactor = redactor
        self._on_event = on_event
        self._lease: Lease | None = None
        self._unwritten: list[_Taken] = []
        self.folded = SessionState(session=session)

    @property
    def state(self) -> str:
        """Where the machine is: what the log's events fold to."""
        return self.folded.state

    async def run(
        self,
        begin: NewEvent | None = None,
        *,
        answers: Mapping[str, Literal["allow", "deny"]] | None = None,
        changes: Mapping[str, Any] | None = None,
        model: str = "",
        base: SessionState | None = None,
        server_named: bool = False,
    ) -> SessionState:
        """Drive the session to its end, or until it is suspended; return its state.

        ``begin`` is the first event of a new session; without it the session continues from its log, with a
        person's ``answers`` to its questions and ``changes`` of its configuration; ``model``, where it is named, must
        be the recorded one, and so must its server, unless ``server_named`` says that a person chose it. ``base`` is
        the state that a fork inherits; ``begin`` is then its first event.
        Raises what the log raises. On cancellation the open call is closed as lost and the session suspended.
        """
        self._lease = await self._store.acquire(self.session)
        heart = asyncio.create_task(self._beat(self._lease))
        try:
            if base is not None:
                self.folded = base
            await (self._append(begin) if begin else self._load(answers or {}, changes or {}, model, server_named))
            if base is not None:
                await self._leave_halt({})
            while (command := decide(self.folded)) is not None:
                await self._perform(command)
            await self._write()
        except asyncio.CancelledError:
            await self._stop("person", "A person stopped it.")
            raise
        finally:
            heart.cancel()
            with suppress(asyncio.CancelledError):
                await heart
            self._lease.release()
        return self.folded

    async def _load(
        self,
        answers: Mapping[str, Literal["allow", "deny"]],
        changes: Mapping[str, Any],
        model: str,
        server_named: bool,
    ) -> None:
        stream = await self._store.read(self.session)
        self.folded = fold(stream.events, stream.texts)
        recorded = self.folded.the_config.model
        if model and model != recorded:
            raise UsageError(
                f"Session {self.session} was made with {recorded}: with {model} it is a fork, a session of its own."
            )
        before = self.folded.the_config.server
        server = same_server(before, self._model, named=server_named)
        if before is not None and server not in (None, before):
            changes = {**changes, "server": server, "api": self._model.api, "adapter": self._model.adapter}
        if self.folded.call is not None and not await self._answered_by_batch(self.folded.call):
            await self._lose(self.folded.call.call)
        if self.state in machine.ACTIVE:  # its process died: from here on, other versions and facts may hold
            await self._append(self._suspension("outage", "The process that drove it ended."))
        if self.state in ("suspended", "failed"):
            await self._change(dict(changes))
        await self._leave_halt(answers)

    async def _leave_halt(self, answers: Mapping[str, Literal["allow", "deny"]]) -> None:
        """Continue from where the session was halted, under the versions of this process."""
        target = _resumes_to(self.folded)
        if not target:
            return
        for subject, answer in answers.items():
            await self._append(NewEvent(PersonAnswered(subject=subject, answer=answer)))
        trigger = machine.trigger(self.state, target)
        await self._append(NewEvent(Resumed(trigger=trigger, source=self.state, target=target, versions=versions())))

    async def _change(self, changes: dict[str, Any]) -> None:
        """Record what a person changed, and a sandbox that is another one than before."""
        config, facts = self.folded.the_config, self._sandbox.facts()
        if facts.model_copy(update={"why": config.sandbox.why}) != config.sandbox:
            changes["sandbox"] = facts.model_dump(mode="json")
        if not changes:
            return
        try:
            new = self._redactor.model(Config.model_validate({**config.model_dump(mode="json"), **changes}))
        except ValidationError as error:
            wrong = ", ".join(sorted({str(e["loc"][0]) for e in error.errors()}))
            raise UsageError(f"The configuration has no such setting or value: {wrong}.") from error
        plain = {name: value for name, value in new.model_dump(mode="json").items() if name in changes}
        texts = Blobs()
        changed = ConfigChanged(changes=texts.put(canonical(plain)), server=plain.get("server"))
        await self._append(NewEvent(changed, texts))

    async def _beat(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            lease.renew()

    # ---- the append

    def _take(self, draft: NewEvent) -> None:
        """Make the event, have the fold accept it (which asks the machine), and take the new state. It is not durable
        yet: `_write` makes it so, before anything follows from it outside of this process."""
        event = encode(self.session, self.folded.seq, self._clock.now(), draft.payload, self.folded.head)
        after = apply(self.folded, event, draft.texts)
        self._unwritten.append((event, draft.texts, self.folded, after))
        self.folded = after

    async def _write(self, reserve: Reservation | None = None) -> None:
        """Make durable what was taken: a decision, and the request that follows from it, in one transaction.

        Cancellation waits for its end, so that the state is the log's. What is not written is taken back.
        """
        if self._lease is None:
            raise CorruptTape("the session has no lease.")
        taken, self._unwritten = self._unwritten, []
        if not taken:
            return
        entries = [(event, texts) for event, texts, _, _ in taken]
        writing = asyncio.create_task(self._store.append_all(entries, self._lease, reserve))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            if writing.cancelled() or writing.exception() is not None:
                self.folded = taken[0][2]
            raise
        except BudgetSpent:
            self.folded = taken.pop()[2]
            self._tell(taken)
            raise
        except BaseException:
            self.folded = taken[0][2]
            raise
        self._tell(taken)

    def _tell(self, taken: "list[_Taken]") -> None:
        if self._on_event:
            for event, _, _, after in taken:
                self._on_event(event, after)

    async def _append(self, draft: NewEvent, reserve: Reservation | None = None) -> None:
        """Make an event durable, with what was taken before it."""
        self._take(draft)
        await self._write(reserve)

    # ---- effects

    async def _perform(self, command: Command) -> None:
        if isinstance(command, Record):
            self._take(command.draft)
            return
        if (refusal := self._refusal(command)) is not None:
            await self._append(self._suspension("outage", refusal))
            return
        try:
            share = self._share(command)
            reserved = reservation(command, self.folded, self._effects, self._limits, share=share or "1")
            await self._append(requested(self.folded, command), reserved)
        except BudgetSpent as error:
            await self._append(self._suspension("budget", str(error)))
            return
        call = f"{self.session}:{self.folded.seq - 1}"
        if share and isinstance(command, CallModel) and self._batched is not None:
            waiting = self._batched.ask(self._model, call, command.request, self._batch_teller(call))
            await self._close_by_batch(call, command.request, waiting, share)
            return
        async with self._slot(command):
            await self._make(command, call)

    def _refusal(self, command: CallModel | Build | Execute) -> str | None:
        """Say what a recorded session wants on this machine that its user has not allowed; None where nothing is."""
        if self._approval is None or isinstance(command, CallModel):
            return None
        spec, limits = (command.spec, None) if isinstance(command, Build) else (command.job.spec, command.job.resources)
        try:
            self._approval.check(spec, self._sandbox.facts(), limits)
        except UsageError as error:
            return str(error)
        return None

    async def _make(self, command: CallModel | Build | Execute, call: str) -> None:
        """Perform an effect in the time that is left, and close its call."""
        begun, limit = self._clock.monotonic_ms(), self._seconds_left()
        try:
            async with asyncio.timeout(limit) as in_time:
                draft = await self._effects.perform(command, call, self.folded.the_config.model)
        except (ModelUnavailable, SandboxUnavailable) as error:
            await self._give_up(call, error)
        except TimeoutError:
            if not in_time.expired():
                raise
            await self._lose(call, self._clock.monotonic_ms() - begun)
            seconds = self.folded.the_config.max_seconds
            message = f"The budget of the session, {seconds} s of work, was spent during a call, which was broken off."
            await self._append(self._suspension("budget", message))
        except Exception:
            # the one broad except: the log must say that the call's outcome is not known
            await self._lose(call)
            raise
        else:
            await self._append(draft)

    @asynccontextmanager
    async def _slot(self, command: Command) -> AsyncIterator[None]:
        """Wait for a place in the sandbox, where sessions that go forward together share it."""
        if self._batched is None or isinstance(command, CallModel):
            yield
        else:
            async with self._batched.slots:
                yield

    # ---- calls that are made in a batch

    def _share(self, command: Command) -> str:
        """Return the part of the price that a call is made at in a batch; empty where it is in none."""
        if self._batched is None or self._model.batches is None or not isinstance(command, CallModel):
            return ""
        return "" if self._model.free(command.request) else self._model.batches.price_share

    def _batch_teller(self, call: str) -> Callable[[str, str], Awaitable[None]]:
        async def tell(key: str, batch_id: str) -> None:
            await self._append(NewEvent(CallBatched(call=call, batch=key, batch_id=batch_id)))

        return tell

    async def _close_by_batch(
        self, call: str, request: ModelRequest, waiting: Awaitable[Reply | RequestRefused], share: str
    ) -> None:
        """Wait for a call's answer, and close it. What waits in a batch that is out of reach stays open.

        The wait is nobody's work: it takes nothing of the session's time.
        """
        try:
            reply = await waiting
        except ModelUnavailable as error:
            await self._give_up(call, error)
            return
        recorded = self.folded.the_config.model
        await self._append(self._effects.answered(reply, request, call, recorded, lambda: 0, share=share))

    async def _answered_by_batch(self, open_call: OpenCall) -> bool:
        """Close a call that an earlier process put into a batch by what the batch says; False where it is in none."""
        endpoint = self._model.batches
        command = decide(self.folded.evolve(call=None)) if open_call.batch and endpoint is not None else None
        if endpoint is None or not isinstance(command, CallModel):
            return False
        if command.request.fingerprint != open_call.fingerprint:  # another codetape's: its reply cannot be read here
            return False
        async with AsyncExitStack() as alone:
            batched = self._batched
            if batched is None:
                batched = await alone.enter_async_context(BatchedCalls())
            tell = self._batch_teller(open_call.call)
            waiting = batched.rejoin(self._model, open_call, self.folded.ended_at, command.request, tell)
            await self._close_by_batch(open_call.call, command.request, waiting, endpoint.price_share)
        return True

    def _seconds_left(self) -> float | None:
        """Return what is left of the session's time; None where it has no such budget."""
        most = self.folded.the_config.max_seconds
        return None if most is None else max(0.0, most - self.folded.spent.ms / 1000)

    async def _lose(self, call: str, spent_ms: int = 0) -> None:
        """Close the open call as one whose outcome will never be known."""
        estimate = self.folded.call.input_estimate if self.folded.call else 0
        await self._append(NewEvent(CallLost(call=call, input_estimate=estimate, duration_ms=max(0, spent_ms))))

    async def _give_up(self, call: str, error: InfrastructureError) -> None:
        draft, message = self._effects.gave_up(call, error)
        await self._append(draft)
        await self._append(self._suspension("outage", message))

    def _suspension(self, cause: Any, message: str) -> NewEvent:
        texts = Blobs()
        payload = Suspended(
            trigger="suspend",
            source=self.folded.state,
            target="suspended",
            about="session",
            reason=cause,
            ledger={},
            changes={},
            cause=cause,
            message=texts.put(message),
        )
        return NewEvent(payload, texts)

    async def _stop(self, cause: str, message: str) -> None:
        """Close the open call as lost, and suspend: what a Ctrl-C leaves behind. A call that waits in a batch stays
        open, for that goes on; one that was to be put into a batch was never made."""
        with suppress(CodetapeError):
            if (call := self.folded.call) is not None:
                if call.batch:
                    return
                if self._batched is not None and call.effect == "ask":
                    texts = Blobs()
                    unsent = GaveUp(call=call.call, message=texts.put("It was stopped before its batch was sent."))
                    await self._append(NewEvent(unsent, texts))
                else:
                    await self._lose(call.call)
            if self.folded.state in machine.ACTIVE:
                await self._append(self._suspension(cause, message))


def _resumes_to(session: SessionState) -> str:
    """Return the state that a halted session continues in; empty where it is not halted, or ended for good."""
    if session.state == "suspended" or (session.state == "failed" and session.cause == "unusable"):
        return session.resumes_to
    more = (
        session.state == "failed"
        and session.cause == "iterations"
        and session.ledger.iteration < session.the_config.max_iterations
    )
    return (machine.next_state(session.ledger.owed) or "") if more else ""


__all__ = ["CodeGenSession", "started"]
