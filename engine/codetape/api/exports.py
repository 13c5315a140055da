"""Sessions written for elsewhere: tapes, failing tests as a pytest file, and each with its stream."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from codetape.api.opening import RecordedSession, StoreLike, corpus, open_tape, opened, sample_folders
from codetape.errors import UsageError
from codetape.evals.chosen_sessions import Filter
from codetape.evals.corpus import CorpusSession
from codetape.eventlog.fold import fold
from codetape.playback import pytest_export, tape_file, tape_samples
from codetape.playback.tape_names import is_tape
from codetape.ports import DEFAULT_STORE, Stream
from codetape.runtime.sync import run_sync


def pytest_file(
    session: str, seq: int | None = None, *, store: StoreLike = DEFAULT_STORE, name: str = "test_recorded.py"
) -> str:
    """Return the tests that failed in a session, with their code, as a pytest file that needs no codetape."""
    return export_failures(open_tape(session, store=store), session, seq, name=name, store=store).text


def export_failures(
    known: RecordedSession, named: str, seq: int | None, *, name: str, store: StoreLike = DEFAULT_STORE
) -> pytest_export.PytestFile:
    """As `pytest_file`, for a session already opened; also says which samples must be put beside the file."""
    with sample_folders(named, store) as folders:
        return pytest_export.bundle(known.stream, seq, name=name, folders=folders)


class TapeLines(NamedTuple):
    """A session as the lines of a tape file, its number of events, its last event's hash, and the samples that it has no
    copy of, a line each."""

    session: str
    lines: list[str]
    events: int
    head: str
    left_out: tuple[str, ...] = ()


def tape_lines(
    session: str, *, store: StoreLike = DEFAULT_STORE, content: bool = True, samples: bool = False
) -> TapeLines:
    """Return a session of a store as the lines of a tape file; without ``content`` hashes replace the blobs. ``samples``
    has the files of its inputs travel with it."""
    if is_tape(session):
        raise UsageError(f"{session} is a tape file already.")
    opened_store = opened(store)
    name = opened_store.find(session)
    if not content:
        rows = opened_store.recover(name).rows
        return TapeLines(name, list(tape_file.write_without_content(name, rows)), len(rows), rows[-1].hash)
    stream = run_sync(opened_store.read(name))
    found, left_out = dict[str, bytes](), list[str]()
    if samples:
        with sample_folders(name, opened_store) as folders:
            found, left_out = tape_samples.gather(fold(stream.events, stream.texts).the_task, folders)
    lines = list(tape_file.write(name, stream, found))
    return TapeLines(name, lines, len(stream.events), stream.events[-1].hash, tuple(left_out))


def members(
    *sources: str, store: StoreLike = DEFAULT_STORE, where: Filter | None = None
) -> Iterator[tuple[CorpusSession, Stream]]:
    """Yield each selected session with its stream, forks included; one is read at a time."""
    loop, pairs = asyncio.new_event_loop(), corpus(sources, store, replace(where or Filter(), forks=True)).members()
    try:
        while (pair := loop.run_until_complete(anext(pairs, None))) is not None:
            yield pair
    finally:
        loop.run_until_complete(pairs.aclose())
        loop.close()
