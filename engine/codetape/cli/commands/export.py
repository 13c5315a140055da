"""codetape export."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import click

from codetape.cli.options import as_json, at_event, database, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import UsageError


class ExportOptions(FilterOptions):
    """The options."""

    file: str | None
    form: Literal["tape", "jsonl", "csv", "otel"]
    as_pytest: bool
    bare: bool
    samples: bool
    endpoint: str | None
    content: bool


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
    "--with-samples",
    "samples",
    is_flag=True,
    help="Of a tape: the files of its inputs too, up to 4 MB each; none that seems to hold a key.",
)
@click.option(
    "--endpoint", metavar="URL", help="Of spans: send them by OTLP/HTTP, such as to http://127.0.0.1:4318/v1/traces."
)
@click.option("--content", is_flag=True, help="Of spans: prompts and answers as well.")
@filters()
@database
@as_json
@typed(ExportOptions)
def command(options: ExportOptions) -> int:
    """Write a session to one portable file, or many sessions as records or spans. The same session gives the same
    bytes.

    With --pytest SESSION may be SESSION:SEQ: the last run of the tests up to that event in which one failed.
    """
    sources, file, form = options.sources, options.file, options.form
    if file is None and not (form == "otel" and options.endpoint):
        raise UsageError("No file is named.", remedy="Give -o FILE, or - for standard output.")
    if (options.endpoint or options.content) and form != "otel":
        raise UsageError("--endpoint and --content go with --format otel.")
    if options.samples and (form != "tape" or options.as_pytest or options.bare):
        raise UsageError("--with-samples goes with a tape that has its content.")
    if form == "tape":
        if len(sources) != 1:
            raise UsageError("A tape holds one session: name one.", remedy="`--format jsonl` writes the calls of many.")
        write = _bundle if options.as_pytest else _tape
        return write(sources[0], file or "", options)
    if options.as_pytest or options.bare:
        raise UsageError("--pytest and --no-content are forms of their own.")
    from codetape.api.opening import corpus

    count = _spans(options) if form == "otel" else _records(options)
    if not count:
        raise corpus(options.sources, options.db, options.where).none_found()
    destination = options.endpoint or file
    if options.as_json and file != "-":
        say_json({"file": file, "endpoint": options.endpoint, "written": count})
    elif file != "-":
        say(f"{destination}: {count:,} {'spans' if form == 'otel' else 'calls'}")
    return 0


def _tape(session: str, file: str, options: ExportOptions) -> int:
    from codetape.api.exports import tape_lines

    name, lines, events, head, left_out = tape_lines(
        session, store=options.db, content=not options.bare, samples=options.samples
    )
    for words in left_out:
        say(f"codetape: without the sample of input {words}.", err=True)
    if file == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]  # a text stream, unless a test replaced it
        sys.stdout.writelines(lines)
        return 0
    size = _write(file, lines)
    if options.as_json:
        say_json(
            {
                "file": file,
                "session": name,
                "events": events,
                "bytes": size,
                "head": head,
                "samples_left_out": list(left_out),
            }
        )
    else:
        say(f"{file}: session {name}, {events} events, {size:,} bytes")
    return 0


def _records(options: ExportOptions) -> int:
    """Write one record per call, one at a time: a store may hold more than memory does."""
    import json
    from dataclasses import replace

    from codetape.api.spending import calls
    from codetape.reporting.calls import call_row
    from codetape.text import csv_table

    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for call in calls(*options.sources, store=options.db, where=replace(options.where, forks=True)):
            text = (
                csv_table.csv_text([call_row(call)])
                if options.form == "csv"
                else json.dumps(call_row(call), sort_keys=True) + "\n"
            )
            # each text of CSV begins with the header: only the first one keeps it
            yield text.partition("\n")[2] if options.form == "csv" and count else text
            count += 1

    _write(options.file or "", lines())
    return count


def _spans(options: ExportOptions) -> int:
    """Write or send spans, one session at a time."""
    from codetape.api.exports import members
    from codetape.reporting import otel

    count = 0

    def batches() -> Iterator[list[Any]]:
        nonlocal count
        for _, stream in members(*options.sources, store=options.db, where=options.where):
            batch = list(otel.spans(stream, content=options.content))
            count += len(batch)
            yield batch

    if options.endpoint:
        for batch in batches():
            otel.send(batch, options.endpoint)
    else:
        _write(options.file or "", (line for batch in batches() for line in otel.lines(batch)))
    return count


def _bundle(named: str, file: str, options: ExportOptions) -> int:
    from codetape.api.exports import export_failures
    from codetape.api.opening import open_tape

    name, seq = at_event(named)
    recorded = open_tape(name, store=options.db)
    text, missing_samples = export_failures(
        recorded,
        name,
        seq,
        name=os.path.basename(file.rstrip("/")) if file != "-" else "test_recorded.py",
        store=options.db,
    )
    if file == "-":
        if options.as_json:
            say_json({"session": recorded.session, "text": text})
        else:
            sys.stdout.write(text)
        return 0
    _write(file, [text])
    if options.as_json:
        say_json({"file": file, "session": recorded.session, "bytes": len(text.encode())})
    else:
        say(f"{file}: what failed in session {recorded.session}; run it with `pytest {file}`")
        if missing_samples:
            say(
                "  careful     its samples are not at hand: put them into a folder `inputs` beside it, as it says at "
                "its top"
            )
    return 0


def _write(file: str, lines: Iterable[str]) -> int:
    """Write a file atomically and return its size; a pipe or a device is written to directly."""
    if file == "-":
        sys.stdout.writelines(lines)
        return 0
    from pathlib import Path

    from codetape.runtime.whole_file import write_whole

    path = Path(file)
    if not file or path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"{file or '(no name)'} is no file that can be written.",
            remedy="Name one with -o, or - for standard output.",
        )
    try:
        return write_whole(path, lines, private=True)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error
