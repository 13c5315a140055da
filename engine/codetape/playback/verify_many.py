"""Verifies sessions by name, one or all of a store in several processes, and compares them with the store's list."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from codetape.errors import CodetapeError, CorruptTape, UsageError
from codetape.eventlog.stored_event import StoredEvent
from codetape.playback import head_file, tape_file
from codetape.playback.many_processes import in_order
from codetape.playback.tape_names import is_tape
from codetape.playback.verify import Defect, Verified, verify
from codetape.ports import SessionRow, Store
from codetape.runtime import plugins


class Listing:
    """A store, opened when first used, and its list of sessions, read once."""

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
        """Return a session's row in the list."""
        return self._rows.get(session)


@dataclass(frozen=True)
class Examined:
    """One verified session or tape, small enough to be sent from another process.

    ``own`` are the facts that the session list should give; ``chain`` its events as (session, seq, hash).
    """

    done: Verified
    own: dict[str, Any] | None = None
    chain: tuple[tuple[str, int, str], ...] = ()
    problems: tuple[str, ...] = ()


def examined(rows: Any, texts: Any, problems: Iterable[str], *, head: str = "", content: bool = True) -> Examined:
    """Verify rows and blobs; return the result without the session's state and events."""
    return _examined(verify(rows, texts, head=head, content=content), rows, problems)


def _examined(verified: Verified, rows: Sequence[StoredEvent], problems: Iterable[str]) -> Examined:
    facts = _facts(verified.run) if not verified.findings and verified.run is not None else None
    chain = tuple((row.session, row.seq, row.hash) for row in rows)
    return Examined(replace(verified, run=None, decoded=()), facts, chain, tuple(problems))


def _of_store(store: Store, session: str, *, head: str = "") -> Examined:
    """Verify a session of a store, and compare what the store keeps beside its events with them."""
    saved = store.recover(session)
    verified = verify(saved.rows, saved.texts, head=head)
    found = _examined(verified, saved.rows, saved.problems)
    if not verified.decoded or verified.findings:
        return found
    wrong = tuple(Defect(None, "list", text) for text in store.disagreeing(session, verified.decoded, saved.texts))
    if not wrong or store.recover(session).rows[-1].hash != verified.head:  # it goes on: events came in between
        return found
    return replace(found, done=replace(found.done, findings=wrong))


def everything_in(store: Store, names: list[str], jobs: int = 0) -> Iterator[tuple[str, Examined]]:
    """Examine every session of a store, in as many processes as there are CPUs or ``jobs``, where they can open it."""
    if store.address:
        yield from in_order(partial(_part, store.address), names, jobs, partial(_several, store))
    else:
        yield from _several(store, names)


def _part(address: str, names: list[str]) -> list[tuple[str, Examined]]:
    return list(_several(plugins.store_for_reading(address), names))


def _several(store: Store, names: list[str]) -> Iterator[tuple[str, Examined]]:
    for name in names:
        try:
            yield name, _of_store(store, name)
        except CodetapeError as error:
            yield name, _unreadable(name, str(error))
        except Exception as error:  # noqa: BLE001 - one session from elsewhere must not hide what the others are
            yield name, _unreadable(name, f"It cannot be examined: {type(error).__name__}.")


def _unreadable(name: str, message: str) -> Examined:
    return Examined(Verified(name, 0, "", (Defect(None, "unreadable", message),)))


def named(name: str, place: Listing, head: str, kept: dict[str, tuple[int, str]], *, alone: bool) -> dict[str, Any]:
    """Verify one name. A name without a session is a finding, so that it does not stop the others.

    Raises UsageError for a bad name that stands ``alone``.
    """
    try:
        return _verified(name, place, head, kept)
    except CodetapeError as error:
        if isinstance(error, UsageError) and alone:
            raise
        finding = {"seq": None, "what": "name", "message": str(error)}
        return {"name": name, "session": "", "sound": False, "events": 0, "findings": [finding]}


def _verified(name: str, listing: Listing, head: str, heads: dict[str, tuple[int, str]]) -> dict[str, Any]:
    if is_tape(name):
        try:
            with tape_file.opened(name) as file:
                lines = tape_file.parse(tape_file.lines_of(file, name), name=name)
        except CorruptTape as error:
            form = Defect(error.seq, "form", str(error))
            return {"name": name, "session": "", "sound": False, "events": 0, "findings": [vars(form)]}
        rows = [row for _, row in lines.rows]
        result = examined(rows, lines.by_hash, tape_file.misplaced(lines), head=head, content=lines.content)
        return judged(name, result, None, heads, tape=True)
    session = listing.store.find(name)
    return judged(name, _of_store(listing.store, session, head=head), listing.listed(session), heads)


def judged(
    name: str, found: Examined, listed: SessionRow | None, kept: dict[str, tuple[int, str]], *, tape: bool = False
) -> dict[str, Any]:
    """Compare an examined session with its row in the list, and with the heads kept elsewhere."""
    verified = found.done
    findings = [*(Defect(None, "unreadable", text) for text in found.problems), *verified.findings]
    findings += [Defect(seq, "head", text) for seq, text in head_file.of_chain(kept, list(found.chain))]
    lies = "" if found.own is None else "it is not listed" if listed is None else _lies(listed, found.own)
    if lies and not tape:
        findings.append(Defect(None, "list", f"What `codetape list` says of {verified.session} is not so: {lies}."))
    if not findings:  # later names of the same command, forks of this session say, are checked against it
        kept[verified.session] = verified.events - 1, verified.head
    return {
        "name": name,
        "session": verified.session,
        "content": verified.content,
        "sound": not findings and not verified.drift,
        "judgement": replace(verified, findings=tuple(findings)).judgement,
        "events": verified.events,
        "derived": verified.derived,
        "head": verified.head,
        "findings": [vars(finding) for finding in findings],
        "drift": [vars(drift) for drift in verified.drift],
    }


def _facts(session: Any) -> dict[str, Any]:
    """Return the facts that the session list should give of a state."""
    return {
        "parent": session.parent,
        "state": session.state,
        "model": session.the_config.model,
        "task": session.the_task.id,
        "iteration": session.ledger.iteration,
        "input_tokens": session.usage.total_input - session.inherited.total_input,
        "output_tokens": session.usage.total_output - session.inherited.total_output,
        "head": session.head,
    }


def _lies(listed: SessionRow, facts: dict[str, Any]) -> str:
    """Return where the session list differs from the events; empty where it does not."""
    if listed["state"] == "unreadable":
        return "it is not listed"
    row, own = dict(listed), {name: value for name, value in facts.items() if name != "parent"}
    if facts["parent"] and listed["state"] == "forked":  # of a fork without a state of its own
        del own["state"]
    return ", ".join(f"{name} {row[name]} for {value}" for name, value in own.items() if row[name] != value)
