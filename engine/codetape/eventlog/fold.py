"""The fold of events into a `SessionState`. State is never anything else.

`fold` is pure and total over legal streams; an illegal event raises CorruptTape with its seq.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, singledispatch
from typing import Any, Literal

from pydantic import TypeAdapter

from codetape.domain.canonical import canonical
from codetape.domain.money import picodollars
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
    CallBatched,
    CallClosed,
    CallLost,
    CallRefused,
    CodeReverted,
    ConfigChanged,
    ContentForgotten,
    Decided,
    Failed,
    FailureReclassified,
    GaveUp,
    Payload,
    PersonAnswered,
    Requested,
    Resumed,
    SessionForked,
    SessionStarted,
    Succeeded,
    Suspended,
    TestQuarantined,
    TestsFinished,
    Transition,
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

MAX_ANSWERS = 1000  # of a person, in one session
_LEFT_OUT: TypeAdapter[tuple[tuple[str, str], ...]] = TypeAdapter(tuple[tuple[str, str], ...])

BlobMap = Mapping[str, str]
"""The blobs that events refer to, by hash."""


def _is_text(name: str) -> bool:
    return Artifacts.model_fields[name].annotation is str


def _with_artifacts(work: Artifacts, changes: Mapping[str, str | None], texts: BlobMap) -> Artifacts:
    if not changes:
        return work
    new: dict[str, Any] = {}
    for name, ref in changes.items():
        if name not in Artifacts.model_fields:
            raise ValueError(f"a run has no {name}")
        if ref is None:
            new[name] = Artifacts.model_fields[name].get_default()
        elif _is_text(name):
            new[name] = texts[ref]
        else:
            new[name] = _artifact(name, texts[ref])
    return work.model_copy(update=new)


_LONG = 100_000  # characters


def _artifact(name: str, text: str) -> Any:
    """Read an artifact: a report comes as an outcome, and again in what was decided on it."""
    return _read_artifact.__wrapped__(name, text) if len(text) > _LONG else _read_artifact(name, text)


def _report(text: str) -> Any:
    report = _artifact("report", text)
    if report is None:
        raise ValueError("there is no report")
    return report


@lru_cache(maxsize=64)
def _read_artifact(name: str, text: str) -> Any:
    return field_adapter(Artifacts, name).validate_json(text, strict=True)


def _with_counters(ledger: Counters, changes: Mapping[str, Any]) -> Counters:
    if not changes:
        return ledger
    for name in changes:
        if name not in Counters.model_fields:
            raise ValueError(f"a ledger has no {name}")
    return ledger.model_copy(update={k: field_adapter(Counters, k).validate_python(v) for k, v in changes.items()})


def fold(events: Iterable[Event], texts: BlobMap, session: SessionState | None = None) -> SessionState:
    """Return the state after the events. Deterministic; nothing outside its arguments is read."""
    state = session or SessionState()
    for event in events:
        state = apply(state, event, texts)
    return state


def apply(session: SessionState, event: Event, texts: BlobMap) -> SessionState:
    """Return the state after one more event. Raises CorruptTape, with the seq, where it cannot follow."""
    try:
        if event.seq != session.seq:
            raise CorruptTape(f"event {event.seq} where {session.seq} was due.")
        if session.seq and event.session != session.session and not isinstance(event.payload, SessionForked):
            raise CorruptTape(f"it belongs to session {event.session}, and no fork was made.")
        moved = move(session, event.payload)
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
    started = session.started_at or event.at
    return after.evolve(
        session=event.session, seq=session.seq + 1, head=event.hash, started_at=started, ended_at=event.at
    )


_EFFECT: dict[type[Payload], str] = {
    CallBatched: "ask",
    Answered: "ask",
    CallRefused: "ask",
    BuildFinished: "build",
    BuildRefused: "build",
    TestsFinished: "execute",
}
"""The effect of the calls that an event belongs to; CallLost and GaveUp close calls of any effect."""


def _version(session: SessionState, payload: Payload) -> int:
    """Return the machine's version that a move is made by: that of the event, where it names one."""
    return payload.versions.machine if isinstance(payload, SessionStarted | Resumed) else session.machine


def move(session: SessionState, payload: Payload) -> SessionState:
    """Check the payload against the machine and the open call; return the state after its move."""
    if session.forgotten:
        raise CorruptTape("its content was forgotten: nothing follows that.")
    if session.call is not None and not isinstance(payload, CallClosed | CallBatched):
        raise CorruptTape(f"call {session.call.call} is still open.")
    if isinstance(payload, CallClosed | CallBatched):
        if session.call is None or session.call.call != payload.call:
            raise CorruptTape(f"{payload.call} is not the open call.")
        if session.call.effect != _EFFECT.get(type(payload), session.call.effect):
            raise CorruptTape(
                f"a {type(payload).__name__} does not belong to the {session.call.effect} {payload.call}."
            )
    if not isinstance(payload, Transition):
        return session
    trigger, source, target = payload.trigger, payload.source, payload.target
    if source != session.state:
        raise CorruptTape(f"it leaves {source}, but the state is {session.state}.")
    if (trigger or source != target) and machine.trigger(source, target, _version(session, payload)) != trigger:
        raise CorruptTape(f"{trigger!r} does not lead from {source} to {target}.")
    return session.evolve(state=target)


@singledispatch
def _apply(payload: Payload, session: SessionState, texts: BlobMap) -> SessionState:
    raise CorruptTape(f"nothing is known of {type(payload).__name__}.")


@_apply.register
def _(payload: SessionStarted, session: SessionState, texts: BlobMap) -> SessionState:
    task = Task.model_validate_json(texts[payload.task], strict=True)
    config = Config.model_validate_json(texts[payload.config], strict=True)
    pending = first_owed(task, config)
    ledger = Counters(
        owed=pending, packages=config.packages, system_packages=config.system_packages, commands=config.commands
    )
    pack = _pack(payload.pack, texts)
    return session.evolve(task=task, config=config, pack=pack, versions=payload.versions, ledger=ledger)


def _pack(refs_by_name: Mapping[str, str], texts: BlobMap) -> dict[str, str]:
    """Return a pack's files; their names become files' names where a pack is exported."""
    if illegal_name := next((name for name in refs_by_name if not PACK_FILE.fullmatch(name)), None):
        raise CorruptTape(f"{illegal_name[:80]!r} is no file of a prompt pack.")
    return {name: texts[ref] for name, ref in refs_by_name.items()}


def _changed(config: Config, text: str) -> Config:
    """Return a configuration with the fields of a JSON object."""
    changes = json.loads(text)
    if not isinstance(changes, dict):
        raise CorruptTape("a change of the configuration is no object.")
    return Config.model_validate_json(canonical({**config.model_dump(mode="json"), **changes}), strict=True)


@_apply.register
def _(payload: SessionForked, session: SessionState, texts: BlobMap) -> SessionState:
    if (payload.parent, payload.seq, payload.hash) != (session.session, session.seq - 1, session.head):
        raise CorruptTape("it continues from another event than the one before it.")
    config = _changed(session.the_config, texts[payload.config])
    task, outcome = session.the_task, session.outcome
    if payload.say is not None:
        task = task.model_copy(update={"constraints": (*task.constraints, texts[payload.say])})
    if payload.tags:
        task = task.model_copy(update={"tags": (*task.tags, *payload.tags)})
    if payload.reply is not None:
        if outcome is None or not isinstance(outcome.event, Answered):
            raise CorruptTape("it replaces an answer where none waits for a decision.")
        complete_event = outcome.event.model_copy(update={"finish_reason": "stop"})
        outcome = replace(outcome, event=complete_event, text=texts[payload.reply], message="")
    return session.evolve(
        config=config,
        task=task,
        outcome=outcome,
        pack=_pack(payload.pack, texts) or session.pack,
        versions=payload.versions,
        parent=payload.parent,
        forked_at=payload.seq,
        inherited=session.usage,
        inherited_calls=session.calls,
        spent=Spending(),
        started_at="",  # its own time begins with this event
    )


def first_owed(task: Task, config: Config) -> tuple[str, ...]:
    """Return what is pending in a new session. Without tests the script runs once, where all inputs have values."""
    runnable = bool(task.inputs) and all(i.value is not None or i.sample for i in task.inputs)
    executing = ("executing",) if runnable or not config.skip_tests else ()
    writing = () if config.skip_tests else ("writing_tests",)
    return ("coding", *writing, "resolving", *executing, *(("proving",) if task.oracle else ()))


@_apply.register
def _(payload: AnchorsExtracted, session: SessionState, texts: BlobMap) -> SessionState:
    left_out = _LEFT_OUT.validate_json(texts[payload.left_out], strict=True) if payload.left_out else ()
    return session.evolve(anchors=texts[payload.anchors], anchor_count=payload.count, left_out=left_out)


@_apply.register
def _(payload: Requested, session: SessionState, texts: BlobMap) -> SessionState:
    check_call(session, payload, waiting=session.outcome is not None)
    call = OpenCall(payload.call, payload.effect, payload.purpose, payload.fingerprint, payload.input_estimate)
    return session.evolve(call=call, calls=session.calls + (payload.effect == "ask"))


@_apply.register
def _(payload: CallBatched, session: SessionState, texts: BlobMap) -> SessionState:
    if session.call is None:
        raise CorruptTape("no call is open.")
    return session.evolve(call=replace(session.call, batch=payload.batch, batch_id=payload.batch_id))


@_apply.register
def _(payload: CallClosed, session: SessionState, texts: BlobMap) -> SessionState:
    if session.call is None:
        raise CorruptTape("no call is open.")
    message: str | None = getattr(payload, "message", None)
    report: str | None = getattr(payload, "report", None)
    lock: str | None = getattr(payload, "lock", None)
    outcome = PendingOutcome(
        purpose=session.call.purpose,
        event=payload,
        message=texts[message or lock or ""] if message or lock else "",
        report=_report(texts[report]) if report else None,
    )
    spent = replace(session.spent, ms=session.spent.ms + getattr(payload, "duration_ms", 0))
    return session.evolve(call=None, outcome=outcome, noted=0, spent=spent)


@_apply.register
def _(payload: Answered, session: SessionState, texts: BlobMap) -> SessionState:
    if session.call is None:
        raise CorruptTape("no call is open.")
    text = texts[payload.text] if payload.text is not None else None
    refusal = texts[payload.refusal] if payload.refusal is not None else ""
    return session.evolve(
        call=None,
        noted=0,
        outcome=PendingOutcome(purpose=session.call.purpose, event=payload, text=text, message=refusal),
        usage=_sum(session.usage, payload.usage),
        usage_estimated=session.usage_estimated or payload.usage.source == "estimated",
        spent=_spent(session.spent, payload),
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


def _sum(first: Usage, second: Usage) -> Usage:
    buckets = ("input", "cache_read", "cache_write", "output", "reasoning")
    source: Literal["provider", "estimated"] = (
        "estimated" if "estimated" in (first.source, second.source) else "provider"
    )
    return Usage(
        source=source, **{name: min(MAX_TOKENS, getattr(first, name) + getattr(second, name)) for name in buckets}
    )


@_apply.register
def _(payload: CallLost, session: SessionState, texts: BlobMap) -> SessionState:
    spent = replace(session.spent, ms=session.spent.ms + payload.duration_ms)
    return session.evolve(call=None, outcome=None, spent=spent)


@_apply.register
def _(payload: GaveUp, session: SessionState, texts: BlobMap) -> SessionState:
    return session.evolve(call=None, outcome=None, reason=texts[payload.message])


@_apply.register
def _(payload: Decided, session: SessionState, texts: BlobMap) -> SessionState:
    """Apply a decision; Suspended, Succeeded and Failed are decisions that halt or end the session.

    A halt from outside settles nothing: an outcome that waits for a decision keeps waiting.
    """
    source = payload.source
    halted = isinstance(payload, Suspended) and payload.cause in EXTERNAL_CAUSES
    if halted and (payload.ledger or payload.changes):
        raise CorruptTape("a halt from outside changes something.")
    message = payload.message if isinstance(payload, Suspended | Failed) else None
    reason = payload.reason if message is None else texts[message]
    ending = payload.target in (*machine.FINAL, "suspended")
    return session.evolve(
        outcome=session.outcome if halted else None,
        noted=session.noted if halted else 0,
        ledger=_with_counters(session.ledger, payload.ledger),
        work=_with_artifacts(session.work, payload.changes, texts),
        resumes_to=source if payload.target in ("suspended", "failed") else session.resumes_to,
        cause=((payload.cause if isinstance(payload, Suspended) else "") or payload.reason) if ending else "",
        reason=reason if ending else "",
        confidence=payload.confidence if isinstance(payload, Succeeded) else "",
    )


@_apply.register
def _(payload: ContentForgotten, session: SessionState, texts: BlobMap) -> SessionState:
    return session.evolve(forgotten=True)


def check_call(session: SessionState, payload: Requested, *, waiting: bool) -> None:
    """Check that a call is made in a state that makes calls, and is named by its seq."""
    if session.state not in machine.ACTIVE or waiting:
        raise CorruptTape(f"nothing can be asked in {session.state}.")
    if payload.call.rpartition(":")[2] != str(session.seq):
        raise CorruptTape(f"{payload.call} is not this call's name.")


def _note(payload: Payload, session: SessionState, texts: BlobMap) -> SessionState:
    """A fact that a decision rests on: the decision that follows makes the change."""
    return session.evolve(noted=session.noted + 1)


for _kind in (FailureReclassified, TestQuarantined, CodeReverted):
    _apply.register(_kind, _note)


@_apply.register
def _(payload: ConfigChanged, session: SessionState, texts: BlobMap) -> SessionState:
    if session.state not in ("suspended", "failed"):
        raise CorruptTape(f"the configuration cannot change in {session.state}.")
    config = _changed(session.the_config, texts[payload.changes])
    return session.evolve(config=config)


@_apply.register
def _(payload: PersonAnswered, session: SessionState, texts: BlobMap) -> SessionState:
    if session.state != "suspended":
        raise CorruptTape(f"nobody was asked anything in {session.state}.")
    if len(session.answers) >= MAX_ANSWERS:
        raise CorruptTape(f"it is one of more than {MAX_ANSWERS} answers.")
    return session.evolve(answers=(*session.answers, (payload.subject, payload.answer)))


@_apply.register
def _(payload: Resumed, session: SessionState, texts: BlobMap) -> SessionState:
    return session.evolve(versions=payload.versions, reason="", cause="", resumes_to="")
