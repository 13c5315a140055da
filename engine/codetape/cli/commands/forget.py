"""codetape forget."""

import sys

import click

from codetape.cli.options import as_json, database
from codetape.cli.output import say, say_json
from codetape.errors import UsageError
from codetape.text.escape import safe


@click.command("forget")
@click.argument("session")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database
@as_json
def command(session: str, yes: bool, db: str, as_json: bool) -> int:
    """Erase a session's content for good: prompts, answers, code, reports. Hashes and figures stay, and still verify.

    A new database is written and takes the old one's place. What another session needs stays, a fork's inheritance
    among it. Tapes that were exported are files of your own. A short text can be confirmed by guessing it, for its hash
    stays.
    """
    from codetape.api.keeping import forget
    from codetape.api.opening import opened

    store = opened(db)
    name = store.find(session)
    store.close()
    if not yes:
        if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                f"Refusing to erase the content of session {name} without confirmation.", remedy="Give --yes."
            )
        click.confirm(safe(f"Erase the content of session {name} for good?"), abort=True, err=True)
    erased = forget(name, store=db)
    if as_json:
        say_json({"session": name, "texts": erased})
    else:
        say(f"session {name}: {erased} texts were erased; `codetape verify {name}` checks what is left")
    return 0
