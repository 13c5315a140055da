"""codetape export."""

import asyncio
import os
import sys
from pathlib import Path

import click

from codetape.cli.options import as_json, database, open_store
from codetape.cli.text import say, say_json
from codetape.errors import UsageError


@click.command("export")
@click.argument("session")
@click.option("-o", "file", required=True, metavar="F.tape.jsonl", help="The file to write; - for standard output.")
@database
@as_json
def command(session: str, file: str, db: str, as_json: bool) -> int:
    """Write a session to one portable file. The same session gives the same bytes."""
    from codetape import tape

    store = open_store(db)
    name = store.find(session)
    stream = asyncio.run(store.read(name))
    if file == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]  # a text stream, unless a test replaced it
        sys.stdout.writelines(tape.write(name, stream))
        return 0
    part = Path(f"{file}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(tape.write(name, stream))
        os.replace(part, file)  # noqa: PTH105 - the name as given
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error
    size = Path(file).stat().st_size
    if as_json:
        say_json(
            {"file": file, "session": name, "events": len(stream.events), "bytes": size, "head": stream.events[-1].hash}
        )
    else:
        say(f"{file}: session {name}, {len(stream.events)} events, {size:,} bytes")
    return 0
