"""A decision in the making: what it changes, and the event that says so."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from codetape.decider.commands import Record
from codetape.domain.canonical import canonical
from codetape.domain.findings import Confidence, Quarantined
from codetape.domain.task import ANCHOR_FILE, USER_FILE
from codetape.eventlog import machine
from codetape.eventlog.events import (
    AnchorsExtracted,
    Blobs,
    Decided,
    Failed,
    NewEvent,
    Payload,
    Succeeded,
    Suspended,
    TestQuarantined,
)
from codetape.eventlog.session_state import SessionState, artifact_text
from codetape.prompts.reply_parser import Unusable
from codetape.rules.blind.blind_file import claimed_tests
from codetape.rules.prompt_examples import as_tests, extract, extract_v1
from codetape.rules.pytest_source import file_of, function_id
from codetape.rules.reclassify import DISPUTED


@dataclass(frozen=True)
class Fact:
    """A fact that the decision rests on, recorded before it; ``texts`` are its fields that become blobs."""

    kind: type[Payload]
    fields: dict[str, Any]
    texts: dict[str, str]


def quarantine_facts(gone: Iterable[Quarantined]) -> tuple[Fact, ...]:
    """Return the facts that tests run no more, a fact each."""
    return tuple(Fact(TestQuarantined, {"test": q.test, "reason": q.reason}, {"words": q.words}) for q in gone)


@dataclass(frozen=True)
class Stop:
    """The session stops here: failed for good, or suspended until something outside changes."""

    kind: Literal["failed", "suspended"]
    reason: str
    message: str
    cause: Literal["person", "budget", "outage", "question", "need"] = "need"


@dataclass(frozen=True)
class Step:
    """What a decision changes. ``done`` and ``owes`` discharge and add states; ``target`` overrides the routing."""

    about: str
    usable: bool = True
    reason: str = ""
    ledger: dict[str, Any] = field(default_factory=dict)
    work: dict[str, Any] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    owes: tuple[str, ...] = ()
    target: str = ""
    halt: Stop | None = None
    notes: tuple[Fact, ...] = ()


def unusable(purpose: str, why: Unusable) -> Step:
    """Return the step that ends a session for want of a usable reply."""
    message = f"The model gave no usable {purpose}: {why.detail}"
    return Step(purpose, usable=False, halt=Stop("failed", "unusable", message))


def owed_after(session: SessionState, step: Step) -> tuple[str, ...]:
    """Return what is owed after the step, in the machine's order."""
    pending = ({*session.ledger.owed} - {*step.done}) | {*step.owes}
    return tuple(state for state in machine.ORDER if state in pending)


def record(session: SessionState, step: Step) -> Record:
    """Return the step's next event: its notes one after another, then the decision that makes the change.

    Each is derived from the run alone, so that a session that stopped between two of them continues.
    """
    if session.noted < len(step.notes):
        note = step.notes[session.noted]
        texts = Blobs()
        refs = {name: texts.put(text) for name, text in note.texts.items()}
        return Record(NewEvent(note.kind(**note.fields, **refs), texts))
    return Record(_decision(session, step))


def _decision(session: SessionState, step: Step) -> NewEvent:
    texts = Blobs()
    owed = owed_after(session, step)
    if session.rules > 2 and _stands_still(session, step, owed):
        message = "No rule has a next step here: what was asked and run so far leaves nothing to change."
        step = replace(step, halt=Stop("failed", "stalled", message))
    ledger = {name: value for name, value in step.ledger.items() if getattr(session.ledger, name) != value}
    if owed != session.ledger.owed:
        ledger["owed"] = owed
    changed = {name: value for name, value in step.work.items() if getattr(session.work, name) != value}
    changes = {
        name: None if _empty(value) else texts.put(artifact_text(name, value)) for name, value in changed.items()
    }
    target = step.target or machine.next_state(owed) or "succeeded"
    kind: type[Decided] = Decided
    more: dict[str, Any] = {}
    if step.halt:
        target, more = step.halt.kind, {"message": texts.put(step.halt.message)}
        kind = Failed if step.halt.kind == "failed" else Suspended
        if kind is Suspended:
            more["cause"] = step.halt.cause
    elif target == "succeeded":
        kind, more = Succeeded, {"confidence": confidence(session, step)}
    payload = kind(
        trigger=machine.trigger(session.state, target, session.machine),
        source=session.state,
        target=target,
        about=step.about,
        usable=step.usable,
        reason=step.halt.reason if step.halt else step.reason,
        ledger=ledger,
        changes=changes,
        **more,
    )
    return NewEvent(payload, texts)


def _stands_still(session: SessionState, step: Step, owed: tuple[str, ...]) -> bool:
    """Whether a decision without an outcome would change nothing: it would be taken again and again."""
    if session.outcome or step.halt or step.notes or owed != session.ledger.owed:
        return False
    changed = any(getattr(session.ledger, name) != value for name, value in step.ledger.items()) or any(
        getattr(session.work, name) != value for name, value in step.work.items()
    )
    return not changed and (step.target or machine.next_state(owed) or "succeeded") == session.state


def _empty(value: object) -> bool:
    return value is None or value in ("", ())


def confidence(session: SessionState, step: Step) -> Confidence:
    """Return how far the success can be trusted: by what passed, never by how sure a model is."""
    if step.about in ("oracle", "proven") and not (session.rules > 2 and _is_unclear(session)):
        return "oracle"
    report = step.work.get("report", session.work.report)
    idle = {*step.work.get("vacuous", session.work.vacuous), *(q.test for q in session.work.quarantined)}
    passed: Iterable[str] = [t for t in report.passed if t not in idle] if report else ()
    if session.the_config.skip_tests:
        return "untested"
    anchored = any(file_of(t) in (ANCHOR_FILE, USER_FILE) and _is_confirmed(session, t) for t in passed)
    gone = {q.test: q.reason for q in (*session.work.quarantined, *step.work.get("quarantined", ()))}
    fewer = not anchored and len(gone) > len(list(passed))  # what was set aside outnumbers what carries the verdict
    if session.rules > 1 and (fewer or any(reason in DISPUTED for reason in gone.values())):
        return "disputed"
    return "anchored" if anchored else "self_tested"


def _is_unclear(session: SessionState) -> bool:
    """Whether a claim of the oracle held only by what the code's own objects say of themselves."""
    return session.work.oracle_confirmation is not None and session.work.oracle_confirmation.unclear > 0


def _is_confirmed(session: SessionState, test: str) -> bool:
    """Whether a test was confirmed blind, or has no form in which it could be."""
    if session.rules < 3 or not (session.the_config.sandbox.evaluates and session.the_config.sandbox.confirms):
        return True
    name = function_id(test)
    source = {ANCHOR_FILE: session.anchors or "", USER_FILE: session.the_task.tests}[file_of(test)]
    confirmation = session.work.confirmation
    blind = confirmation.tests if confirmation else ()
    return name in blind or name.partition("::")[2] not in claimed_tests(source)


def examples_event(session: SessionState) -> NewEvent:
    """Return the event that keeps the prompt's examples as tests."""
    if session.rules == 1:
        return _examples_event_v1(session)
    found = extract.read(session.the_task.prompt, session.rules)
    text = as_tests.test_file(found.anchors)
    texts = Blobs()
    left_out = texts.put(canonical([list(one) for one in found.left_out])) if found.left_out else None
    count = len(found.anchors) if text else 0
    return NewEvent(AnchorsExtracted(count=count, anchors=texts.put(text), left_out=left_out), texts)


def _examples_event_v1(session: SessionState) -> NewEvent:
    found = extract_v1.extract(session.the_task.prompt)
    text = extract_v1.test_file(found)
    texts = Blobs()
    return NewEvent(AnchorsExtracted(count=len(found) if text else 0, anchors=texts.put(text)), texts)


Read = Step | Unusable
