"""What pages are read from: a store, or tape files that are read into one for as long as they are looked at."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from codetape.api.opening import StoreLike, as_far_as_readable, corpus, opened
from codetape.errors import CorruptTape, StoreError, UsageError
from codetape.evals.stored_check import StoredCheck, stored_checks, stored_report
from codetape.inspector.check_page import check_page, checks_page
from codetape.inspector.compare_page import compare_page
from codetape.inspector.rendering import Links
from codetape.inspector.session_page import Neighbours, SessionView, call_body, session_page
from codetape.inspector.sessions_page import SessionQuery, sessions_page
from codetape.inspector.spend_page import spend_page
from codetape.playback import tape_file
from codetape.playback.diff import compare
from codetape.playback.tape_names import is_tape_or_folder
from codetape.ports import DEFAULT_STORE, SessionRow, Store, Stream
from codetape.reporting.calls import records
from codetape.runtime.sync import run_sync

KEPT = 8  # sessions that were read last, for the parts of their pages
NEWEST = 1000  # sessions that a page of spend counts, unless all are asked for


@dataclass
class Library:
    """The sessions that pages show. ``only`` are the ones that are meant, where not all are.

    ``database`` are the words by which commands find the store; ``files`` are the tapes that sessions were read from,
    by id.
    """

    store: Store
    place: str
    database: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    _listed: tuple[int, list[SessionRow], list[str]] | None = None
    _views: dict[str, tuple[int, SessionView, str]] = field(default_factory=dict)

    def rows(self) -> tuple[list[SessionRow], list[str]]:
        """Return the sessions' rows, newest first, and what is wrong with the list."""
        position = self.store.position()
        if self._listed is None or self._listed[0] != position or not position:
            rows, problems = self.store.sessions()
            shown = [row for row in rows if row["session"] in self.only] if self.only else rows
            self._listed = position, shown, problems
        return self._listed[1], self._listed[2]

    def view(self, session: str) -> tuple[SessionView, str]:
        """Return a session, and what is wrong with its log; as much of it as can be read."""
        position = self.store.position()
        kept = self._views.get(session)
        if kept is not None and kept[0] == position != 0:
            return kept[1], kept[2]
        stream, problem = as_far_as_readable(self.store, session)
        view = SessionView.of(stream)
        self._views[session] = position, view, problem
        for name in [*self._views][:-KEPT]:
            self._views.pop(name, None)
        return view, problem

    # ---- pages

    def sessions(self, links: Links, values: Mapping[str, str]) -> str:
        """Return the page that lists sessions."""
        rows, problems = self.rows()
        query = SessionQuery.of(values)
        return sessions_page(rows, self.store.asked, links, query, problems=problems, place=self.place)

    def session(self, name: str, links: Links) -> str:
        """Return the page of a session. Raises SessionNotFound."""
        session = self.store.find(name)
        view, problem = self.view(session)
        ids = [row["session"] for row in self.rows()[0]] if links.base else []
        at = ids.index(session) if session in ids else -1
        near = Neighbours(ids[at - 1] if at > 0 else "", ids[at + 1] if 0 <= at < len(ids) - 1 else "")
        return session_page(
            view,
            links,
            neighbours=near,
            database=self.database,
            file=self.files.get(session, ""),
            findings=(f"{problem} What comes before it is shown.",) if problem else (),
        )

    def call(self, name: str, seq: str, links: Links) -> str | None:
        """Return a part of a session's page: the prompt and the reply of one call; None where there is no such call."""
        if not seq.isdecimal() or len(seq) > 9:
            return None
        return call_body(self.view(self.store.find(name))[0], int(seq), links)

    def compared(self, a: str, b: str, links: Links) -> str:
        """Return the page of two sessions."""
        first, second = (self.view(self.store.find(name))[0] for name in (a, b))
        return compare_page(compare(first.stream, second.stream), first, second, links)

    def checks(self, links: Links) -> str:
        """Return the page that lists checks."""
        rows, _ = self.rows()
        return checks_page(stored_checks(rows), links, place=self.place, head=str(self.store.position()))

    def check(self, name: str, links: Links) -> str:
        """Return the page of a check, as far as its attempts are stored. Raises UsageError for an unknown one."""
        rows, _ = self.rows()
        check = next((check for check in stored_checks(rows) if check.id == name), None)
        if check is None:
            raise UsageError(f"No attempt of a check {name[:40]!r} is stored here.")
        origins = dict(self._streams({row["parent"] for row in check.rows}))
        report = stored_report(check, rows, origins, _each(self.store, check))
        return check_page(report, links, stored=True, head=str(self.store.position()))

    def spend(self, links: Links, *, everything: bool) -> str:
        """Return the page of what was spent, of the newest sessions or of all."""
        rows, _ = self.rows()
        counted = rows if everything else rows[:NEWEST]
        ids = {row["session"] for row in counted}
        whole = len(ids) == len(rows) and not self.only
        own = records(self.store.kept_calls(None if whole else ids))
        left_out = len(rows) - len(counted)
        return spend_page(own, links, place=self.place, head=str(self.store.position()), left_out=left_out)

    def _streams(self, sessions: Collection[str]) -> Iterator[tuple[str, Stream]]:
        for session in sessions:
            try:
                yield session, run_sync(self.store.read(session))
            except (CorruptTape, StoreError):
                continue  # what cannot be read says nothing of its attempts


def _each(store: Store, check: StoredCheck) -> Iterator[Stream]:
    """Yield attempts, one read at a time, the newest first, until their reader has enough."""
    for row in check.rows:
        try:
            yield run_sync(store.read(row["session"]))
        except (CorruptTape, StoreError):
            continue


@contextmanager
def library(
    sources: Sequence[str], store: StoreLike = DEFAULT_STORE, database: tuple[str, ...] = ()
) -> Iterator[Library]:
    """Open sessions of a store, or tape files and folders of them. Raises UsageError for a mixture."""
    tapes = [source for source in sources if is_tape_or_folder(source)]
    if not tapes:
        found = opened(store)
        only = tuple(dict.fromkeys(map(found.find, sources)))
        yield Library(found, str(store), database, only)
        return
    if len(tapes) != len(sources):
        raise UsageError(
            "Tape files and sessions of a database are looked at apart.", remedy="`codetape import` puts them together."
        )
    with TemporaryDirectory(prefix="codetape-view-") as folder:
        names = run_sync(corpus(sources).names())
        loaded = [(name, tape_file.load(name)) for name in names]
        temporary = opened(str(Path(folder) / "tapes.db"), reading=False)
        temporary.put(*(tape.stream for _, tape in loaded))
        only = tuple(tape.session for _, tape in loaded)
        place = names[0] if len(names) == 1 else f"{len(names)} tapes"
        try:
            yield Library(temporary, place, only=only, files={tape.session: name for name, tape in loaded})
        finally:
            temporary.close()
