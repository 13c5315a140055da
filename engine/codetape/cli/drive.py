"""Driving a session from the command line: progress, questions to a person, Ctrl-C, and the end."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import click

from codetape.agent import AutoCoderAgent
from codetape.chain import Event
from codetape.cli import outcome
from codetape.cli.options import DEFAULT_DB, words
from codetape.cli.progress import Progress
from codetape.cli.text import safe, say, say_json
from codetape.result import GenerateResult
from codetape.run import Run

Hook = Callable[[Event, Run], None]
Begin = Callable[[Hook], Awaitable[GenerateResult]]


def drive(
    agent: AutoCoderAgent, session: str, begin: Begin, *, folder: str | None, as_json: bool, again: outcome.Again
) -> int:
    """Run a session to its end, asking a person where one sits there; print the end; return the exit code.

    ``again`` holds the options that a later command must name again, such as --db.
    """
    begun = time.monotonic()
    if folder:
        outcome.prepare(Path(folder))
    last: list[Run] = []
    progress = Progress(quiet=as_json)

    def hook(event: Event, run: Run) -> None:
        last[:] = [run]
        progress(event, run)

    try:
        with progress:
            result = asyncio.run(_awaited(begin, hook))
        while (answer := _asked(result, last, as_json)) is not None:
            with progress:
                result = asyncio.run(agent.aresume(session, answers=answer, on_event=hook))
    except (KeyboardInterrupt, click.Abort):
        if as_json:
            say_json({"session": session, "status": "suspended", "reason": "interrupted", "exit_code": 130})
        say(f"Interrupted. Go on with: {again.resume(session)}", err=True)
        return 130
    return _end(result, last[-1], time.monotonic() - begun, folder, as_json=as_json, again=again)


async def _awaited(begin: Begin, hook: Hook) -> GenerateResult:
    return await begin(hook)


def _end(
    result: GenerateResult, run: Run, spent: float, folder: str | None, *, as_json: bool, again: outcome.Again
) -> int:
    path = outcome.write_files(result, Path(folder)) if folder else None
    if as_json:
        say_json(outcome.as_object(result, spent, path))
    else:
        outcome.summarise(result, run, spent, path, again)
    return outcome.exit_code(run)


def _asked(result: GenerateResult, last: list[Run], as_json: bool) -> dict[str, Literal["allow", "deny"]] | None:
    """Ask the person at the terminal what the session asks; None where there is no question, or no person."""
    if not (last and last[-1].cause == "question" and result.question):
        return None
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    say(result.reason, err=True)
    question = "Set the example aside?" if outcome.example_of(result.question) else f"Install {result.question}?"
    allowed = click.confirm(safe(question), default=False, err=True)
    return {result.question: "allow" if allowed else "deny"}


def again(given: Mapping[str, Any]) -> outcome.Again:
    """Return the options that a later command must name again, because they are no defaults."""
    db = words("--db", given["db"], DEFAULT_DB)
    where = words("--sandbox", given.get("sandbox"), "auto")
    how = [*words("--base-url", given.get("base_url")), *words("--api-key-env", given.get("api_key_env"))]
    return outcome.Again(db=db, sandbox=where, model=tuple(how), totals=tuple(given.get("total_costs") or ()))
