"""codetape fork."""

import click

from codetape.cli.options import (
    LiveOptions,
    allow_build,
    as_json,
    budget,
    budget_changes,
    database,
    live_settings,
    parameters,
    redacting,
    server,
    text_of,
    typed,
    written,
)
from codetape.cli.output import say
from codetape.errors import UsageError


class ForkOptions(LiveOptions):
    """The options."""

    session: str
    at: str
    model: str | None
    prompts: str | None
    settings: tuple[str, ...]
    remark: str
    reply: str | None
    allow_build: bool


@click.command("fork")
@click.argument("session")
@click.option(
    "--at", required=True, metavar="SEQ|STATE[#N]", help="Where: an event, or where it came to a state the Nth time."
)
@click.option("--model", metavar="ADAPTER:NAME", help="Another model; the session's own by default.")
@click.option("--prompts", metavar="DIR", help="Another prompt pack.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of the configuration, such as max_iterations=5.",
)
@click.option(
    "--say", "remark", default="", metavar="TEXT", help="A remark that every later prompt shows beside the constraints."
)
@click.option("--edit-reply", "reply", metavar="FILE", help="What the answer at the point is to be instead.")
@click.option("--base-url", metavar="URL", help="Where the model's server is.")
@click.option("--sandbox", default="auto", show_default=True, metavar="NAME", help="Where code runs.")
@written
@allow_build
@budget
@redacting
@server
@database
@as_json
@typed(ForkOptions)
def command(options: ForkOptions) -> int:
    """Continue from a point of a session with changes, as a session of its own.

    What is before the point is shared and paid for by the parent. --at moves back to the nearest point with no open
    call.
    """
    from codetape.api.driving import afork
    from codetape.api.opening import open_session
    from codetape.cli.approval import approving
    from codetape.cli.run_session import again_live, drive
    from codetape.cli.script_folder import ScriptFolder
    from codetape.runtime.agent import AutoCoderAgent, new_session_id
    from codetape.runtime.fork import point

    recorded = open_session(options.session, store=options.db)
    at = point(recorded.stream, options.at)
    if options.at.isdecimal() and int(options.at) != at:
        say(f"Event {options.at} leaves a call open: forked at {at}.", err=True)
    changes = {name.replace("-", "_"): value for name, value in parameters(options.settings, "set").items()}
    changes |= budget_changes(options)
    if reserved := {"model", "sandbox"} & set(changes):
        raise UsageError(f"--set cannot set {', '.join(sorted(reserved))}.", remedy="It has an option of its own.")
    fork, settings, reply = new_session_id(), live_settings(options), text_of(options.reply)
    settings["allow_build"] = approving(allowed=options.allow_build)
    model = options.model or recorded.run.the_config.model
    return drive(
        AutoCoderAgent(model=model, sandbox=options.sandbox, store=options.db, **settings),
        fork,
        lambda hook: afork(
            recorded,
            at,
            store=options.db,
            model=options.model,
            prompts=options.prompts,
            changes=changes,
            say=options.remark,
            reply=reply,
            sandbox=options.sandbox,
            fork=fork,
            on_event=hook,
            **settings,
        ),
        folder=ScriptFolder.of(options.folder, force=options.force),
        as_json=options.as_json,
        again=again_live(options),
    )
