"""What sessions cost: their calls, and sums of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codetape.api.opening import StoreLike, corpus, open_tape, opened
from codetape.errors import CorruptTape, UsageError
from codetape.evals.chosen_sessions import Filter
from codetape.playback.tape_names import is_tape, is_tape_or_folder
from codetape.ports import DEFAULT_STORE
from codetape.reporting import spend as spending
from codetape.reporting.calls import CallRecord, records, records_of
from codetape.runtime.sync import run_sync

if TYPE_CHECKING:
    from codetape.evals.corpus import Corpus
    from codetape.eventlog.stored_event import StoredEvent
    from codetape.runtime.pricing import Prices


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
    from codetape.playback import tape_file
    from codetape.ports import CALL_EVENT_KINDS

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
    found = calls(*sources, store=store, where=replace(where or Filter(), forks=True))
    if replayed_too:
        found = (spending.as_made(call) for call in found)
    return spending.spend(found, by, prices=prices, as_of=as_of)


def inherited(named: str, *, store: StoreLike = DEFAULT_STORE) -> dict[str, Any] | None:
    """Return what a fork inherited and its parent paid for; None for a session that is not a fork."""
    if not is_tape(named):
        catalog = opened(store)
        session = catalog.find(named)
        if not any(row["session"] == session and row["parent"] for row in catalog.sessions().rows):
            return None
    state = open_tape(named, store=store).run
    if not state.parent:
        return None
    tokens = state.inherited.total_input + state.inherited.total_output
    return {"parent": state.parent, "at": state.forked_at, "calls": state.inherited_calls, "tokens": tokens}
