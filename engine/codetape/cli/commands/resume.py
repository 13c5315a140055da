"""codetape resume."""

from typing import Literal

import click
from click.core import ParameterSource

from codetape.cli.options import (
    LiveOptions,
    allow_build,
    as_json,
    budget,
    budget_changes,
    database,
    live_settings,
    redacting,
    server,
    typed,
    written,
)
from codetape.errors import UsageError


class ResumeOptions(LiveOptions):
    """The options. ``model`` and ``prompts`` exist to be refused with a reason."""

    session: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    drop: tuple[str, ...]
    keep: tuple[str, ...]
    allow_build: bool
    max_iterations: int | None
    max_output_tokens: int | None
    model: str | None
    prompts: str | None


@click.command("resume")
@click.argument("session")
@click.option(
    "--allow-package",
    "allow",
    multiple=True,
    metavar="NAME",
    help="Answer: it may be installed (apt:NAME for a system package, run:COMMAND for a command).",
)
@click.option("--deny-package", "deny", multiple=True, metavar="NAME", help="Answer: do without it.")
@click.option("--drop-test", "drop", multiple=True, metavar="NAME", help="Answer: this test is wrong, set it aside.")
@click.option("--keep-test", "keep", multiple=True, metavar="NAME", help="Answer: this test stands.")
@click.option("--max-iterations", type=click.IntRange(1, 1000), help="A new limit.")
@click.option("--max-output-tokens", type=click.IntRange(256), help="Of one answer: a new limit.")
@click.option("--base-url", metavar="URL", help="Where the model's server is now.")
@click.option("--sandbox", default="auto", show_default=True, metavar="NAME", help="Where code runs.")
@written
@click.option("--model", hidden=True)
@click.option("--prompts", hidden=True)
@allow_build
@budget
@redacting
@server
@database
@as_json
@typed(ResumeOptions)
def command(options: ResumeOptions) -> int:
    """Resume a session from exactly where it stopped. Recorded replies are never asked for again.

    The session keeps its model and its prompts: with others it would be another session, a fork.
    """
    from codetape.api.driving import aresume, check_resumable
    from codetape.api.opening import open_session
    from codetape.cli import summary
    from codetape.cli.approval import approving
    from codetape.cli.run_session import again_live, drive
    from codetape.cli.script_folder import ScriptFolder
    from codetape.runtime.agent import AutoCoderAgent
    from codetape.runtime.result import GenerateResult

    _refuse_others()
    recorded = open_session(options.session, store=options.db)
    question = recorded.run.work.question
    drop, keep = (
        tuple(_subject(name, question.subject if question else "") for name in names)
        for names in (options.drop, options.keep)
    )
    answers = _answers((*options.allow, *drop), (*options.deny, *keep))
    folder = ScriptFolder.of(options.folder, force=options.force)
    if folder and recorded.run.state == "succeeded":  # there is nothing left but to write it
        folder.prepare()
        result = GenerateResult.of(recorded.run, recorded.stream)
        return summary.end(
            result, recorded.run, result.duration_s, folder, as_json=options.as_json, again=again_live(options)
        )
    check_resumable(recorded.run, answers, options.max_iterations)
    settings, changes = live_settings(options), budget_changes(options)
    settings["allow_build"] = approving(allowed=options.allow_build)
    if options.max_output_tokens is not None:
        changes["max_output_tokens"] = options.max_output_tokens
    model = recorded.run.the_config.model
    return drive(
        AutoCoderAgent(model=model, sandbox=options.sandbox, store=options.db, **settings),
        recorded.session,
        lambda hook: aresume(
            recorded,
            store=options.db,
            sandbox=options.sandbox,
            answers=answers,
            max_iterations=options.max_iterations,
            changes=changes,
            on_event=hook,
            **settings,
        ),
        folder=folder,
        as_json=options.as_json,
        again=again_live(options),
    )


def _subject(name: str, asked: str) -> str:
    """Return the subject of a question about a test: the one that is asked about, where that matches the name."""
    from codetape.decider.remedies import example

    return asked if asked.endswith(f"::{name}") else example(name)


def _refuse_others() -> None:
    """Refuse --model and --prompts. Those of variables and files are for new sessions, and are ignored here."""
    context = click.get_current_context()
    for name in ("model", "prompts"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"A session keeps its {name}: with another it is a fork, which is a session of its own.",
                remedy=f"Resume without --{name}.",
            )


def _answers(allow: tuple[str, ...], deny: tuple[str, ...]) -> dict[str, Literal["allow", "deny"]]:
    if conflicts := sorted({*allow} & {*deny}):
        raise UsageError(f"{', '.join(conflicts)} cannot be both allowed and denied.")
    answers: dict[str, Literal["allow", "deny"]] = dict.fromkeys(allow, "allow")
    return answers | dict.fromkeys(deny, "deny")
