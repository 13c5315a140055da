"""The calls of the sessions that filters mean, one after another, from a database or from tape files."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codetape.cli.session_filter import corpus_of, none_found
from codetape.errors import CorruptTape, UsageError


def calls_of(given: dict[str, Any]) -> Iterator[Any]:
    """Yield the calls of the sessions that are meant."""
    from codetape.playback.tape_file import is_tape
    from codetape.reporting.calls import CallReader

    corpus = corpus_of(given)
    if corpus.store is None or any(is_tape(s) or Path(s).is_dir() for s in corpus.sources):
        found = 0
        for session, facts in _of_files(corpus):
            found += 1
            yield from (call for call in CallReader().calls(facts) if call.session == session)
        if not found:
            raise none_found(given)
        return
    meant = set(corpus.ids())
    if not meant:
        raise none_found(given)
    store: Any = corpus.store
    parents = {row["parent"] for row in store.sessions()[0]}
    yield from (call for call in CallReader(parents).calls(store.facts(meant)) if call.session in meant)


def _of_files(corpus: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the sessions of tape files with their facts; a tape without content has those too."""
    from codetape.playback import tape_file
    from codetape.playback.tape_file import is_tape
    from codetape.ports import CALL_EVENT_KINDS, CallEvent

    for name in asyncio.run(corpus.names()):
        if not is_tape(name):
            raise UsageError(
                "Spend of tape files and of a database are two sums.", remedy="`codetape import` puts them together."
            )
        with tape_file.opened(name) as file:
            lines = tape_file.parse(tape_file.lines_of(file, name), name=name)
        if wrong := next((number for number, row in lines.rows if not row.covered), None):
            raise CorruptTape(
                f"{name}, line {wrong}: edited, its hash does not cover what it says.",
                remedy="`codetape verify` says more.",
            )
        rows = (row for _, row in lines.rows if row.kind in CALL_EVENT_KINDS)
        yield lines.session, [CallEvent(row.session, row.seq, row.kind, row.at, row.payload) for row in rows]
