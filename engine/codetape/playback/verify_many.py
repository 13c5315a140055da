"""Verifies sessions by name: one, or all of a store in several processes; and compares what the store lists of them."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from typing import Any

from codetape.errors import CodetapeError, CorruptTape, UsageError
from codetape.playback import head_file, tape_file
from codetape.playback.verify import Defect, Verified, verify
from codetape.ports import SessionRow, Store
from codetape.runtime import plugins

MANY = 100  # sessions that are worth more than one process


class Listing:
    """A store, opened where something asks for it, and what it lists, read once."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store

    @cached_property
    def store(self) -> Store:
        """The store."""
        return self._open()

    @cached_property
    def _rows(self) -> dict[str, SessionRow]:
        return {row["session"]: row for row in self.store.sessions().rows}

    def listed(self, session: str) -> SessionRow | None:
        """Return what is listed of a session."""
        return self._rows.get(session)


@dataclass(frozen=True)
class Examined:
    """One session or tape as it was found, small enough to come from another process.

    ``own`` are the facts that a list should say of it; ``chain`` its events as (session, seq, hash).
    """

    done: Verified
    own: dict[str, Any] | None = None
    chain: tuple[tuple[str, int, str], ...] = ()
    problems: tuple[str, ...] = ()


def examined(rows: Any, texts: Any, problems: Iterable[str], *, head: str = "", content: bool = True) -> Examined:
    """Verify rows and texts; return what is to be told of them."""
    done = verify(rows, texts, head=head, content=content)
    own = _facts(done.run) if done.sound and done.run is not None else None
    chain = tuple((row.session, row.seq, row.hash) for row in rows)
    return Examined(replace(done, run=None), own, chain, tuple(problems))


def everything_in(store: Store, names: list[str]) -> Iterator[tuple[str, Examined]]:
    """Examine every session of a store, in as many processes as there are CPUs where there are many, and others can
    open it."""
    cpus = os.cpu_count() or 1
    if len(names) < MANY or cpus < 2 or not store.address:
        yield from _several(store, names)
        return
    parts = [names[at : at + MANY // 2] for at in range(0, len(names), MANY // 2)]
    with ProcessPoolExecutor(min(cpus, len(parts)), mp_context=get_context("spawn")) as pool:
        for part in pool.map(_part, [store.address] * len(parts), parts):
            yield from part


def _part(address: str, names: list[str]) -> list[tuple[str, Examined]]:
    return list(_several(plugins.store(address).for_reading(), names))


def _several(store: Store, names: list[str]) -> Iterator[tuple[str, Examined]]:
    for name in names:
        try:
            saved = store.recover(name)
            yield name, examined(saved.rows, saved.texts, saved.problems)
        except CodetapeError as error:
            yield name, Examined(Verified(name, 0, "", (Defect(None, "unreadable", str(error)),)))


def named(name: str, place: Listing, head: str, kept: dict[str, tuple[int, str]], *, alone: bool) -> dict[str, Any]:
    """Verify one; a name that stands for nothing is said, and keeps the others from nothing."""
    try:
        return _one(name, place, head, kept)
    except CodetapeError as error:
        if isinstance(error, UsageError) and alone:
            raise
        finding = {"seq": None, "what": "name", "message": str(error)}
        return {"name": name, "session": "", "sound": False, "events": 0, "findings": [finding]}


def _one(name: str, place: Listing, head: str, kept: dict[str, tuple[int, str]]) -> dict[str, Any]:
    if tape_file.is_tape(name):
        try:
            with tape_file.opened(name) as file:
                lines = tape_file.parse(tape_file.lines_of(file, name), name=name)
        except CorruptTape as error:
            form = Defect(error.seq, "form", str(error))
            return {"name": name, "session": "", "sound": False, "events": 0, "findings": [vars(form)]}
        rows = [row for _, row in lines.rows]
        found = examined(rows, lines.by_hash, tape_file.misplaced(lines), head=head, content=lines.content)
        return judged(name, found, None, kept, tape=True)
    session = place.store.find(name)
    saved = place.store.recover(session)
    found = examined(saved.rows, saved.texts, saved.problems, head=head)
    return judged(name, found, place.listed(session), kept)


def judged(
    name: str, found: Examined, listed: SessionRow | None, kept: dict[str, tuple[int, str]], *, tape: bool = False
) -> dict[str, Any]:
    """Hold what was found against the list, and against heads that were kept."""
    done = found.done
    findings = [*(Defect(None, "unreadable", text) for text in found.problems), *done.findings]
    findings += [Defect(seq, "head", text) for seq, text in head_file.of_chain(kept, list(found.chain))]
    lies = "" if found.own is None else "it is not listed" if listed is None else _lies(listed, found.own)
    if lies and not tape:
        findings.append(Defect(None, "list", f"What `codetape list` says of {done.session} is not so: {lies}."))
    if not findings:  # what comes next in the same command is held to it
        kept[done.session] = done.events - 1, done.head
    return {
        "name": name,
        "session": done.session,
        "content": done.content,
        "sound": not findings,
        "events": done.events,
        "derived": done.derived,
        "head": done.head,
        "findings": [vars(finding) for finding in findings],
        "drift": [vars(drift) for drift in done.drift],
    }


def _facts(run: Any) -> dict[str, Any]:
    """Return what the table of sessions is to say of a state."""
    return {
        "parent": run.parent,
        "state": run.state,
        "model": run.the_config.model,
        "task": run.the_task.id,
        "iteration": run.ledger.iteration,
        "input_tokens": run.usage.total_input - run.inherited.total_input,
        "output_tokens": run.usage.total_output - run.inherited.total_output,
        "head": run.head,
    }


def _lies(listed: SessionRow, facts: dict[str, Any]) -> str:
    """Return what the table of sessions says differently than the events."""
    if listed["state"] == "unreadable":
        return "it is not listed"
    row, own = dict(listed), {name: value for name, value in facts.items() if name != "parent"}
    if facts["parent"] and listed["state"] == "forked":
        del own["state"]
    if facts["parent"]:
        del own["iteration"]
    return ", ".join(f"{name} {row[name]} for {value}" for name, value in own.items() if row[name] != value)
