"""Examining sessions for `codetape verify`: one, or all of a database in several processes; and what its list says of them."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from codetape.cli.options import open_store
from codetape.errors import CodetapeError, CorruptTape, UsageError
from codetape.playback import head_file
from codetape.playback.verify import Defect, Verified, verify

MANY = 100  # sessions that are worth more than one process


class Place:
    """A database that is opened, and whose list is read, once for a command, and where something asks for it."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def store(self) -> Any:
        """The store."""
        return open_store(self.path)

    @cached_property
    def listed(self) -> dict[str, dict[str, Any]]:
        """The lines of its list, by session."""
        return {row["session"]: row for row in self.store.sessions()[0]}


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


def everything_in(place: Place, names: list[str]) -> Iterator[tuple[str, Examined]]:
    """Examine every session of a database, in as many processes as there are CPUs where there are many."""
    cpus = os.cpu_count() or 1
    if len(names) < MANY or cpus < 2:
        yield from _several(place, names)
        return
    parts = [names[at : at + MANY // 2] for at in range(0, len(names), MANY // 2)]
    with ProcessPoolExecutor(min(cpus, len(parts)), mp_context=get_context("spawn")) as pool:
        for part in pool.map(_part, [place.path] * len(parts), parts):
            yield from part


def _part(db: str, names: list[str]) -> list[tuple[str, Examined]]:
    return list(_several(Place(db), names))


def _several(place: Place, names: list[str]) -> Iterator[tuple[str, Examined]]:
    for name in names:
        try:
            saved = place.store.salvage(name)
            yield name, examined(saved.rows, saved.texts, saved.problems)
        except CodetapeError as error:
            yield name, Examined(Verified(name, 0, "", (Defect(None, "unreadable", str(error)),)))


def named(name: str, place: Place, head: str, kept: dict[str, tuple[int, str]], *, alone: bool) -> dict[str, Any]:
    """Verify one; a name that stands for nothing is said, and keeps the others from nothing."""
    try:
        return _one(name, place, head, kept)
    except CodetapeError as error:
        if isinstance(error, UsageError) and alone:
            raise
        finding = {"seq": None, "what": "name", "message": str(error)}
        return {"name": name, "session": "", "sound": False, "events": 0, "findings": [finding]}


def _one(name: str, place: Place, head: str, kept: dict[str, tuple[int, str]]) -> dict[str, Any]:
    from codetape.playback import tape_file

    if Path(name).is_file() or name == "demo" or name.endswith(".jsonl"):
        try:
            with tape_file.opened(name) as file:
                lines = tape_file.parse(tape_file.lines_of(file, name), name=name)
        except CorruptTape as error:
            form = Defect(error.seq, "form", str(error))
            return {"name": name, "session": "", "sound": False, "events": 0, "findings": [vars(form)]}
        rows = [row for _, row in lines.rows]
        found = examined(rows, lines.by_hash, tape_file.misplaced(lines), head=head, content=lines.content)
        return judged(name, found, None, kept)
    session = place.store.find(name)
    saved = place.store.salvage(session)
    found = examined(saved.rows, saved.texts, saved.problems, head=head)
    return judged(name, found, place.listed.get(session, {}), kept)


def judged(
    name: str, found: Examined, listed: dict[str, Any] | None, kept: dict[str, tuple[int, str]]
) -> dict[str, Any]:
    """Hold what was found against the list, and against heads that were kept."""
    done = found.done
    findings = [*(Defect(None, "unreadable", text) for text in found.problems), *done.findings]
    findings += [Defect(seq, "head", text) for seq, text in head_file.of_chain(kept, list(found.chain))]
    if listed is not None and found.own is not None and (lies := _lies(listed, found.own)):
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


def _lies(listed: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return what the table of sessions says otherwise than the events."""
    if not listed or listed["state"] == "unreadable":
        return "it is not listed"
    own = {name: value for name, value in facts.items() if name != "parent"}
    if facts["parent"] and listed["state"] == "forked":
        del own["state"]
    if facts["parent"]:
        del own["iteration"]
    return ", ".join(f"{name} {listed[name]} for {value}" for name, value in own.items() if listed[name] != value)
