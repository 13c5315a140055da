"""A session: fold, decide, perform, append, until it ends. The only place where effects are performed.

Every call is announced by `Requested` before it is made and closed by exactly one outcome after it;
the append is durable before the state changes.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from codetape.decider import decide
from codetape.decider.commands import Build, CallModel, Command, Execute, Record
from codetape.decider.request_events import requested
from codetape.domain.budget import Limit, Reservation
from codetape.domain.canonical import canonical, well_formed
from codetape.domain.money import pico, picodollars
from codetape.domain.report import Report
from codetape.domain.task import Config, Task
from codetape.domain.usage import Usage
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
    Answered,
    Blobs,
    BuildFinished,
    BuildRefused,
    CallLost,
    CallRefused,
    ConfigChanged,
    GaveUp,
    NewEvent,
    Payload,
    PersonAnswered,
    Price,
    Resumed,
    SessionStarted,
    Suspended,
    TestsFinished,
)
from codetape.eventlog.fold import apply, fold
from codetape.eventlog.session_state import SessionState
from codetape.ports import Built, Clock, EventStore, Lease, Model, Reply, RequestRefused, Sandbox, same_server
from codetape.runtime.pricing import Prices, plain
from codetape.runtime.redaction import Redactor
from codetape.runtime.versions import versions

HEARTBEAT_SECONDS = 15
MAX_REPLY = 2_000_000  # characters that are kept of one; no script is that long, and the rest is as cut off

T = TypeVar("T")


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
    ) -> None:
        self.session = session
        self._prices, self._limits = prices or Prices(), limits
        self._model, self._sandbox, self._store, self._clock = model, sandbox, store, clock
        self._redactor = redactor
        self._on_event = on_event
        self._lease: Lease | None = None
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
            changes = {**changes, "server": server}
        if self.folded.call is not None:
            lost = CallLost(call=self.folded.call.call, input_estimate=self.folded.call.input_estimate)
            await self._append(NewEvent(lost))
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
        await self._append(NewEvent(ConfigChanged(changes=texts.put(canonical(plain))), texts))

    async def _beat(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            lease.renew()

    # ---- the append

    async def _append(self, draft: NewEvent, reserve: Reservation | None = None) -> None:
        """Make the event, have the fold accept it (which asks the machine), make it durable, then take the new
        state."""
        if self._lease is None:
            raise CorruptTape("the session has no lease.")
        event = encode(self.session, self.folded.seq, self._clock.now(), draft.payload, self.folded.head)
        after = apply(self.folded, event, draft.texts)
        await self._store.append(event, draft.texts, self._lease, reserve)
        self.folded = after
        if self._on_event:
            self._on_event(event, after)

    # ---- effects

    async def _perform(self, command: Command) -> None:
        if isinstance(command, Record):
            await self._append(command.draft)
            return
        try:
            await self._append(requested(self.folded, command), self._reserved(command))
        except BudgetSpent as error:
            await self._append(self._suspension("budget", str(error)))
            return
        call = f"{self.session}:{self.folded.seq - 1}"
        begun = self._clock.monotonic_ms()
        try:
            draft = await self._effect(command, call, begun)
        except (ModelUnavailable, SandboxUnavailable) as error:
            await self._give_up(call, error)
        except Exception:
            # the one broad except: the log must say that the call's outcome is not known
            estimate = self.folded.call.input_estimate if self.folded.call else 0
            await self._append(NewEvent(CallLost(call=call, input_estimate=estimate)))
            raise
        else:
            await self._append(draft)

    def _reserved(self, command: Command) -> Reservation | None:
        """Return what an ask may come to. Raises BudgetSpent where the session's time is over."""
        config, spent = self.folded.the_config, self.folded.spent
        if config.max_seconds is not None and spent.ms >= config.max_seconds * 1000:
            raise BudgetSpent(
                f"The budget of the session, {config.max_seconds} s of work, is spent: {spent.ms / 1000:.1f} s."
            )
        if not isinstance(command, CallModel) or self._model.free(command.request):
            return None
        own = Limit("session", config.max_tokens, pico(config.max_cost) if config.max_cost else None)
        limits = tuple(limit for limit in (own, *self._limits) if (limit.tokens, limit.cost) != (None, None))
        request = command.request
        most = Usage(input=request.reserved_input, output=request.max_output_tokens)
        rate = self._prices.rate((request.model,), self._model.billing, most, self._clock.now())
        cost = picodollars(plain(rate.cost(most))) if rate else None
        return Reservation(most.total_input + most.total_output, cost, limits)

    def _effect(self, command: Command, call: str, begun: int) -> Coroutine[Any, Any, NewEvent]:
        if isinstance(command, CallModel):
            return self._ask(command, call, begun)
        if isinstance(command, Build):
            return self._build(command, call, begun)
        if isinstance(command, Execute):
            return self._execute(command, call, begun)
        raise TypeError(f"{type(command).__name__} is no effect")

    async def _give_up(self, call: str, error: InfrastructureError) -> None:
        message = self._redactor.error(well_formed(str(error)))
        texts = Blobs()
        ref = texts.put(message)
        said, billed = (error.tries[:20], error.maybe_billed) if isinstance(error, ModelUnavailable) else ((), False)
        tries = tuple(texts.put(self._redactor.error(well_formed(t))[:300]) for t in said)
        await self._append(NewEvent(GaveUp(call=call, message=ref, tries=tries, maybe_billed=billed), texts))
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
        """Close the open call as lost, and suspend: what a Ctrl-C leaves behind."""
        with suppress(CodetapeError):
            if self.folded.call is not None:
                call = self.folded.call
                await self._append(NewEvent(CallLost(call=call.call, input_estimate=call.input_estimate)))
            if self.folded.state in machine.ACTIVE:
                await self._append(self._suspension(cause, message))

    async def _ask(self, command: CallModel, call: str, begun: int) -> NewEvent:
        reply = await self._model.ask(command.request)
        texts = Blobs()
        if isinstance(reply, RequestRefused):
            message = texts.put(self._redactor.error(well_formed(reply.message)))
            refused = CallRefused(call=call, what=reply.what, parameter=reply.parameter, message=message)
            return NewEvent(refused, texts)
        return NewEvent(self._answered(reply, call, begun, texts), texts)

    def _answered(self, reply: Reply, call: str, begun: int, texts: Blobs) -> Payload:

        def put(text: str) -> str:
            return texts.put(self._redactor.text(well_formed(text)))

        def short(text: str, size: int) -> str:
            return self._redactor.text(well_formed(text))[:size]

        return Answered(
            call=call,
            text=put(reply.text[:MAX_REPLY]) if reply.text is not None else None,
            refusal=put(reply.refusal) if reply.refusal else None,
            finish_reason="length" if len(reply.text or "") > MAX_REPLY else short(reply.finish_reason, 40),
            model=short(reply.model, 200),
            fingerprint=short(reply.fingerprint, 200),
            usage=reply.usage,
            usage_raw=put(reply.usage_raw) if reply.usage_raw else None,
            matched_by=reply.matched_by,
            price=self._price(reply),
            tries=tuple(texts.put(self._redactor.error(well_formed(t))[:300]) for t in reply.tries[:20]),
            duration_ms=self._clock.monotonic_ms() - begun,
        )

    def _price(self, reply: Reply) -> Price | None:
        """Return what a reply cost; one from a recording cost nothing."""
        if reply.matched_by:
            return None
        names = tuple(dict.fromkeys(filter(None, (reply.model, self.folded.the_config.model))))
        return self._prices.price(names, self._model.billing, reply.usage, self._clock.now(), reply.usage_raw)

    async def _build(self, command: Build, call: str, begun: int) -> NewEvent:
        outcome = await self._sandbox.build(command.spec)
        texts, spent = Blobs(), self._clock.monotonic_ms() - begun
        if isinstance(outcome, Built):
            lock = texts.put(self._redactor.error(well_formed(outcome.lock)))
            finished = BuildFinished(
                call=call, image=outcome.image, lock=lock, cached=outcome.cached, duration_ms=spent
            )
            return NewEvent(finished, texts)
        message = texts.put(self._redactor.error(well_formed(outcome.message)))
        refused = BuildRefused(
            call=call, reason=outcome.reason, packages=outcome.packages, message=message, duration_ms=spent
        )
        return NewEvent(refused, texts)

    async def _execute(self, command: Execute, call: str, begun: int) -> NewEvent:
        execution = await self._sandbox.execute(command.job)
        report = self._redactor.model(Report.model_validate(_plain(execution.report)))
        texts = Blobs()
        outcomes = [t.outcome for t in report.tests]
        finished = TestsFinished(
            call=call,
            purpose=command.job.purpose,
            exit=report.exit,
            whole=report.whole,
            passed=outcomes.count("passed"),
            failed=outcomes.count("failed"),
            errors=outcomes.count("error") + outcomes.count("unfinished"),
            skipped=outcomes.count("skipped"),
            report=texts.put(canonical(report.model_dump(mode="json"))),
            duration_ms=self._clock.monotonic_ms() - begun,
        )
        return NewEvent(finished, texts)


def _resumes_to(session: SessionState) -> str:
    """Return the state that a halted session continues in; empty where it is not halted, or ended for good."""
    if session.state == "suspended":
        return session.resumes_to
    more = (
        session.state == "failed"
        and session.cause == "iterations"
        and session.ledger.iteration < session.the_config.max_iterations
    )
    return (machine.next_state(session.ledger.owed) or "") if more else ""


def _plain(report: Report) -> Any:
    """Return a report as data whose texts UTF-8 can carry."""
    return json.loads(well_formed(json.dumps(report.model_dump(mode="json"), ensure_ascii=False)))


__all__ = ["CodeGenSession", "started"]
