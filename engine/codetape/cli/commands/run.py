"""codetape run."""

import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from codetape.cli.options import (
    LiveOptions,
    ManyOptions,
    as_json,
    budget,
    budget_settings,
    database,
    live_settings,
    memory_mb,
    pairs,
    parameters,
    redacting,
    server,
    several,
    text_of,
    typed,
    written,
)
from codetape.errors import UsageError

if TYPE_CHECKING:
    from codetape.domain.task import Resources
    from codetape.runtime.agent import AutoCoderAgent


class RunOptions(LiveOptions, ManyOptions):
    """The options."""

    prompt: str | None
    prompt_file: str | None
    model: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constraints: tuple[str, ...]
    schema_file: str | None
    tests: str | None
    oracle: str | None
    packages: tuple[str, ...]
    package_policy: str
    system_packages: tuple[str, ...]
    command_policy: Literal["deny", "ask", "allow"]
    max_iterations: int
    min_strength: float
    strict_examples: bool
    params: tuple[str, ...]
    max_output_tokens: int
    prompts: str | None
    timeout: int
    memory: str
    cpus: str
    python_version: str | None
    skip_tests: bool
    task: str | None
    tags: tuple[str, ...]
    tasks: str | None


@click.command("run")
@click.argument("prompt", required=False)
@click.option("--prompt-file", metavar="F", help="Read the prompt from a file.")
@click.option(
    "--model",
    metavar="ADAPTER:NAME",
    help="Such as openai:gpt-5-mini, or tape:FILE (CODETAPE_MODEL).",
)
@click.option("--base-url", metavar="URL", help="An OpenAI-compatible server (CODETAPE_BASE_URL).")
@click.option("--sandbox", default="auto", show_default=True, metavar="NAME", help="Where code runs.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=TYPE|NAME=TYPE:SAMPLE",
    help="An input: str, int, float, bool, file:PATH, directory:PATH.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME=TYPE",
    help="An output: str, int, float, bool, datetime, timedelta, file, directory.",
)
@click.option("--constraint", "constraints", multiple=True, metavar="T", help="Something that must hold.")
@click.option("--schema-file", metavar="F", help="A JSON Schema or a text about the data, put into prompts as it is.")
@click.option("--tests", metavar="F", help="A pytest file that no ask may change.")
@click.option("--oracle", metavar="F", help="A pytest file that is run once at the end and never shown to the model.")
@click.option(
    "--package",
    "packages",
    multiple=True,
    metavar="P",
    help="A package that may be installed, with a version if you like.",
)
@click.option(
    "--package-policy", default="known", show_default=True, metavar="P", help="known, allow, or allowlist:FILE."
)
@click.option(
    "--system-package",
    "system_packages",
    multiple=True,
    metavar="P",
    help="A Debian package that the script needs; the docker sandbox installs it.",
)
@click.option(
    "--command-policy",
    default="deny",
    show_default=True,
    type=click.Choice(["deny", "ask", "allow"]),
    help="Commands that a diagnosis wants in the image.",
)
@click.option(
    "--max-iterations", default=10, show_default=True, type=click.IntRange(1, 1000), help="Runs of the tests, at most."
)
@click.option(
    "--strict-examples", is_flag=True, help="Ask before an example of the prompt is set aside, whoever calls it wrong."
)
@click.option(
    "--min-strength",
    default=0.0,
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of small changes to the code (0 to 1) that the tests must notice; more tests are asked for.",
)
@click.option(
    "--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter of the model, such as temperature=0.2."
)
@click.option("--max-output-tokens", default=16384, show_default=True, type=click.IntRange(256), help="Of one answer.")
@click.option("--prompts", metavar="DIR", help="A prompt pack.")
@click.option(
    "--timeout", default=120, show_default=True, type=click.IntRange(1), help="Seconds for one run of the tests."
)
@click.option("--memory", default="1G", show_default=True, help="For one run of the tests.")
@click.option("--cpus", default="1", show_default=True, help="For one run of the tests.")
@click.option(
    "--python", "python_version", metavar="V", help="The script's Python, such as 3.12; this one's by default."
)
@click.option("--skip-tests", is_flag=True, help="Write no tests: the script is untested.")
@click.option("--task", metavar="ID", help="The task's name; by default a hash of what is asked.")
@click.option("--tag", "tags", multiple=True, metavar="T", help="A label for the session.")
@click.option("--tasks", metavar="F.jsonl", help="Run every task of a file: a JSON object a line, with id and prompt.")
@several
@written
@budget
@redacting
@server
@database
@as_json
@typed(RunOptions)
def command(options: RunOptions) -> int:
    """Turn a prompt into a verified script; "-" reads the prompt from standard input.

    With --tasks every task of a file is run, and one that was stopped is resumed: an attempt is known by its task,
    number, settings, prompts and --tag.
    """
    from codetape.cli.run_session import again_live, drive
    from codetape.cli.script_folder import ScriptFolder
    from codetape.runtime.agent import AutoCoderAgent, new_session_id

    prompt = _prompt(options.prompt, options.prompt_file) if options.tasks is None else ""
    policy, allowlist = _policy(options.package_policy)
    agent = AutoCoderAgent(
        model=_model(options.model),
        **live_settings(options),
        sandbox=options.sandbox,
        store=options.db,
        packages=options.packages,
        system_packages=options.system_packages,
        command_policy=options.command_policy,
        package_policy=policy,
        allowlist=allowlist,
        max_iterations=options.max_iterations,
        min_strength=options.min_strength,
        strict_examples=options.strict_examples,
        parameters=parameters(options.params),
        max_output_tokens=options.max_output_tokens,
        prompts=options.prompts,
        resources=_resources(options),
        python_version=options.python_version,
        skip_tests=options.skip_tests,
        **budget_settings(options),
    )
    if options.tasks is not None:
        return _series(agent, options)
    if options.in_batches:
        raise UsageError("--batch is for many sessions.", remedy="It goes with --tasks.")
    task: dict[str, Any] = {
        "schema": text_of(options.schema_file),
        "constraints": options.constraints,
        "inputs": pairs(options.inputs, "input"),
        "outputs": pairs(options.outputs, "output"),
        "tests": text_of(options.tests),
        "oracle": text_of(options.oracle),
        "task": options.task,
        "tags": options.tags,
    }
    session = new_session_id()
    return drive(
        agent,
        session,
        lambda hook: agent.agenerate(prompt, session=session, on_event=hook, **task),
        folder=ScriptFolder.of(options.folder, force=options.force),
        as_json=options.as_json,
        again=again_live(options),
    )


_ONE_TASK = (
    "prompt",
    "prompt_file",
    "inputs",
    "outputs",
    "constraints",
    "schema_file",
    "tests",
    "oracle",
    "task",
    "folder",
    "force",
)
"""Options of one task, which a task file states itself."""


def _series(agent: "AutoCoderAgent", options: RunOptions) -> int:
    from codetape.cli import run_series

    if conflicts := [name for name in _ONE_TASK if getattr(options, name)]:
        remedy = "The task file says it, a task a line."
        raise UsageError(f"--tasks does not go with {conflicts[0].replace('_', '-')}.", remedy=remedy)
    return run_series.run(
        agent,
        options.tasks or "",
        attempts=options.attempts,
        concurrent=options.concurrent,
        tags=options.tags,
        in_batches=options.in_batches,
        as_json=options.as_json,
    )


def _prompt(prompt: str | None, file: str | None) -> str:
    if (prompt is None) == (file is None):
        raise UsageError("Give a prompt, or --prompt-file, or - to read it from standard input; one of them.")
    if file is not None:
        return text_of(file) or ""
    return sys.stdin.read() if prompt == "-" else prompt or ""


def _model(model: str | None) -> str:
    if model:
        return model
    raise UsageError(
        "No model is named.",
        remedy=(
            "Give --model openai:NAME with OPENAI_API_KEY set, or --model openai:NAME --base-url URL for a local "
            "server; `codetape demo` needs neither."
        ),
    )


def _policy(text: str) -> tuple[Literal["known", "allow", "allowlist"], tuple[str, ...]]:
    name, _, file = text.partition(":")
    if name not in ("known", "allow", "allowlist") or (name == "allowlist") != bool(file):
        raise UsageError(f"There is no package policy {text!r}.", remedy="Known are: known, allow, allowlist:FILE.")
    lines = (text_of(file) or "").splitlines() if file else []
    policy: Literal["known", "allow", "allowlist"] = (
        "known" if name == "known" else "allow" if name == "allow" else "allowlist"
    )
    return policy, tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _resources(options: RunOptions) -> "Resources":
    from pydantic import ValidationError

    from codetape.domain.task import Resources

    memory = memory_mb(options.memory)
    if memory < 64:
        raise UsageError(f"--memory {options.memory} is less than Python and pytest need (64M).")
    try:
        if not float(options.cpus) >= 0.01:  # NaN is not either
            raise UsageError(f"--cpus {options.cpus[:80]} cannot be.", remedy=f"Give {_RESOURCES['cpus'][1]}.")
    except ValueError:
        pass  # the pattern below says so
    try:
        return Resources(cpus=options.cpus, memory_mb=memory, wall_seconds=options.timeout)
    except ValidationError as error:
        option, most = _RESOURCES[str(error.errors()[0]["loc"][0])]
        given = {"--cpus": options.cpus, "--memory": options.memory, "--timeout": options.timeout}[option]
        raise UsageError(f"{option} {str(given)[:80]} cannot be.", remedy=f"Give {most}.") from None


_RESOURCES = {
    "cpus": ("--cpus", "a number of CPUs from 0.01 to 1024, such as 0.5"),
    "memory_mb": ("--memory", "64M to 1024G"),
    "wall_seconds": ("--timeout", "1 to 86400 seconds"),
}
"""What each resource is called, and what it may be."""
