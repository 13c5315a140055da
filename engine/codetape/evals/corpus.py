"""Sessions chosen from a database or from tape files, and read one at a time, so that a corpus may be large."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from codetape.errors import ContentGone, UsageError
from codetape.evals.chosen_sessions import Filter
from codetape.playback.tape_names import is_tape

if TYPE_CHECKING:
    from codetape.eventlog.session_state import SessionState
    from codetape.ports import SessionRow, Store, Stream

R = TypeVar("R")


@dataclass(frozen=True)
class CorpusSession:
    """One session of a corpus: what its row says, and the file that holds it; empty for a store's session."""

    session: str
    task: str
    model: str
    state: str
    row: SessionRow
    file: str = ""

    @property
    def name(self) -> str:
        """What a person calls it: its id, or its file."""
        return self.file or self.session

    @property
    def ended(self) -> bool:
        """Whether it ended, and waits for nothing."""
        return self.state in ("succeeded", "failed")


@dataclass(frozen=True)
class Corpus:
    """Sessions of a store and of tape files, filtered.

    ``sources`` name sessions, files or folders; none means the whole store.
    """

    store: Store | None
    sources: tuple[str, ...] = ()
    filter: Filter = Filter()

    async def members(self) -> AsyncGenerator[tuple[CorpusSession, Stream]]:
        """Yield each selected session with its stream. Raises for a bad session or file."""
        rows, named = self._selected()
        for row, file in rows:
            if (stream := await _read(self.store, row, file, named=named)) is not None:
                yield _member(row, file), stream

    async def each(self, work: Callable[[CorpusSession, Stream], R], jobs: int = 1) -> AsyncGenerator[R]:
        """Yield what ``work`` makes of each selected session, in order; it is a module's function, or a partial of one.

        Of many sessions several are worked on at once, in ``jobs`` processes, one for each CPU where it is 0. A program
        that calls this with another number than 1 must keep what it does behind ``if __name__ == "__main__"``.
        """
        from codetape.playback.many_processes import in_order_async, shared_out

        rows, named = self._selected()
        if (self.store is None or self.store.address) and shared_out(rows, jobs):
            place = self.store.address if self.store else ""
            async for made in in_order_async(partial(_worked_on, place, named, work), rows, jobs):
                yield made
            return
        async for member, stream in self.members():
            yield work(member, stream)

    def _selected(self) -> tuple[list[tuple[SessionRow, str]], bool]:
        """Return each selected session's row with its file, and whether sessions of the store were named."""
        from codetape.playback import tape_file  # the log's code, which a listing needs nothing of

        names = [name for source in self.sources for name in _expanded(source)]
        files = [name for name in names if is_tape(name)]
        stored = [name for name in names if not is_tape(name)]
        rows: list[tuple[SessionRow, str]] = [(row, "") for row in self._rows(stored)] if stored or not names else []
        seen = {row["session"] for row, _ in rows}
        for file in files:
            tape = tape_file.load(file)
            row = session_row(tape.run, tape.stream)
            if self._named(file).takes(row) and row["session"] not in seen:  # a session in two places counts once
                seen.add(row["session"])
                rows.append((row, file))
        if files and self.filter.limit:
            first, last = self.filter.bounds()
            rows = sorted(rows, key=lambda pair: str(pair[0]["started_at"]), reverse=True)[first:last]
        return rows, bool(stored)

    def _named(self, name: str) -> Filter:
        """Return the filter for a source: one that is named explicitly may be a fork."""
        return replace(self.filter, forks=True) if name in self.sources else self.filter

    def ids(self) -> list[str]:
        """Return the ids of the store's selected sessions, without reading them."""
        return [row["session"] for row in self._rows([name for name in self.sources if not is_tape(name)])]

    async def names(self) -> list[str]:
        """Return the name of each selected session. No stored session is read, so damaged ones are named too."""
        names = [name for source in self.sources for name in _expanded(source)]
        if self.filter == Filter(forks=self.filter.forks) and names:
            return names
        stored = [name for name in names if not is_tape(name)]
        stored_ids = [row["session"] for row in self._rows(stored)] if stored or not names else []
        tapes = Corpus(None, tuple(name for name in names if is_tape(name)), self.filter)
        return stored_ids + ([member.file async for member, _ in tapes.members()] if tapes.sources else [])

    async def chosen_names(self) -> list[str]:
        """Return the names. Raises UsageError where neither a source nor a filter is set, or nothing matches."""
        if not self.sources and self.filter == Filter():
            raise UsageError("Name sessions, files or folders, or give a filter, such as by status or since a date.")
        names = await self.names()
        if not names:
            raise self.none_found()
        return names

    def _rows(self, names: list[str]) -> list[SessionRow]:
        if self.store is None:
            return []
        rows, problems = self.store.sessions()
        if problems:
            raise UsageError(
                f"The database cannot be read whole: {problems[0]}", remedy="`codetape verify --all` says more."
            )
        ids = dict.fromkeys(map(self.store.find, names))
        if ids:
            rows = [row for row in rows if row["session"] in ids]
        selection = replace(self.filter, forks=True) if ids else self.filter
        if any(is_tape(name) for name in self.sources):
            selection = replace(selection, limit="")  # the limit counts rows and tapes together: `members` applies it
        return list(selection.chosen(rows))

    def none_found(self) -> UsageError:
        """Return the error of a corpus that holds no session."""
        where = f" of {', '.join(self.sources)}" if self.sources else ""
        return UsageError(f"No session{where} matches these filters.", remedy="`codetape list` shows what there is.")

    @property
    def selected(self) -> bool:
        """Whether its sessions are chosen for how they ended, or one by one by a person who may know it."""
        named = bool(self.sources and not all(Path(source).is_dir() for source in self.sources))
        return self.filter.by_outcome or self.filter.one_by_one or named


async def _read(store: Store | None, row: SessionRow, file: str, *, named: bool) -> Stream | None:
    """Return a session's stream. A whole store may hold forgotten sessions, which have none; one that was named is an
    error."""
    from codetape.playback import tape_file

    if file:
        return tape_file.load(file).stream
    if store is None:
        return None
    try:
        return await store.read(row["session"])
    except ContentGone:
        if named:
            raise
        return None


def _worked_on(
    place: str, named: bool, work: Callable[[CorpusSession, Stream], R], rows: list[tuple[SessionRow, str]]
) -> list[R]:
    """Do a part of the work, in a process of its own."""
    from codetape.runtime import plugins
    from codetape.runtime.sync import run_sync

    store, made = plugins.store_for_reading(place) if place else None, list[R]()
    for row, file in rows:
        if (stream := run_sync(_read(store, row, file, named=named))) is not None:
            made.append(work(_member(row, file), stream))
    return made


def session_row(session: SessionState, stream: Stream) -> SessionRow:
    """Return the row that the session list would have for a session."""
    return {
        "session": session.session,
        "task": session.the_task.id,
        "model": session.the_config.model,
        "tags": ",".join(session.the_task.tags),
        "state": session.state,
        "reason": session.reason,
        "iteration": session.ledger.iteration,
        "events": len(stream.events),
        "input_tokens": session.usage.total_input - session.inherited.total_input,
        "output_tokens": session.usage.total_output - session.inherited.total_output,
        "started_at": session.started_at,
        "updated_at": session.ended_at,
        "head": session.head,
        "parent": session.parent,
        "forked_at": session.forked_at,
        "cost": session.spent.cost,
        "unpriced": session.spent.unpriced,
        "reused_tokens": session.spent.reused_tokens,
        "reserved_tokens": 0,
        "reserved_cost": 0,
        "server": session.the_config.server or "",
        "confidence": session.confidence,
    }


def _expanded(source: str) -> list[str]:
    """Return a folder's tape files; any other source unchanged."""
    if not Path(source).is_dir():
        return [source]
    tapes = sorted(str(path) for path in Path(source).glob("*.jsonl"))
    if not tapes:
        raise UsageError(f"The folder {source} holds no tape (*.jsonl).")
    return tapes


def _member(row: SessionRow, file: str = "") -> CorpusSession:
    return CorpusSession(row["session"], row["task"], row["model"], row["state"], row, file)
