"""codetape export."""

import asyncio
import os
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import click

from codetape.cli.options import as_json, at_event, database, open_store
from codetape.cli.text import say, say_json
from codetape.errors import UsageError


@click.command("export")
@click.argument("session")
@click.option("-o", "file", required=True, metavar="FILE", help="The file to write; - for standard output.")
@click.option(
    "--pytest",
    "as_pytest",
    is_flag=True,
    help="Write the tests that failed, with their code, as one pytest file that needs no codetape.",
)
@database
@as_json
def command(session: str, file: str, as_pytest: bool, db: str, as_json: bool) -> int:
    """Write a session to one portable file. The same session gives the same bytes.

    With --pytest SESSION may be SESSION:SEQ: the last run of the tests up to that event in which one failed.
    """
    from codetape import tape
    from codetape.corpus import is_tape

    if as_pytest:
        return _bundle(session, file, db, as_json=as_json)
    if is_tape(session):
        raise UsageError(f"{session} is a tape file already.")
    store = open_store(db)
    name = store.find(session)
    stream = asyncio.run(store.read(name))
    if file == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]  # a text stream, unless a test replaced it
        sys.stdout.writelines(tape.write(name, stream))
        return 0
    lines = list(tape.write(name, stream))
    _write(file, lines)
    size = sum(len(line.encode()) for line in lines)
    if as_json:
        say_json(
            {"file": file, "session": name, "events": len(stream.events), "bytes": size, "head": stream.events[-1].hash}
        )
    else:
        say(f"{file}: session {name}, {len(stream.events)} events, {size:,} bytes")
    return 0


def _bundle(named: str, file: str, db: str, *, as_json: bool) -> int:
    from codetape.bundle import bundle
    from codetape.corpus import is_tape
    from codetape.recorded import open_tape

    name, seq = at_event(named)
    known = open_tape(name, store=open_store(db) if not is_tape(name) else db)
    folder = Path(name).parent if is_tape(name) and name != "demo" else None
    text = bundle(known.stream, seq, name=Path(file).name if file != "-" else "test_recorded.py", folder=folder)
    if file == "-":
        sys.stdout.write(text)
        return 0
    _write(file, [text])
    if as_json:
        say_json({"file": file, "session": known.session, "bytes": len(text.encode())})
    else:
        say(f"{file}: what failed in session {known.session}; run it with `pytest {file}`")
    return 0


def _write(file: str, lines: list[str]) -> None:
    """Write a file whole or not at all; what is no regular file (a pipe, a device) is written to as it is."""
    path = Path(file)
    if not file or path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"{file or '(no name)'} is no file that can be written.",
            remedy="Name one with -o, or - for standard output.",
        )
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8", newline="\n") as out:
                out.writelines(lines)
            return
        target = path.resolve()
        with NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=target.parent, prefix=".codetape-", delete=False
        ) as out:
            try:
                out.writelines(lines)
                out.flush()
                os.chmod(out.name, 0o666 & ~_umask())  # noqa: PTH101 - the name is a text
                os.replace(out.name, target)  # noqa: PTH105 - likewise
            except BaseException:
                os.unlink(out.name)  # noqa: PTH108 - likewise
                raise
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
