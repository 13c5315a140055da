"""Effects: a model call, a build, an execution. Each gives the event that closes its call, redacted."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from codetape.decider.commands import Build, CallModel, Command, Execute
from codetape.domain.canonical import canonical_without_floats, well_formed
from codetape.domain.model_request import ModelRequest
from codetape.domain.report import IDLE, Report
from codetape.domain.usage import MAX_TOKENS
from codetape.errors import InfrastructureError, ModelUnavailable
from codetape.eventlog.events import (
    Answered,
    Blobs,
    BuildFinished,
    BuildRefused,
    CallRefused,
    GaveUp,
    NewEvent,
    Price,
    TestsFinished,
)
from codetape.ports import Built, Clock, Model, Reply, RequestRefused, Sandbox
from codetape.prompts.thoughts import split
from codetape.runtime.pricing import Prices
from codetape.runtime.redaction import Redactor

MAX_KEPT = 2_000_000  # characters that are kept of one; no script is that long, and the rest is as cut off
MAX_TRIES = 20  # failed tries of a call that are recorded
MAX_TRY = 300  # characters of each
MIN_CUT = 1000  # tokens of a prompt, by estimate, below which nothing is said of its having been cut


@dataclass(frozen=True)
class Effects:
    """Performs one command, and turns what came back into an event. Raises what model and sandbox raise."""

    model: Model
    sandbox: Sandbox
    clock: Clock
    redactor: Redactor
    prices: Prices

    async def perform(self, command: Command, call: str, recorded_model: str) -> NewEvent:
        """Perform a command as this call. ``recorded_model`` is the session's: a reply may name none."""
        begun = self.clock.monotonic_ms()

        def elapsed() -> int:
            return self.clock.monotonic_ms() - begun

        if isinstance(command, CallModel):
            return self.answered(await self.model.ask(command.request), command.request, call, recorded_model, elapsed)
        if isinstance(command, Build):
            return await self._build(command, call, elapsed)
        if isinstance(command, Execute):
            return await self._execute(command, call, elapsed)
        raise TypeError(f"{type(command).__name__} is no effect")

    def gave_up(self, call: str, error: InfrastructureError) -> tuple[NewEvent, str]:
        """Return the event of a provider or daemon that is down, and what it said, redacted."""
        blobs, message = Blobs(), self._error(str(error))
        ref = blobs.put(message)
        tries, lost = (error.tries, error.unanswered) if isinstance(error, ModelUnavailable) else ((), 0)
        payload = GaveUp(
            call=call, message=ref, tries=self._tries(tries, blobs), maybe_billed=lost > 0, unanswered=_few(lost)
        )
        return NewEvent(payload, blobs), message

    def answered(
        self,
        reply: Reply | RequestRefused,
        request: ModelRequest,
        call: str,
        recorded_model: str,
        elapsed: Callable[[], int],
        *,
        share: str = "1",
    ) -> NewEvent:
        """Return the event that closes a model call. ``share`` is the part of the price that it was made at."""
        blobs = Blobs()
        if isinstance(reply, RequestRefused):
            refused = CallRefused(
                call=call,
                what=reply.what,
                parameter=reply.parameter,
                message=blobs.put(self._error(reply.message)),
                cap=_tokens(reply.cap),
                window=_tokens(reply.window),
                prompt=_tokens(reply.prompt),
            )
            return NewEvent(refused, blobs)

        def put(text: str) -> str:
            return blobs.put(self.redactor.text(well_formed(text))[:MAX_KEPT])  # cut afterwards: a cut hides the end

        def short(text: str, size: int) -> str:
            return self.redactor.text(well_formed(text))[:size]

        thoughts, text = thoughts_and_answer(reply)
        payload = Answered(
            call=call,
            text=put(text) if text is not None else None,
            reasoning=put(thoughts) if thoughts else None,
            refusal=put(reply.refusal) if reply.refusal else None,
            finish_reason="length" if len(reply.text or "") > MAX_KEPT else short(reply.finish_reason, 40),
            model=short(reply.model, 200),
            fingerprint=short(reply.fingerprint, 200),
            usage=reply.usage,
            usage_raw=put(reply.usage_raw) if reply.usage_raw else None,
            matched_by=reply.matched_by,
            price=self._price(reply, recorded_model, share),
            tries=self._tries(reply.tries, blobs),
            unanswered=_few(reply.unanswered),
            prompt_cut=_is_cut(reply, request),
            duration_ms=elapsed(),
        )
        return NewEvent(payload, blobs)

    def _price(self, reply: Reply, recorded_model: str, share: str) -> Price | None:
        """Return what a reply cost; one from a recording cost nothing."""
        if reply.matched_by:
            return None
        names = tuple(dict.fromkeys(filter(None, (reply.model, recorded_model))))
        return self.prices.price(names, self.model.billing, reply.usage, self.clock.now(), reply.usage_raw, share)

    async def _build(self, command: Build, call: str, elapsed: Callable[[], int]) -> NewEvent:
        outcome = await self.sandbox.build(command.spec)
        blobs, spent = Blobs(), elapsed()
        if isinstance(outcome, Built):
            lock = blobs.put(self._error(outcome.lock))
            built = BuildFinished(call=call, image=outcome.image, lock=lock, cached=outcome.cached, duration_ms=spent)
            return NewEvent(built, blobs)
        message = blobs.put(self._error(outcome.message))
        refused = BuildRefused(
            call=call, reason=outcome.reason, packages=outcome.packages, message=message, duration_ms=spent
        )
        return NewEvent(refused, blobs)

    async def _execute(self, command: Execute, call: str, elapsed: Callable[[], int]) -> NewEvent:
        execution = await self.sandbox.execute(command.job)
        report = self.redactor.model(Report.model_validate(_encodable(execution.report)))
        blobs = Blobs()
        outcomes = [test.outcome for test in report.tests]
        payload = TestsFinished(
            call=call,
            purpose=command.job.purpose,
            exit=report.exit,
            whole=report.whole,
            passed=outcomes.count("passed"),
            failed=outcomes.count("failed"),
            errors=outcomes.count("error") + outcomes.count("unfinished"),
            skipped=sum(outcome in IDLE for outcome in outcomes),
            report=blobs.put(canonical_without_floats(report.model_dump(mode="json"))),
            duration_ms=elapsed(),
        )
        return NewEvent(payload, blobs)

    def _error(self, text: str) -> str:
        return self.redactor.error(well_formed(text))

    def _tries(self, tries: tuple[str, ...], blobs: Blobs) -> tuple[str, ...]:
        return tuple(blobs.put(self._error(text)[:MAX_TRY]) for text in tries[:MAX_TRIES])


def thoughts_and_answer(reply: Reply) -> tuple[str, str | None]:
    """Return what a reply says was thought, by its server or at its beginning, and the answer without that."""
    if reply.text is None or reply.matched_by:  # a recording's answer was told from its thoughts before
        return reply.reasoning, reply.text
    found = split(reply.text)
    if not found.thoughts:
        return reply.reasoning, reply.text
    return "\n".join(filter(None, (reply.reasoning, found.thoughts))), found.answer


def _is_cut(reply: Reply, request: ModelRequest) -> bool:
    """Whether the server read far less than was sent, as one with a small window does without a word."""
    read, sent = reply.usage.total_input, request.input_estimate
    return reply.usage.source == "provider" and not reply.matched_by and sent >= MIN_CUT and 2 * read < sent


def _tokens(count: int) -> int:
    return min(max(0, count), MAX_TOKENS)


def _few(count: int) -> int:
    return min(max(0, count), MAX_TRIES)


def _encodable(report: Report) -> Any:
    """Return a report as data whose texts UTF-8 can carry: a sandbox may send lone surrogates."""
    return json.loads(well_formed(json.dumps(report.model_dump(mode="json"), ensure_ascii=False)))
