"""What `show` shows of a session: its verdict, its events, its prompts and replies, its script and how that changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from codetape.cli import summary
from codetape.cli.output import say, say_json
from codetape.cli.script_folder import ScriptFolder
from codetape.errors import UsageError
from codetape.eventlog.events import Answered, Decided, Requested
from codetape.eventlog.fold import apply, fold
from codetape.eventlog.session_state import SessionState
from codetape.ports import Stream
from codetape.reporting.event_text import PROMPT_CUT, describe
from codetape.runtime.result import GenerateResult
from codetape.text.escape import first_line
from codetape.text.plural import many
from codetape.text.unified_diff import unified


def write(stream: Stream, folder: ScriptFolder, as_json: bool, again: summary.Again) -> None:
    """Write a session's files, and print its summary."""
    folder.prepare()
    session = fold(stream.events, stream.texts)
    result = GenerateResult.of(session, stream)
    summary.end(result, session, result.duration_s, folder, as_json=as_json, again=again)


@dataclass(frozen=True)
class ShownStep:
    """One event, and the state after it; ``iteration`` is the run of the tests that it leads to, or is of, from 1."""

    event: Any
    run: SessionState
    iteration: int


def _steps(stream: Stream, iteration: int | None) -> Iterator[ShownStep]:
    session = SessionState()
    runs = fold(stream.events, stream.texts).ledger.iteration
    if iteration is not None and iteration > runs + 1:
        raise UsageError(f"The session has {many(runs, 'run')} of the tests, and no run {iteration}.")
    for event in stream.events:
        of_run = session.ledger.iteration + 1
        session = apply(session, event, stream.texts)
        if iteration is None or of_run == iteration:
            yield ShownStep(event, session, of_run)


def verdict(stream: Stream, iteration: int | None, as_json: bool, again: summary.Again) -> None:
    """Print the task, a line for each event that tells something, and the summary."""
    session = fold(stream.events, stream.texts)
    result = GenerateResult.of(session, stream)
    if as_json:
        say_json(summary.as_object(result, result.duration_s))
        return
    say(f"task {result.task}: {first_line(result.prompt, 200)}")
    say(f"model {result.config.model}, sandbox {result.config.sandbox.name}, Python {result.config.python_version}")
    for step in _steps(stream, iteration):
        if line := describe(step.event, step.run):
            say(f"{step.event.seq:5}  {line}")
    if iteration is not None:  # the verdict is of the whole session
        return
    summary.summarise(result, session, result.duration_s, None, again)


def events(stream: Stream, iteration: int | None, as_json: bool) -> None:
    """Print every event in a line."""
    steps = list(_steps(stream, iteration))
    if as_json:
        say_json(
            {
                "events": [
                    {
                        "seq": s.event.seq,
                        "at": s.event.at,
                        "kind": s.event.kind,
                        "hash": s.event.hash,
                        "payload": s.event.payload.model_dump(mode="json"),
                    }
                    for s in steps
                ]
            }
        )
        return
    for step in steps:
        say(
            f"{step.event.seq:5}  {step.event.at}  {step.run.state:<18} {step.event.kind:<20} "
            f"{describe(step.event, step.run)}"
        )


def prompts(stream: Stream, iteration: int | None, as_json: bool) -> None:
    """Print every request to the model, and its reply."""
    calls: list[dict[str, Any]] = []
    for step in _steps(stream, iteration):
        payload = step.event.payload
        if isinstance(payload, Requested) and payload.effect == "ask":
            messages = [{"role": role, "content": stream.texts[ref]} for role, ref in payload.messages]
            calls.append({"call": payload.call, "purpose": payload.purpose, "messages": messages, "reply": None})
        elif isinstance(payload, Answered) and calls:
            calls[-1]["reply"] = stream.texts[payload.text] if payload.text else None
            calls[-1]["reasoning"] = stream.texts[payload.reasoning] if payload.reasoning else None
            calls[-1]["prompt_cut"] = payload.prompt_cut
    if as_json:
        say_json({"calls": calls})
        return
    for call in calls:
        say(f"=== {call['call']} {call['purpose']}")
        for message in call["messages"]:
            say(f"--- {message['role']}\n{message['content']}")
        if call.get("prompt_cut"):
            say(f"--- {PROMPT_CUT}")
        if call.get("reasoning"):
            say(f"--- reasoning\n{call['reasoning']}")
        say(f"--- reply\n{call['reply']}\n")


def _versions(stream: Stream, iteration: int | None) -> list[tuple[ShownStep, str]]:
    """Return each version of the script, with the step that made it."""
    return [
        (step, step.run.work.code)
        for step in _steps(stream, iteration)
        if isinstance(step.event.payload, Decided) and "code" in step.event.payload.changes
    ]


def code(stream: Stream, iteration: int | None, as_json: bool) -> None:
    """Print the script."""
    versions = _versions(stream, iteration)
    code = versions[-1][1] if versions else ""
    if as_json:
        say_json({"code": code or None})
    else:
        say(code.rstrip() if code else "There is no script.", err=not code)


def diff(stream: Stream, iteration: int | None, as_json: bool) -> None:
    """Print what changed from one version of the script to the next."""
    versions = _versions(stream, None)  # all: the first change of a run starts from the run before
    changes = []
    for (_, old), (step, new) in pairwise(versions):
        if iteration is not None and step.iteration != iteration:
            continue
        text = unified(old, new, ("before", f"seq {step.event.seq}"))
        changes.append({"seq": step.event.seq, "iteration": step.iteration, "diff": text})
    if as_json:
        say_json({"changes": changes})
        return
    for change in changes:
        say(f"=== for run {change['iteration']}, event {change['seq']}\n{change['diff']}\n")
    if not changes:
        say("The script never changed.")
