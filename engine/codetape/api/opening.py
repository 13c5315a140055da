"""Open recorded sessions: a tape file, a session of a store, or the sessions that a filter selects.

    import codetape

    tape = codetape.open_tape("replays/till.tape.jsonl")
    assert tape.result.iterations <= 3

A session is named by the path of a tape file, or by its id, a unique prefix of it, or ``last`` in a store.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypedDict

from codetape.errors import CorruptTape, StoreError, UsageError
from codetape.evals.chosen_sessions import Filter
from codetape.playback.tape_names import is_tape, is_tape_or_folder
from codetape.ports import DEFAULT_STORE, Clock, Store, Stream
from codetape.runtime import plugins

if TYPE_CHECKING:  # what a list of sessions is shown without is loaded where it is used
    from codetape.domain.budget import Limit
    from codetape.domain.task import Task
    from codetape.evals.corpus import Corpus, CorpusSession
    from codetape.eventlog.envelope import Event
    from codetape.eventlog.session_state import SessionState
    from codetape.rules.build_approval import Approve
    from codetape.runtime.pricing import Prices
    from codetape.runtime.result import GenerateResult

StoreLike = str | Path | Store


class AgentSettings(TypedDict, total=False):
    """The settings of `AutoCoderAgent` on how its model is reached, what is redacted, what calls cost, and what
    a recorded session may have built."""

    base_url: str | None
    api_key_env: str | None
    model_options: Mapping[str, Any]
    server_named: bool
    limits: "tuple[Limit, ...]"
    prices: "Prices"
    redact: Mapping[str, str]
    clock: Clock
    allow_build: "bool | Approve"


@dataclass(frozen=True)
class RecordedSession:
    """A recorded session: its events and blobs, checked, and the state that they fold to."""

    session: str
    stream: Stream

    @property
    def events(self) -> "tuple[Event, ...]":
        """The events in order."""
        return self.stream.events

    @property
    def texts(self) -> Mapping[str, str]:
        """The blobs that the events refer to, by hash."""
        return self.stream.texts

    @cached_property
    def run(self) -> "SessionState":
        """The state after the last event."""
        from codetape.eventlog.fold import fold

        return fold(self.events, self.texts)

    @property
    def task(self) -> "Task":
        """What was asked for."""
        return self.run.the_task

    @cached_property
    def result(self) -> "GenerateResult":
        """The outcome, as `generate` returned it."""
        from codetape.runtime.result import GenerateResult

        return GenerateResult.of(self.run, self.stream)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the outcome."""
        return self.result._repr_html_()

    @property
    def head(self) -> str:
        """The last event's hash: it covers everything before it."""
        return self.events[-1].hash


def opened(store: StoreLike, *, reading: bool = True) -> Store:
    """Open a store by its name; an object is returned unchanged. Raises UsageError if ``reading`` and the store does
    not exist."""
    if not isinstance(store, str | Path):
        return store
    opened_store = plugins.store(str(store))
    return opened_store.for_reading() if reading else opened_store


def open_tape(place: str | Path, *, store: StoreLike = DEFAULT_STORE) -> RecordedSession:
    """Read a tape file, or a session of a store. Hashes, chain and blobs are checked.

    Raises UsageError if there is no such file, SessionNotFound if there is no such session, CorruptTape for a bad one.
    """
    from codetape.playback import tape_file

    if not str(place):
        raise UsageError("No tape is named.", remedy="Give a file, or a session's id, or `last`.")
    if Path(place).is_file() or place == "demo":
        tape = tape_file.load(str(place))
        return RecordedSession(tape.session, tape.stream)
    if isinstance(place, Path):
        raise UsageError(f"There is no tape {place}.")
    if is_tape(place):
        raise UsageError(f"There is no tape {place}.", remedy="A session is named by its id, or `last`.")
    return open_session(place, store=store)


def open_session(name: str, *, store: StoreLike = DEFAULT_STORE) -> RecordedSession:
    """Read a session of a store by its name. Raises SessionNotFound, ContentGone, CorruptTape."""
    from codetape.runtime.sync import run_sync

    opened_store = opened(store)
    session = opened_store.find(name)
    return RecordedSession(session, run_sync(opened_store.read(session)))


def samples_folder(store: Store, session: str) -> Path | None:
    """Return the folder beside a store where a session's imported samples lie; None for a store without a place.

    Raises UsageError where it, or the folder of all of them, is a link: somebody else may have put that there.
    """
    if not store.address:
        return None
    folder = Path(f"{store.address}.samples") / session
    for place in (folder.parent, folder):
        if place.is_symlink() or (place.exists() and place.stat().st_uid != os.geteuid()):
            raise UsageError(f"{place} is a link, or another user's: no samples are looked for or kept there.")
    return folder


@contextmanager
def sample_folders(place: str, store: StoreLike = DEFAULT_STORE) -> Iterator[tuple[Path, ...]]:
    """Give the folders in which samples of a tape file, or of a session of a store, are looked for: those that travelled
    with it, and those beside a tape."""
    from codetape.playback import tape_file, tape_samples

    if not is_tape(place):
        opened_store = opened(store)
        folder = samples_folder(opened_store, opened_store.find(place))
        yield (folder,) if folder is not None and folder.is_dir() else ()
        return
    beside = (Path(place).parent,) if Path(place).is_file() else ()
    samples = tape_file.load(place).samples
    if not samples:
        yield beside
        return
    with TemporaryDirectory(prefix="codetape-samples-") as folder_name:
        folder = Path(folder_name) / "samples"
        tape_samples.put(folder, samples)
        yield (folder, *beside)


def as_far_as_readable(store: Store, session: str) -> tuple[Stream, str]:
    """Return a session's stream, as far as it can be read, and what is wrong with it, if anything. Raises CorruptTape
    or StoreError where nothing can be read."""
    from codetape.eventlog.fold import fold
    from codetape.runtime.sync import run_sync

    try:
        stream = run_sync(store.read(session))
        fold(stream.events, stream.texts)
    except (CorruptTape, StoreError) as error:
        from codetape.playback.verify import readable

        recovered = store.recover(session)
        stream, problem = readable(recovered.rows, recovered.texts)
        if not stream.events:
            raise
        return stream, problem or str(error)
    return stream, ""


def sessions(*sources: str, store: StoreLike = DEFAULT_STORE, where: Filter | None = None) -> "list[CorpusSession]":
    """Return the selected sessions, newest first; ``row`` of each is a flat record."""

    from codetape.runtime.sync import run_sync

    async def look() -> "list[CorpusSession]":
        return [member async for member, _ in corpus(sources, store, where).members()]

    return run_sync(look())


def corpus(sources: Iterable[str], store: StoreLike = DEFAULT_STORE, where: Filter | None = None) -> "Corpus":
    """Return the sessions that sources and a filter select; the store is opened only if one of them is in it."""
    from codetape.evals.corpus import Corpus

    names = tuple(map(str, sources))
    needs_store = not names or not all(map(is_tape_or_folder, names))
    return Corpus(opened(store) if needs_store else None, names, (where or Filter()).checked(datetime.now(UTC)))
