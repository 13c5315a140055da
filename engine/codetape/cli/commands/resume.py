"""codetape resume."""

from typing import Any, Literal

import click
from click.core import ParameterSource

from codetape.cli.options import (
    as_json,
    budget,
    budget_changes,
    database,
    limits,
    open_store,
    own_patterns,
    own_prices,
    redacting,
    server,
    server_settings,
)
from codetape.decider.remedies import example
from codetape.errors import UsageError


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
@click.option("--drop-test", "drop", multiple=True, metavar="NAME", help="Answer: this example is wrong, set it aside.")
@click.option("--keep-test", "keep", multiple=True, metavar="NAME", help="Answer: this example stands.")
@click.option("--max-iterations", type=click.IntRange(1, 1000), help="A new limit.")
@click.option("--base-url", metavar="URL", help="Where the model's server is now.")
@click.option("--sandbox", default="auto", show_default=True, metavar="NAME", help="Where code runs.")
@click.option("-o", "folder", metavar="DIR", help="Write solution.py, its tests, its lock and result.json there.")
@click.option("--model", hidden=True)
@click.option("--prompts", hidden=True)
@budget
@redacting
@server
@database
@as_json
def command(**given: Any) -> int:
    """Go on with a session from exactly where it stopped. Recorded answers are never asked for again.

    The session keeps its model and its prompts: with others it would be another session, a fork.
    """
    from codetape.api import check_resumable, open_tape
    from codetape.cli.run_session import again, drive
    from codetape.runtime.agent import AutoCoderAgent

    _refuse_others()
    store = open_store(given["db"])
    known = open_tape(store.find(given["session"]), store=store)
    answers = _answers((*given["allow"], *map(example, given["drop"])), (*given["deny"], *map(example, given["keep"])))
    check_resumable(known.run, answers, given["max_iterations"])
    agent = AutoCoderAgent(
        model=known.run.the_config.model,
        base_url=given["base_url"],
        **server_settings(given),
        sandbox=given["sandbox"],
        store=given["db"],
        limits=limits(given),
        prices=own_prices(),
        redact=own_patterns(given),
    )
    changes = {"max_iterations": given["max_iterations"]} if given["max_iterations"] else {}
    changes |= budget_changes(given)
    return drive(
        agent,
        known.session,
        lambda hook: agent.aresume(known.session, answers=answers, changes=changes, on_event=hook),
        folder=given["folder"],
        as_json=given["as_json"],
        again=again(given),
    )


def _refuse_others() -> None:
    """Say what another model or other prompts are; a variable or a file that names one is for new sessions."""
    context = click.get_current_context()
    for name in ("model", "prompts"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"A session keeps its {name}: with another it is a fork, which is a session of its own.",
                remedy=f"Resume without --{name}.",
            )


def _answers(allow: tuple[str, ...], deny: tuple[str, ...]) -> dict[str, Literal["allow", "deny"]]:
    if both := sorted({*allow} & {*deny}):
        raise UsageError(f"{', '.join(both)} cannot be both allowed and denied.")
    found: dict[str, Literal["allow", "deny"]] = dict.fromkeys(allow, "allow")
    return found | dict.fromkeys(deny, "deny")
