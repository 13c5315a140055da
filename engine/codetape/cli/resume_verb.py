"""codetape resume."""

import asyncio
from typing import Any, Literal

import click

from codetape.cli.options import as_json, database, open_store, server, server_settings
from codetape.errors import UsageError


@click.command("resume")
@click.argument("session")
@click.option("--allow-package", "allow", multiple=True, metavar="NAME", help="Answer: it may be installed.")
@click.option("--deny-package", "deny", multiple=True, metavar="NAME", help="Answer: do without it.")
@click.option("--max-iterations", type=click.IntRange(1, 1000), help="A new limit.")
@click.option("--base-url", metavar="URL", help="Where the model's server is now.")
@click.option("--sandbox", default="auto", show_default=True, metavar="NAME", help="Where code runs.")
@click.option("-o", "folder", metavar="DIR", help="Write solution.py, its tests, its lock and result.json there.")
@server
@database
@as_json
def command(**given: Any) -> int:
    """Go on with a session from exactly where it stopped. Recorded answers are never asked for again."""
    from codetape.agent import AutoCoderAgent
    from codetape.cli.drive import again, drive
    from codetape.result import GenerateResult

    store = open_store(given["db"])
    session = store.find(given["session"])
    known = asyncio.run(GenerateResult.load(store, session))
    if known.status == "succeeded":
        raise UsageError(f"Session {session} has succeeded: there is nothing to resume.")
    agent = AutoCoderAgent(
        model=known.config.model,
        base_url=given["base_url"],
        **server_settings(given),
        sandbox=given["sandbox"],
        store=given["db"],
    )
    _check(known, given)
    answers: dict[str, Literal["allow", "deny"]] = dict.fromkeys(given["allow"], "allow")
    answers |= dict.fromkeys(given["deny"], "deny")
    changes = {"max_iterations": given["max_iterations"]} if given["max_iterations"] else {}
    return drive(
        agent,
        session,
        lambda hook: agent.aresume(session, answers=answers, changes=changes, on_event=hook),
        folder=given["folder"],
        as_json=given["as_json"],
        again=again(given["db"], given["base_url"]),
    )


def _check(known: Any, given: dict[str, Any]) -> None:
    """Refuse what would do nothing: an answer to another question, or a session that has ended."""
    named = {*given["allow"], *given["deny"]}
    if set(given["allow"]) & set(given["deny"]):
        raise UsageError(f"{', '.join(sorted(named))} cannot be both allowed and denied.")
    if named and named != {known.question}:
        asked = f"It asks about {known.question}." if known.question else "It asks about no package."
        raise UsageError(
            f"Session {known.session} does not ask about {', '.join(sorted(named - {known.question}))}.", remedy=asked
        )
    limit = given["max_iterations"] or known.config.max_iterations
    if known.status == "failed" and ("iterations ran" not in known.reason or limit <= known.iterations):
        more = (
            f"It goes on with --max-iterations above {known.iterations}."
            if "iterations ran" in known.reason
            else "Its end is final."
        )
        raise UsageError(f"Session {known.session} has failed: {known.reason}", remedy=more)
