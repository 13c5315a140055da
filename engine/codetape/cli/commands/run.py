"""codetape run."""

import sys
from typing import Any

import click

from codetape.cli.options import (
    as_json,
    budget,
    budget_settings,
    database,
    limits,
    memory_mb,
    own_patterns,
    own_prices,
    pairs,
    parameters,
    redacting,
    server,
    server_settings,
    several,
    text_of,
)
from codetape.errors import UsageError


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
@click.option("-o", "folder", metavar="DIR", help="Write solution.py, its tests, its lock and result.json there.")
@budget
@redacting
@server
@database
@as_json
def command(**given: Any) -> int:
    """Turn a prompt into a verified script; "-" reads the prompt from standard input.

    With --tasks every task of a file is run, and a batch that was stopped goes on: an attempt is known by its task, number,
    settings, prompts and --tag.
    """
    from codetape.cli.run_session import again, drive
    from codetape.domain.task import Resources
    from codetape.runtime.agent import AutoCoderAgent, new_session_id

    prompt = _prompt(given["prompt"], given["prompt_file"]) if given["tasks"] is None else ""
    policy, allowlist = _policy(given["package_policy"])
    agent = AutoCoderAgent(
        model=_model(given["model"]),
        base_url=given["base_url"],
        **server_settings(given),
        sandbox=given["sandbox"],
        store=given["db"],
        packages=given["packages"],
        system_packages=given["system_packages"],
        command_policy=given["command_policy"],
        package_policy=policy,
        allowlist=allowlist,
        max_iterations=given["max_iterations"],
        parameters=parameters(given["params"]),
        max_output_tokens=given["max_output_tokens"],
        prompts=given["prompts"],
        resources=_resources(Resources, given),
        python_version=given["python_version"],
        skip_tests=given["skip_tests"],
        **budget_settings(given),
        limits=limits(given),
        prices=own_prices(),
        redact=own_patterns(given),
    )
    if given["tasks"] is not None:
        from codetape.cli import run_batch

        return run_batch.run(agent, given)
    options = {
        "schema": text_of(given["schema_file"]),
        "constraints": given["constraints"],
        "inputs": pairs(given["inputs"], "input"),
        "outputs": pairs(given["outputs"], "output"),
        "tests": text_of(given["tests"]),
        "oracle": text_of(given["oracle"]),
        "task": given["task"],
        "tags": given["tags"],
    }
    session = new_session_id()
    return drive(
        agent,
        session,
        lambda hook: agent.agenerate(prompt, session=session, on_event=hook, **options),
        folder=given["folder"],
        as_json=given["as_json"],
        again=again(given),
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


def _policy(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, file = text.partition(":")
    if name not in ("known", "allow", "allowlist") or (name == "allowlist") != bool(file):
        raise UsageError(f"There is no package policy {text!r}.", remedy="Known are: known, allow, allowlist:FILE.")
    lines = (text_of(file) or "").splitlines() if file else []
    return name, tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _resources(kind: Any, given: dict[str, Any]) -> Any:
    try:
        if not 0 < float(given["cpus"]) <= 1024:
            raise ValueError
    except ValueError:
        raise UsageError(f"--cpus {given['cpus']!r} is no number of CPUs.") from None
    memory = memory_mb(given["memory"])
    if memory < 64:
        raise UsageError(f"--memory {given['memory']} is less than Python and pytest need (64M).")
    return kind(cpus=given["cpus"], memory_mb=memory, wall_seconds=given["timeout"])
