"""codetape show."""

import click

from codetape.cli.options import as_json, database, database_words, written
from codetape.cli.output import paged, say
from codetape.errors import UsageError


@click.command("show")
@click.argument("session")
@click.option("--events", "what", flag_value="events", help="Every event, a line each.")
@click.option("--prompts", "what", flag_value="prompts", help="Every request to the model, and its answer.")
@click.option("--code", "what", flag_value="code", help="The script.")
@click.option("--diff", "what", flag_value="diff", help="What changed from one version of the script to the next.")
@click.option("--iteration", type=click.IntRange(1), help="Only this run of the tests, and what led to it.")
@written
@database
@as_json
def command(
    session: str, what: str | None, iteration: int | None, folder: str | None, force: bool, db: str, as_json: bool
) -> int:
    """Show a session: its verdict, or its events, prompts, script or changes; with -o write its files.

    What `run -o` would have written can be written at any time.
    """
    if folder is not None and (what or iteration is not None):
        raise UsageError("-o writes a session's files as they are at its end.", remedy="Leave the other options out.")
    from codetape.api.opening import as_far_as_readable, opened
    from codetape.cli import shown_session
    from codetape.cli.script_folder import ScriptFolder
    from codetape.cli.summary import Again

    store = opened(db)
    stream, problem = as_far_as_readable(store, store.find(session))
    if problem:
        say(f"codetape: {problem} What comes before it is shown; `codetape verify` says more.", err=True)
    if target := ScriptFolder.of(folder, force=force):
        shown_session.write(stream, target, as_json, Again(db=database_words(db)))
    elif what is None:
        shown_session.verdict(stream, iteration, as_json, Again(db=database_words(db)))
    else:
        with paged():
            views = {
                "events": shown_session.events,
                "prompts": shown_session.prompts,
                "code": shown_session.code,
                "diff": shown_session.diff,
            }
            views[what](stream, iteration, as_json)
    return 0
