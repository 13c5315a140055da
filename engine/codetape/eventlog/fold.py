"""The fold of events that gives a `Run`. State is never anything else.

`fold` is pure and total over legal streams; an illegal event raises CorruptTape with its seq.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any, Literal

from pydantic import TypeAdapter

from codetape.domain.money import picodollars
from codetape.domain.report import Report
from codetape.domain.task import Config, Task
from codetape.domain.usage import MAX_TOKENS, Usage
from codetape.domain.validation import reason_of
from codetape.errors import CorruptTape
from codetape.eventlog import machine
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    EXTERNAL_CAUSES,
    PACK_FILE,
    AnchorsExtracted,
    Answered,
    BuildFinished,
    BuildRefused,
    CallClosed,
    CallLost,
    CallRefused,
    CodeReverted,
    ConfigChanged,
    ContentForgotten,
    Decided,
    FailureReclassified,
    GaveUp,
    Payload,
    PersonAnswered,
    Requested,
    Resumed,
    SessionForked,
    SessionStarted,
    Suspended,
    TestQuarantined,
    TestsFinished,
)
from codetape.eventlog.session_state import (
    Artifacts,
    Counters,
    OpenCall,
    PendingOutcome,
    SessionState,
    Spending,
    field_adapter,
)

MAX_ANSWERS = 1000  # of a person's, in one session
_LEFT_OUT: TypeAdapter[tuple[tuple[str, str], ...]] = TypeAdapter(tuple[tuple[str, str], ...])

BlobMap = Mapping[str, str]
"""The blobs that events refer to, by hash."""


def _is_text(name: str) -> bool:
    return Artifacts.model_fields[name].annotation is str


def _changed(work: Artifacts, changes: Mapping[str, str | None], texts: BlobMap) -> Artifacts:
    new: dict[str, Any] = {}
    for name, ref in changes.items():
        if name not in Artifacts.model_fields:
            raise ValueError(f"a run has no {name}")
        if ref is None:
            new[name] = Artifacts.model_fields[name].get_default()
        elif _is_text(name):
            new[name] = texts[ref]
        else:
            new[name] = field_adapter(Artifacts, name).validate_json(texts[ref])
    return work.model_copy(update=new)


def _booked(ledger: Counters, changes: Mapping[str, Any]) -> Counters:
    for name in changes:
        if name not in Counters.model_fields:
            raise ValueError(f"a ledger has no {name}")
    return ledger.model_copy(update={k: field_adapter(Counters, k).validate_python(v) for k, v in changes.items()})


def fold(events: Iterable[Event], texts: BlobMap, run: SessionState | None = None) -> SessionState:
    """Return the state after the events. Deterministic; nothing outside its arguments is read."""
    state = run or SessionState()
    for event in events:
        state = apply(state, event, texts)
    return state


def apply(run: SessionState, event: Event, texts: BlobMap) -> SessionState:
    """Return the state after one more event. Raises CorruptTape, with the seq, where it cannot follow."""
    try:
        if event.seq != run.seq:
            raise CorruptTape(f"event {event.seq} where {run.seq} was due.")
        if run.seq and event.session != run.session and not isinstance(event.payload, SessionForked):
            raise CorruptTape(f"it belongs to session {event.session}, and no fork was made.")
        moved = move(run, event.payload)
        after = _apply(event.payload, moved, texts)
    except CorruptTape as error:
        raise CorruptTape(f"{event.session}:{event.seq} {event.kind}: {error}", seq=event.seq) from error
    except KeyError as error:
        raise CorruptTape(
            f"{event.session}:{event.seq} refers to blob {error}, which is missing.", seq=event.seq
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptTape(
            f"{event.session}:{event.seq} cannot be applied: {reason_of(error)}", seq=event.seq
        ) from error
    started = run.started_at or event.at
    return after.evolve(session=event.session, seq=run.seq + 1, head=event.hash, started_at=started, ended_at=event.at)


_EFFECT: dict[type[Payload], str] = {
    Answered: "ask",
    CallRefused: "ask",
    BuildFinished: "build",
    BuildRefused: "build",
    TestsFinished: "execute",
}
"""Which calls an outcome can close; lost calls and those given up on can be any."""


def move(run: SessionState, payload: Payload) -> SessionState:
    """Check the payload against the machine and the open call, and move."""
    if run.forgotten:
        raise CorruptTape("its content was forgotten: nothing follows that.")
    if run.call is not None and not isinstance(payload, CallClosed):
        raise CorruptTape(f"call {run.call.call} is still open.")
    if isinstance(payload, CallClosed):
        if run.call is None or run.call.call != payload.call:
            raise CorruptTape(f"{payload.call} is not the open call.")
        if run.call.effect != _EFFECT.get(type(payload), run.call.effect):
            raise CorruptTape(f"a {type(payload).__name__} cannot close the {run.call.effect} {payload.call}.")
    trigger: str = getattr(payload, "trigger", "")
    source: str = getattr(payload, "source", run.state)
    target: str = getattr(payload, "target", run.state)
    if source != run.state:
        raise CorruptTape(f"it leaves {source}, but the state is {run.state}.")
    if (trigger or source != target) and machine.trigger(source, target) != trigger:
        raise CorruptTape(f"{trigger!r} does not lead from {source} to {target}.")
    return run.evolve(state=target)


@singledispatch
def _apply(payload: Payload, run: SessionState, texts: BlobMap) -> SessionState:
    raise CorruptTape(f"nothing is known of {type(payload).__name__}.")


@_apply.register
def _(payload: SessionStarted, run: SessionState, texts: BlobMap) -> SessionState:
    task = Task.model_validate_json(texts[payload.task])
    config = Config.model_validate_json(texts[payload.config])
    owed = first_owed(task, config)
    ledger = Counters(
        owed=owed, packages=config.packages, system_packages=config.system_packages, commands=config.commands
    )
    pack = _pack(payload.pack, texts)
    return run.evolve(task=task, config=config, pack=pack, versions=payload.versions, ledger=ledger)


def _pack(named: Mapping[str, str], texts: BlobMap) -> dict[str, str]:
    """Return a pack's files; their names become files' names where a pack is exported."""
    if wrong := next((name for name in named if not PACK_FILE.fullmatch(name)), None):
        raise CorruptTape(f"{wrong[:80]!r} is no file of a prompt pack.")
    return {name: texts[ref] for name, ref in named.items()}


@_apply.register
def _(payload: SessionForked, run: SessionState, texts: BlobMap) -> SessionState:
    if (payload.parent, payload.seq, payload.hash) != (run.session, run.seq - 1, run.head):
        raise CorruptTape("it continues from another event than the one before it.")
    changes = json.loads(texts[payload.config])
    if not isinstance(changes, dict):
        raise CorruptTape("a change of the configuration is no object.")
    config = Config.model_validate({**run.the_config.model_dump(mode="json"), **changes})
    task, outcome = run.the_task, run.outcome
    if payload.say is not None:
        task = task.model_copy(update={"constraints": (*task.constraints, texts[payload.say])})
    if payload.tags:
        task = task.model_copy(update={"tags": (*task.tags, *payload.tags)})
    if payload.reply is not None:
        if outcome is None or not isinstance(outcome.event, Answered):
            raise CorruptTape("it replaces an answer where none waits for a decision.")
        whole = outcome.event.model_copy(update={"finish_reason": "stop"})
        outcome = replace(outcome, event=whole, text=texts[payload.reply], message="")
    return run.evolve(
        config=config,
        task=task,
        outcome=outcome,
        pack=_pack(payload.pack, texts) or run.pack,
        versions=payload.versions,
        parent=payload.parent,
        forked_at=payload.seq,
        inherited=run.usage,
        inherited_calls=run.calls,
        spent=Spending(),
        started_at="",  # its own time begins with this event
    )


def first_owed(task: Task, config: Config) -> tuple[str, ...]:
    """Return what a new run owes. Without tests the script runs once, where every input has a sample."""
    runnable = bool(task.inputs) and all(i.value is not None or i.sample for i in task.inputs)
    executing = ("executing",) if runnable or not config.skip_tests else ()
    writing = () if config.skip_tests else ("writing_tests",)
    return ("coding", *writing, "resolving", *executing, *(("proving",) if task.oracle else ()))


@_apply.register
def _(payload: AnchorsExtracted, run: SessionState, texts: BlobMap) -> SessionState:
    left_out = _LEFT_OUT.validate_json(texts[payload.left_out]) if payload.left_out else ()
    return run.evolve(anchors=texts[payload.anchors], anchor_count=payload.count, left_out=left_out)


@_apply.register
def _(payload: Requested, run: SessionState, texts: BlobMap) -> SessionState:
    check_call(run, payload, waiting=run.outcome is not None)
    call = OpenCall(payload.call, payload.effect, payload.purpose, payload.fingerprint, payload.input_estimate)
    return run.evolve(call=call, calls=run.calls + (payload.effect == "ask"))


@_apply.register
def _(payload: CallClosed, run: SessionState, texts: BlobMap) -> SessionState:
    if run.call is None:
        raise CorruptTape("no call is open.")
    message: str | None = getattr(payload, "message", None)
    report: str | None = getattr(payload, "report", None)
    lock: str | None = getattr(payload, "lock", None)
    outcome = PendingOutcome(
        purpose=run.call.purpose,
        event=payload,
        message=texts[message or lock or ""] if message or lock else "",
        report=Report.model_validate_json(texts[report]) if report else None,
    )
    spent = replace(run.spent, ms=run.spent.ms + getattr(payload, "duration_ms", 0))
    return run.evolve(call=None, outcome=outcome, noted=0, spent=spent)


@_apply.register
def _(payload: Answered, run: SessionState, texts: BlobMap) -> SessionState:
    if run.call is None:
        raise CorruptTape("no call is open.")
    text = texts[payload.text] if payload.text is not None else None
    refusal = texts[payload.refusal] if payload.refusal is not None else ""
    return run.evolve(
        call=None,
        noted=0,
        outcome=PendingOutcome(purpose=run.call.purpose, event=payload, text=text, message=refusal),
        usage=_sum(run.usage, payload.usage),
        usage_estimated=run.usage_estimated or payload.usage.source == "estimated",
        spent=_spent(run.spent, payload),
    )


def _spent(spent: Spending, payload: Answered) -> Spending:
    tokens = payload.usage.total_input + payload.usage.total_output
    if payload.matched_by:
        return replace(spent, reused=spent.reused + 1, reused_tokens=spent.reused_tokens + tokens)
    cost = picodollars(payload.price.cost) if payload.price else 0
    return replace(
        spent,
        ms=spent.ms + payload.duration_ms,
        cost=spent.cost + cost,
        unpriced=spent.unpriced + (payload.price is None),
    )


def _sum(one: Usage, other: Usage) -> Usage:
    buckets = ("input", "cache_read", "cache_write", "output", "reasoning")
    source: Literal["provider", "estimated"] = "estimated" if "estimated" in (one.source, other.source) else "provider"
    return Usage(
        source=source, **{name: min(MAX_TOKENS, getattr(one, name) + getattr(other, name)) for name in buckets}
    )


@_apply.register
def _(payload: CallLost, run: SessionState, texts: BlobMap) -> SessionState:
    return run.evolve(call=None, outcome=None)


@_apply.register
def _(payload: GaveUp, run: SessionState, texts: BlobMap) -> SessionState:
    return run.evolve(call=None, outcome=None, reason=texts[payload.message])


@_apply.register
def _(payload: Decided, run: SessionState, texts: BlobMap) -> SessionState:
    """Covers Suspended, Succeeded and Failed too: they are decisions that end or halt the run.

    A halt from outside settles nothing: an answer that no decision was taken on yet still waits for it.
    """
    source = payload.source
    halted = isinstance(payload, Suspended) and payload.cause in EXTERNAL_CAUSES
    if halted and (payload.ledger or payload.changes):
        raise CorruptTape("a halt from outside changes something.")
    message: str | None = getattr(payload, "message", None)
    reason = payload.reason if message is None else texts[message]
    ending = payload.target in (*machine.FINAL, "suspended")
    return run.evolve(
        outcome=run.outcome if halted else None,
        noted=run.noted if halted else 0,
        ledger=_booked(run.ledger, payload.ledger),
        work=_changed(run.work, payload.changes, texts),
        resumes_to=source if payload.target == "suspended" else run.resumes_to,
        cause=(getattr(payload, "cause", "") or payload.reason) if ending else "",
        reason=reason if ending else "",
        confidence=getattr(payload, "confidence", ""),
    )


@_apply.register
def _(payload: ContentForgotten, run: SessionState, texts: BlobMap) -> SessionState:
    return run.evolve(forgotten=True)


def check_call(run: SessionState, payload: Requested, *, waiting: bool) -> None:
    """Check that a call is made where calls are made, and has its name."""
    if run.state not in machine.ACTIVE or waiting:
        raise CorruptTape(f"nothing can be asked in {run.state}.")
    if payload.call.rpartition(":")[2] != str(run.seq):
        raise CorruptTape(f"{payload.call} is not this call's name.")


def _note(payload: Payload, run: SessionState, texts: BlobMap) -> SessionState:
    """A fact that a decision rests on: the decision that follows makes the change."""
    return run.evolve(noted=run.noted + 1)


for _kind in (FailureReclassified, TestQuarantined, CodeReverted):
    _apply.register(_kind, _note)


@_apply.register
def _(payload: ConfigChanged, run: SessionState, texts: BlobMap) -> SessionState:
    if run.state not in ("suspended", "failed"):
        raise CorruptTape(f"the configuration cannot change in {run.state}.")
    changes = json.loads(texts[payload.changes])
    if not isinstance(changes, dict):
        raise CorruptTape("a change of the configuration is no object.")
    config = Config.model_validate({**run.the_config.model_dump(mode="json"), **changes})
    return run.evolve(config=config)


@_apply.register
def _(payload: PersonAnswered, run: SessionState, texts: BlobMap) -> SessionState:
    if run.state != "suspended":
        raise CorruptTape(f"nobody was asked anything in {run.state}.")
    if len(run.answers) >= MAX_ANSWERS:
        raise CorruptTape(f"it is one of more than {MAX_ANSWERS} answers.")
    return run.evolve(answers=(*run.answers, (payload.subject, payload.answer)))


@_apply.register
def _(payload: Resumed, run: SessionState, texts: BlobMap) -> SessionState:
    return run.evolve(versions=payload.versions, reason="", cause="", resumes_to="")
