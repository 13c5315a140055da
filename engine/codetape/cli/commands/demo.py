"""codetape demo."""

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from codetape.cli.options import as_json, database, written
from codetape.cli.output import say
from codetape.errors import SandboxUnavailable

if TYPE_CHECKING:
    from codetape.domain.task import Input, Task
    from codetape.ports import Sandbox


@click.command("demo")
@click.option(
    "--sandbox",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Where code runs; a named one is used or the demo refuses.",
)
@written
@database
@as_json
def command(sandbox: str, folder: str | None, force: bool, db: str, as_json: bool) -> int:
    """Watch the loop work on a recorded run: the model's replies come from a tape, the rest really happens.

    Where no sandbox is available, the tape's outcomes are shown instead, and the first and last line say so.
    """
    import asyncio

    from codetape.cli.run_session import again, drive
    from codetape.cli.script_folder import ScriptFolder
    from codetape.playback import tape_file
    from codetape.runtime import plugins
    from codetape.runtime.agent import AutoCoderAgent, new_session_id

    recorded = tape_file.load("demo")
    task, config = recorded.run.the_task, recorded.run.the_config
    stage = asyncio.run(_stage(sandbox))
    if not as_json:
        say(stage.headline, err=True)
        say(f"The task, as it was given to {config.model}:\n", err=True)
        say("\n".join(f"    {line}" for line in task.prompt.splitlines()) + "\n", err=True)
    agent = AutoCoderAgent(
        model=plugins.model("tape:demo"),
        sandbox=stage.sandbox,
        store=db,
        max_iterations=config.max_iterations,
    )
    session = new_session_id()
    code = drive(
        agent,
        session,
        lambda hook: agent.agenerate(task.prompt, session=session, on_event=hook, **_task_arguments(task)),
        folder=ScriptFolder.of(folder, force=force),
        as_json=as_json,
        again=again(db),
    )
    if not as_json:
        say(f"  look        {again(db).command('show', session, '--diff')}")
        if stage.why:
            say(stage.headline, err=True)
    return code


def _task_arguments(task: "Task") -> dict[str, Any]:
    """Return the recorded task's arguments, apart from its prompt; its samples ship beside the tape."""
    from codetape.playback import tape_file

    def shipped(declared: "Input") -> "Input":
        if declared.sample is None:
            return declared
        from pathlib import Path

        place = {"path": str(tape_file.shipped(Path(declared.sample.path).name))}
        return declared.model_copy(update={"sample": declared.sample.model_copy(update=place)})

    return {
        "inputs": {declared.name: shipped(declared) for declared in task.inputs},
        "outputs": {o.name: o.type for o in task.outputs},
        "constraints": task.constraints,
        "schema": task.data_schema,
        "tests": task.tests,
        "task": task.id,
        "tags": ("demo",),
    }


class Stage(NamedTuple):
    """Where the demo runs, the headline that says so, and why nothing is executed, if so."""

    sandbox: "Sandbox"
    headline: str
    why: str = ""


async def _stage(name: str) -> Stage:
    """Use the named sandbox; fall back to the tape's outcomes if none is named and none is available."""
    from codetape.domain.job import BuildSpec
    from codetape.runtime import plugins

    try:
        sandbox = plugins.sandbox(name)
        if sandbox.facts().name == "tape":
            return Stage(sandbox, "Nothing is executed here: outcomes are shown as they were recorded.", "tape")
        await sandbox.build(BuildSpec(python_version=sandbox.facts().python))
    except SandboxUnavailable as error:
        if name != "auto":
            raise
        headline = f"Nothing is executed here: outcomes are shown as they were recorded. {error.message} {error.remedy}"
        return Stage(plugins.sandbox("tape:demo"), headline.strip(), error.message)
    where = sandbox.facts().name
    return Stage(
        sandbox, f"The model's replies come from a tape; everything else happens here, in the {where} sandbox."
    )
