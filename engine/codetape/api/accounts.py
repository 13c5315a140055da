"""What sessions did and cost: calls, spend, causes, audits, exports."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from codetape.api.opening import RecordedSession, StoreLike, corpus, open_tape, opened, sample_folders
from codetape.errors import CorruptTape, UsageError
from codetape.evals.chosen_sessions import Filter
from codetape.evals.corpus import Corpus, CorpusSession
from codetape.eventlog.fold import fold
from codetape.eventlog.stored_event import StoredEvent
from codetape.playback import pytest_export, tape_file, tape_samples
from codetape.playback.tape_file import is_tape, is_tape_or_folder
from codetape.ports import CALL_EVENT_KINDS, DEFAULT_STORE, Stream
from codetape.reporting import audit as audits
from codetape.reporting import spend as spending
from codetape.reporting import why as causes
from codetape.reporting.calls import CallRecord, records, records_of
from codetape.runtime.pricing import Prices
from codetape.runtime.sync import run_sync


def calls(*sources: str, store: StoreLike = DEFAULT_STORE, where: Filter | None = None) -> Iterator[CallRecord]:
    """Yield every call of the selected sessions, from a store or from tape files. Raises UsageError if none is
    selected."""
    selection = corpus(sources, store, where)
    if selection.store is None or any(map(is_tape_or_folder, selection.sources)):
        yield from _calls_of_files(selection)
        return
    ids = set(selection.ids())
    if not ids:
        raise selection.none_found()
    yield from records(selection.store.kept_calls(ids))


def _calls_of_files(selection: Corpus) -> Iterator[CallRecord]:
    names = run_sync(selection.names())
    if not names:
        raise selection.none_found()
    for name in names:
        session, events = _call_events(name)
        yield from (call for call in records_of(events) if call.session == session)


def _call_events(name: str) -> tuple[str, list[StoredEvent]]:
    """Return a tape file's session and its stored events of calls, which a tape without content has as well."""
    if not is_tape(name):
        raise UsageError(
            "Spend of tape files and of a database are two sums.", remedy="`codetape import` puts them together."
        )
    with tape_file.opened(name) as file:
        parsed = tape_file.parse(tape_file.lines_of(file, name), name=name)
    if wrong := next((number for number, row in parsed.rows if not row.covered), None):
        raise CorruptTape(
            f"{name}, line {wrong}: edited, its hash does not cover what it says.",
            remedy="`codetape verify` says more.",
        )
    return parsed.session, [row for _, row in parsed.rows if row.kind in CALL_EVENT_KINDS]


def spend(
    *sources: str,
    by: Sequence[str] = ("purpose",),
    store: StoreLike = DEFAULT_STORE,
    where: Filter | None = None,
    prices: Prices | None = None,
    as_of: str = "",
    replayed_too: bool = False,
) -> spending.Spend:
    """Sum what sessions spent, forks included. ``as_of`` prices every call with the list's prices of that time;
    ``replayed_too`` counts calls that were answered from recordings as if they had been made."""
    found = calls(*sources, store=store, where=_with_forks(where))
    if replayed_too:
        found = (spending.as_made(call) for call in found)
    return spending.spend(found, by, prices=prices, as_of=as_of)


def _with_forks(where: Filter | None) -> Filter:
    from dataclasses import replace

    return replace(where or Filter(), forks=True)


def why(named: str, seq: int | None = None, *, store: StoreLike = DEFAULT_STORE) -> causes.Why:
    """Return why an event happened, back to the prompt; by default of the last event."""
    stream = open_tape(named, store=store).stream
    return causes.why(stream, len(stream.events) - 1 if seq is None else seq)


def audit(named: str, *, store: StoreLike = DEFAULT_STORE) -> audits.Audit:
    """Account for a session in one report."""
    return audits.audit(open_tape(named, store=store).stream)


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
    loop, pairs = asyncio.new_event_loop(), corpus(sources, store, _with_forks(where)).members()
    try:
        while (pair := loop.run_until_complete(anext(pairs, None))) is not None:
            yield pair
    finally:
        loop.run_until_complete(pairs.aclose())
        loop.close()


def inherited(named: str, *, store: StoreLike = DEFAULT_STORE) -> dict[str, Any] | None:
    """Return what a fork inherited and its parent paid for; None for a session that is not a fork."""
    state = open_tape(named, store=store).run
    if not state.parent:
        return None
    tokens = state.inherited.total_input + state.inherited.total_output
    return {"parent": state.parent, "at": state.forked_at, "calls": state.inherited_calls, "tokens": tokens}
