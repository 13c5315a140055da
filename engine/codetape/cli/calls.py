"""The calls of the sessions that filters mean, one after another, from a database or from tape files."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codetape.cli.filters import corpus_of, none_found
from codetape.errors import CorruptTape, UsageError


def calls_of(given: dict[str, Any]) -> Iterator[Any]:
    """Yield the calls of the sessions that are meant."""
    from codetape.corpus import is_tape
    from codetape.ledger import Ledger

    corpus = corpus_of(given)
    if corpus.store is None or any(is_tape(s) or Path(s).is_dir() for s in corpus.sources):
        found = 0
        for session, facts in _of_files(corpus):
            found += 1
            yield from (call for call in Ledger().calls(facts) if call.session == session)
        if not found:
            raise none_found(given)
        return
    meant = set(corpus.ids())
    if not meant:
        raise none_found(given)
    store: Any = corpus.store
    parents = {row["parent"] for row in store.sessions()[0]}
    yield from (call for call in Ledger(parents).calls(store.facts(meant)) if call.session in meant)


def _of_files(corpus: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the sessions of tape files with their facts; a tape without content has those too."""
    from codetape import tape
    from codetape.corpus import is_tape
    from codetape.ledger import LOOKED_AT, Fact

    for name in asyncio.run(corpus.names()):
        if not is_tape(name):
            raise UsageError(
                "Spend of tape files and of a database are two sums.", remedy="`codetape import` puts them together."
            )
        with tape.opened(name) as file:
            lines = tape.parse(tape.lines_of(file, name), name=name)
        if wrong := next((number for number, row in lines.rows if not row.covered), None):
            raise CorruptTape(
                f"{name}, line {wrong}: edited, its hash does not cover what it says.",
                remedy="`codetape verify` says more.",
            )
        rows = (row for _, row in lines.rows if row.kind in LOOKED_AT)
        yield lines.session, [Fact(row.session, row.seq, row.kind, row.at, row.payload) for row in rows]
