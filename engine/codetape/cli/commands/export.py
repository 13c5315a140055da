"""codetape export."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import click

from codetape.cli.options import as_json, at_event, database, open_store
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import corpus_of, filters, none_found
from codetape.errors import UsageError


@click.command("export")
@click.option("-o", "file", metavar="FILE", help="The file to write; - for standard output.")
@click.option(
    "--format",
    "form",
    default="tape",
    show_default=True,
    type=click.Choice(["tape", "jsonl", "csv", "otel"]),
    help="A tape; a record a call; or OpenTelemetry spans.",
)
@click.option(
    "--pytest",
    "as_pytest",
    is_flag=True,
    help="Write the tests that failed, with their code, as one pytest file that needs no codetape.",
)
@click.option(
    "--no-content",
    "bare",
    is_flag=True,
    help="Of a tape: put hashes in the place of texts; chain and machine still verify.",
)
@click.option(
    "--endpoint", metavar="URL", help="Of spans: send them by OTLP/HTTP, such as to http://127.0.0.1:4318/v1/traces."
)
@click.option("--content", is_flag=True, help="Of spans: prompts and answers as well.")
@filters("--of-model")
@database
@as_json
def command(**given: Any) -> int:
    """Write a session to one portable file, or many sessions as records or spans. The same session gives the same bytes.

    With --pytest SESSION may be SESSION:SEQ: the last run of the tests up to that event in which one failed.
    """
    sources, file, form = given["sources"], given["file"], given["form"]
    if file is None and not (form == "otel" and given["endpoint"]):
        raise UsageError("No file is named.", remedy="Give -o FILE, or - for standard output.")
    if (given["endpoint"] or given["content"]) and form != "otel":
        raise UsageError("--endpoint and --content go with --format otel.")
    if form == "tape":
        if len(sources) != 1:
            raise UsageError("A tape holds one session: name one.", remedy="`--format jsonl` writes the calls of many.")
        one = _bundle if given["as_pytest"] else _tape
        return one(sources[0], file, given)
    if given["as_pytest"] or given["bare"]:
        raise UsageError("--pytest and --no-content are forms of their own.")
    count = _spans(given) if form == "otel" else _records(given)
    if not count:
        raise none_found(given)
    where = given["endpoint"] or file
    if given["as_json"] and file != "-":
        say_json({"file": file, "endpoint": given["endpoint"], "written": count})
    elif file != "-":
        say(f"{where}: {count:,} {'spans' if form == 'otel' else 'calls'}")
    return 0


def _tape(session: str, file: str, given: dict[str, Any]) -> int:
    from codetape.playback import tape_file
    from codetape.playback.tape_file import is_tape

    if is_tape(session):
        raise UsageError(f"{session} is a tape file already.")
    store = open_store(given["db"])
    name = store.find(session)
    if given["bare"]:
        rows = store.salvage(name).rows
        lines, events, head = tape_file.write_without_content(name, rows), len(rows), rows[-1].hash
    else:
        stream = asyncio.run(store.read(name))
        lines, events, head = tape_file.write(name, stream), len(stream.events), stream.events[-1].hash
    if file == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]  # a text stream, unless a test replaced it
        sys.stdout.writelines(lines)
        return 0
    size = _write(file, lines)
    if given["as_json"]:
        say_json({"file": file, "session": name, "events": events, "bytes": size, "head": head})
    else:
        say(f"{file}: session {name}, {events} events, {size:,} bytes")
    return 0


def _records(given: dict[str, Any]) -> int:
    """Write a record a call, one after another."""
    from codetape.cli.call_selection import calls_of
    from codetape.reporting.calls import call_row
    from codetape.text import csv_table

    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for call in calls_of({**given, "forks": True}):
            text = (
                csv_table.csv_text([call_row(call)])
                if given["form"] == "csv"
                else json.dumps(call_row(call), sort_keys=True) + "\n"
            )
            yield text.partition("\n")[2] if given["form"] == "csv" and count else text
            count += 1

    _write(given["file"], lines())
    return count


def _spans(given: dict[str, Any]) -> int:
    """Write or send spans, session after session."""
    from codetape.reporting import otel

    count = 0

    async def each() -> AsyncGenerator[list[Any]]:
        async for _, stream in corpus_of({**given, "forks": True}).members():
            yield list(otel.spans(stream, content=given["content"]))

    async def send() -> None:
        nonlocal count
        async for found in each():
            otel.send(found, given["endpoint"])
            count += len(found)

    def lines() -> Iterator[str]:
        nonlocal count
        loop, sessions = asyncio.new_event_loop(), each()
        try:
            while (found := loop.run_until_complete(anext(sessions, None))) is not None:
                count += len(found)
                yield from otel.lines(found)
        finally:
            loop.run_until_complete(sessions.aclose())
            loop.close()

    if given["endpoint"]:
        asyncio.run(send())
    else:
        _write(given["file"], lines())
    return count


def _bundle(named: str, file: str, given: dict[str, Any]) -> int:
    from codetape.api import open_tape
    from codetape.playback.pytest_export import bundle
    from codetape.playback.tape_file import is_tape

    name, seq = at_event(named)
    known = open_tape(name, store=open_store(given["db"]) if not is_tape(name) else given["db"])
    folder = Path(name).parent if is_tape(name) and name != "demo" else None
    text = bundle(known.stream, seq, name=Path(file).name if file != "-" else "test_recorded.py", folder=folder)
    if file == "-":
        if given["as_json"]:
            say_json({"session": known.session, "text": text})
        else:
            sys.stdout.write(text)
        return 0
    _write(file, [text])
    if given["as_json"]:
        say_json({"file": file, "session": known.session, "bytes": len(text.encode())})
    else:
        say(f"{file}: what failed in session {known.session}; run it with `pytest {file}`")
        if "A tape holds no samples" in text:
            say(
                "  careful     its samples are not at hand: put them into a folder `inputs` beside it, as it says at its top"
            )
    return 0


def _write(file: str, lines: Iterable[str]) -> int:
    """Write a file whole or not at all, and return its bytes; what is no regular file (a pipe, a device) is written to as it is."""
    if file == "-":
        sys.stdout.writelines(lines)
        return 0
    path = Path(file)
    if not file or path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"{file or '(no name)'} is no file that can be written.",
            remedy="Name one with -o, or - for standard output.",
        )
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8", newline="\n") as out:
                return _all(out, lines)
        target = path.resolve()
        with NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=target.parent, prefix=".codetape-", delete=False
        ) as out:
            try:
                size = _all(out, lines)
                out.flush()
                os.chmod(out.name, 0o666 & ~_umask())  # noqa: PTH101 - the name is a text
                os.replace(out.name, target)  # noqa: PTH105 - likewise
            except BaseException:
                os.unlink(out.name)  # noqa: PTH108 - likewise
                raise
            return size
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error


def _all(out: Any, lines: Iterable[str]) -> int:
    size = 0
    for line in lines:
        out.write(line)
        size += len(line.encode("utf-8", "surrogatepass"))
    return size


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
