"""Every build and execution of a session, done again and compared with what was recorded.

Each step starts from the recorded outcomes before it, so that one difference does not hide the next. A difference is
labelled drift where the environment differs from the recorded one, or where a second execution agrees with the first;
nondeterministic where two executions differ from each other, be it under the same conditions or under others.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codetape.decider import decide
from codetape.decider.commands import Build, Command, Execute
from codetape.domain.job import OTHER, BuildSpec
from codetape.domain.lock import pins, versions_in
from codetape.domain.report import Report, TestResult
from codetape.domain.script_args import file_names
from codetape.domain.task import Resources
from codetape.errors import CorruptTape
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import BuildFinished, BuildRefused, Requested, TestsFinished
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.ports import BuildRejected, Built, Sandbox, Stream
from codetape.rules.build_approval import MOST, Approval, Approve
from codetape.rules.normalise import normalise

CONFIRMING = 3  # the first version of the rules that runs what passed a second time
_SHOWN = 5  # differences of one execution that are listed


@dataclass(frozen=True)
class Rerun:
    """One build or execution done again. ``label`` is empty where nothing differs.

    ``differences`` are in the outcome's structure; ``texts`` name what differs only in wording.
    """

    seq: int
    purpose: str
    differences: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    label: Literal["", "drift", "nondeterministic"] = ""


async def rerun(
    stream: Stream,
    sandbox: Sandbox,
    *,
    pin: bool = False,
    folders: Sequence[Path] = (),
    allow_build: bool | Approve = False,
) -> AsyncIterator[Rerun]:
    """Yield each build and execution of a stream, done again in the sandbox. ``pin`` installs the recorded lock.

    What a tape asks for beyond the usual needs the user's approval: ``allow_build`` is True, or asks. Samples are looked for where they
    were, then in ``folders``: a tape's samples often lie beside it.

    Raises what the sandbox raises, and UsageError where a sample has changed.
    """
    session, drifted, lock, approval = SessionState(), False, "", Approval(allow_build)
    following: dict[str, Event] = {getattr(e.payload, "call", ""): e for e in stream.events if e.kind != "Requested"}
    for event in stream.events:
        request = event.payload
        if isinstance(request, Requested) and request.effect != "ask":
            command, outcome = decide(session), following.get(request.call)
            recorded = outcome.payload if outcome else None
            spec = (
                command.spec
                if isinstance(command, Build)
                else command.job.spec
                if isinstance(command, Execute)
                else None
            )
            if spec is not None:
                approval.check(spec, sandbox.facts())
            if isinstance(recorded, BuildFinished | BuildRefused):
                lock = stream.texts[recorded.lock] if isinstance(recorded, BuildFinished) else ""
                result = await _build(event.seq, command, recorded, lock, sandbox, pin=pin)
                drifted = bool(result.differences)
                yield result
            elif isinstance(recorded, TestsFinished):
                report = Report.model_validate_json(stream.texts[recorded.report])
                result = await _execute(
                    event.seq, _beside(command, folders), report, sandbox, lock if pin else "", drifted=drifted
                )
                yield result
                if session.rules < CONFIRMING and not result.differences and _passed(command, report):
                    yield await _elsewhere(event.seq, _beside(command, folders), report, sandbox, lock if pin else "")
        session = apply(session, event, stream.texts)


def _beside(command: Command | None, folders: Sequence[Path]) -> Command | None:
    """Return an execution whose missing samples are taken from the folders."""
    if not folders or not isinstance(command, Execute):
        return command
    inputs, names = [], file_names(command.job.inputs)
    for job_input in command.job.inputs:
        known = (names.get(job_input.name, ""), Path(job_input.sample.path).name if job_input.sample else "")
        places = [place for folder in folders for name in known if name and (place := folder / name).exists()]
        if job_input.sample and places and not Path(job_input.sample.path).exists():
            moved = places[0]
            sample = job_input.sample.model_copy(update={"path": str(moved)})
            job_input = job_input.model_copy(update={"sample": sample})  # noqa: PLW2901 - the same input
        inputs.append(job_input)
    return Execute(command.job.model_copy(update={"inputs": tuple(inputs)}))


def capped(given: Resources) -> Resources:
    """Return a tape's limits, reduced to what any tape may use on this machine."""
    return given.model_copy(update={name: min(getattr(given, name), most) for name, most in MOST.items()})


def pinned(spec: BuildSpec, lock: str) -> BuildSpec:
    """Return the spec with exactly the versions of a lock."""
    names = pins(lock)
    return spec.model_copy(update={"packages": tuple(sorted(names))}) if names else spec


async def _build(
    seq: int, command: Command | None, recorded: BuildFinished | BuildRefused, lock: str, sandbox: Sandbox, *, pin: bool
) -> Rerun:
    if not isinstance(command, Build):
        raise CorruptTape(f"event {seq} asks for a build that the rules do not ask for; replay says more.", seq=seq)
    succeeded = isinstance(recorded, BuildFinished)
    built = await sandbox.build(pinned(command.spec, lock) if pin and succeeded else command.spec)
    if isinstance(built, BuildRejected):
        same = not succeeded and built.reason == getattr(recorded, "reason", "")
        difference = f"the build was refused ({built.reason}: {' '.join(built.message.split())[:200]})"
    else:
        same, difference = succeeded, "the build succeeded, and was refused on the tape"
    if not same:
        return Rerun(seq, "build", (difference,), label="drift")
    if not isinstance(built, Built):
        return Rerun(seq, "build")
    old, new = versions_in(lock), versions_in(built.lock)
    changed = [
        f"{n}: {old.get(n, 'absent')} recorded, {new.get(n, 'absent')} now"
        for n in sorted({*old, *new})
        if old.get(n) != new.get(n)
    ]
    return Rerun(seq, "build", tuple(changed), label="drift" if changed else "")


async def _execute(
    seq: int, command: Command | None, recorded: Report, sandbox: Sandbox, lock: str, *, drifted: bool
) -> Rerun:
    if not isinstance(command, Execute):
        raise CorruptTape(f"event {seq} asks for a run that the rules do not ask for; replay says more.", seq=seq)
    job = command.job.model_copy(update={"resources": capped(command.job.resources)})
    if lock:
        job = job.model_copy(update={"spec": pinned(job.spec, lock)})
    first = (await sandbox.execute(job)).report
    differences, texts = _structure(recorded, first), _texts(recorded, first)
    if not differences and not texts:
        return Rerun(seq, job.purpose)
    label: Literal["drift", "nondeterministic"] = "drift"
    if not drifted:  # where the environment differs, a second execution would explain nothing more
        second = (await sandbox.execute(job)).report
        if _structure(first, second) or (not differences and _texts(first, second)):
            label = "nondeterministic"
    return Rerun(seq, job.purpose, differences, texts, label)


def _passed(command: Command | None, recorded: Report) -> bool:
    passing = recorded.whole and recorded.exit == "ok"
    return passing and isinstance(command, Execute) and command.job.purpose in ("run", "oracle")


async def _elsewhere(seq: int, command: Command | None, recorded: Report, sandbox: Sandbox, lock: str) -> Rerun:
    """Run what passed once more under other conditions: tapes of earlier rules have no run that confirms it."""
    if not isinstance(command, Execute):
        raise CorruptTape(f"event {seq} asks for a run that the rules do not ask for; replay says more.", seq=seq)
    job = command.job.model_copy(update={"resources": capped(command.job.resources), "conditions": OTHER})
    if lock:
        job = job.model_copy(update={"spec": pinned(job.spec, lock)})
    report = (await sandbox.execute(job)).report
    left = recorded.outputs  # what tests leave behind is the last one's, and their order is another
    differences = _structure(recorded, report.model_copy(update={"outputs": left}))
    purpose = f"{job.purpose}, under another hash seed, time zone, folder and order,"
    return Rerun(seq, purpose, differences, label="nondeterministic" if differences else "")


def _structure(first: Report, second: Report) -> tuple[str, ...]:
    """Return how two outcomes differ: exit class, each test's outcome and exception, outputs by their hashes."""
    differences = [f"exit: {first.exit} recorded, {second.exit} now"] if first.exit != second.exit else []
    before, after = ({t.id: t for t in report.tests} for report in (first, second))
    for name in sorted({*before, *after}):
        old, new = _outcome(before.get(name)), _outcome(after.get(name))
        if old != new:
            differences.append(f"{name}: {old} recorded, {new} now")
    old_hashes, new_hashes = ({o.path: o.sha256 for o in report.outputs} for report in (first, second))
    differences += [
        f"output {path} differs"
        for path in sorted({*old_hashes, *new_hashes})
        if old_hashes.get(path) != new_hashes.get(path)
    ]
    values = [{(e.number, e.turn): (e.values, e.raised) for e in report.evaluated} for report in (first, second)]
    differences += [
        f"claim {number}: another value"
        for number, turn in values[0]
        if not turn and values[0][number, 0] != values[1].get((number, 0))
    ]
    hidden = len(differences) - _SHOWN
    return (*differences[:_SHOWN], *([f"and {hidden} more"] if hidden > 0 else []))


def _outcome(result: TestResult | None) -> str:
    if result is None:
        return "absent"
    return f"{result.outcome} ({result.exception})" if result.exception else result.outcome


def _texts(first: Report, second: Report) -> tuple[str, ...]:
    """Return what differs only in wording; durations, addresses and temporary paths are ignored."""
    differences = [
        name for name in ("stdout", "stderr") if normalise(getattr(first, name)) != normalise(getattr(second, name))
    ]
    after = {t.id: t for t in second.tests}
    for test in first.tests:
        new = after.get(test.id)
        if new is not None and (normalise(test.message), normalise(test.traceback)) != (
            normalise(new.message),
            normalise(new.traceback),
        ):
            differences.append(f"the message of {test.id}")
    return tuple(differences[:_SHOWN])
