"""Run a session from the command line: progress, questions to a person, Ctrl-C, and the summary."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import click

from codetape.cli import summary
from codetape.cli.options import LiveOptions, ServerOptions, database_words, words
from codetape.cli.output import say, say_json
from codetape.cli.progress import SessionProgress
from codetape.cli.script_folder import ScriptFolder
from codetape.eventlog.envelope import Event
from codetape.eventlog.session_state import SessionState
from codetape.runtime.agent import AutoCoderAgent
from codetape.runtime.result import GenerateResult
from codetape.text.escape import safe

Hook = Callable[[Event, SessionState], None]
Begin = Callable[[Hook], Awaitable[GenerateResult]]


def drive(
    agent: AutoCoderAgent,
    session: str,
    begin: Begin,
    *,
    folder: ScriptFolder | None,
    as_json: bool,
    again: summary.Again,
) -> int:
    """Run a session to its end, asking a person in interactive use; print the summary; return the exit code.

    ``again`` holds the options that later commands must repeat, such as --db.
    """
    started_at = time.monotonic()
    if folder:
        folder.prepare()
    last: list[SessionState] = []
    progress = SessionProgress(quiet=as_json)

    def hook(event: Event, state: SessionState) -> None:
        last[:] = [state]
        progress(event, state)

    try:
        with progress:
            result = asyncio.run(_awaited(begin, hook))
        while (answer := _asked(result, last, as_json)) is not None:
            with progress:
                result = asyncio.run(agent.aresume(session, answers=answer, on_event=hook))
    except (KeyboardInterrupt, click.Abort):
        if as_json:
            say_json({"session": session, "status": "suspended", "reason": "interrupted", "exit_code": 130})
        say(f"Interrupted. Resume with: {again.resume(session)}", err=True)
        return 130
    return summary.end(result, last[-1], time.monotonic() - started_at, folder, as_json=as_json, again=again)


async def _awaited(begin: Begin, hook: Hook) -> GenerateResult:
    return await begin(hook)


def _asked(
    result: GenerateResult, last: list[SessionState], as_json: bool
) -> dict[str, Literal["allow", "deny"]] | None:
    """Put the session's question to the person at the terminal; None if it asks nothing, or in non-interactive use."""
    if not (last and last[-1].cause == "question" and result.question):
        return None
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    say(result.reason, err=True)
    question = "Set the example aside?" if summary.example_of(result.question) else f"Install {result.question}?"
    allowed = click.confirm(safe(question), default=False, err=True)
    return {result.question: "allow" if allowed else "deny"}


def again(
    db: str, *, sandbox: str = "auto", live: ServerOptions | None = None, totals: tuple[str, ...] = ()
) -> summary.Again:
    """Return the options that later commands must repeat, because they differ from the defaults."""
    sandbox_words = words("--sandbox", sandbox, "auto")
    server_words = (*words("--base-url", live.base_url), *words("--api-key-env", live.api_key_env)) if live else ()
    return summary.Again(db=database_words(db), sandbox=sandbox_words, model=server_words, totals=totals)


def again_live(options: LiveOptions) -> summary.Again:
    """As `again`, from the options of a live session."""
    return again(options.db, sandbox=options.sandbox, live=options, totals=options.total_costs)
