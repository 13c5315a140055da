"""codetape forget."""

import asyncio
import sys
from typing import Any

import click

from codetape.cli.options import as_json, database, open_store
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

    A new database is written and takes the old one's place. What another session needs stays, a fork's inheritance among it.
    Tapes that were exported are files of your own. A short text can be confirmed by guessing it, for its hash stays.
    """
    store: Any = open_store(db)
    name = store.find(session)
    if not yes:
        if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                f"The content of session {name} would be erased, and nobody is here to agree.", remedy="Give --yes."
            )
        click.confirm(safe(f"Erase the content of session {name} for good?"), abort=True, err=True)
    store.close()
    erased = asyncio.run(open_store(db, read_only=False).forget(name))
    if as_json:
        say_json({"session": name, "texts": erased})
    else:
        say(f"session {name}: {erased} texts were erased; `codetape verify {name}` checks what is left")
    return 0
