"""codetape export."""

import asyncio
import os
from pathlib import Path

import click

from codetape.cli.options import database, open_store
from codetape.cli.text import say
from codetape.errors import UsageError


@click.command("export")
@click.argument("session")
@click.option("-o", "file", required=True, metavar="F.tape.jsonl", help="The file to write.")
@database
def command(session: str, file: str, db: str) -> int:
    """Write a session to one portable file. The same session gives the same bytes."""
    from codetape import tape

    store = open_store(db)
    name = store.find(session)
    stream = asyncio.run(store.read(name))
    part = Path(f"{file}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(tape.write(name, stream))
        os.replace(part, file)  # noqa: PTH105 - the name as given
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error
    say(f"{file}: session {name}, {len(stream.events)} events, {Path(file).stat().st_size:,} bytes")
    return 0
