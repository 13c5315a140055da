"""codetape fork."""

from typing import Any

import click

from codetape.cli.options import (
    as_json,
    budget,
    budget_changes,
    database,
    limits,
    open_store,
    own_patterns,
    own_prices,
    parameters,
    redacting,
    server,
    server_settings,
    text_of,
)
from codetape.cli.output import say
from codetape.errors import UsageError


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
@click.option("-o", "folder", metavar="DIR", help="Write solution.py, its tests, its lock and result.json there.")
@budget
@redacting
@server
@database
@as_json
def command(**given: Any) -> int:
    """Go on from a point of a session with changes, as a session of its own.

    What is before the point is shared and paid for by the parent. --at moves back to the nearest point with no open call.
    """
    from codetape.api import open_tape
    from codetape.cli.run_session import again, drive
    from codetape.runtime.agent import AutoCoderAgent, new_session_id
    from codetape.runtime.fork import point

    store = open_store(given["db"])
    known = open_tape(store.find(given["session"]), store=store)
    at = point(known.stream, given["at"])
    if given["at"].isdecimal() and int(given["at"]) != at:
        say(f"Event {given['at']} leaves a call open: forked at {at}.", err=True)
    changes = {name.replace("-", "_"): value for name, value in parameters(given["settings"], "set").items()}
    changes |= budget_changes(given)
    if reserved := {"model", "sandbox"} & set(changes):
        raise UsageError(f"--set cannot set {', '.join(sorted(reserved))}.", remedy="It has an option of its own.")
    agent = AutoCoderAgent(
        model=given["model"] or known.run.the_config.model,
        base_url=given["base_url"],
        **server_settings(given),
        sandbox=given["sandbox"],
        store=given["db"],
        prompts=given["prompts"],
        limits=limits(given),
        prices=own_prices(),
        redact=own_patterns(given),
    )
    fork = new_session_id()
    return drive(
        agent,
        fork,
        lambda hook: agent.afork(
            known.session,
            at,
            changes=changes,
            say=given["remark"],
            reply=text_of(given["reply"]),
            fork=fork,
            on_event=hook,
        ),
        folder=given["folder"],
        as_json=given["as_json"],
        again=again(given),
    )
