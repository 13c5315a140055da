"""A whole store in memory: the simplest one that keeps the contract, with budgets, forks and erasure."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from codetape.domain.budget import Reservation, Spent, check
from codetape.domain.money import picodollars
from codetape.errors import ContentGone, LeaseHeld, SessionNotFound, StaleLease, StoreError
from codetape.eventlog.envelope import Event, encode, stored
from codetape.eventlog.events import (
    Answered,
    BuildFinished,
    CallClosed,
    CallLost,
    ConfigChanged,
    ContentForgotten,
    Decided,
    Payload,
    SessionForked,
    SessionStarted,
    Transition,
    refs,
    unanswered,
)
from codetape.eventlog.hash_chain import check_blobs, check_chain
from codetape.eventlog.stored_event import GENESIS, StoredEvent
from codetape.eventlog.structure import open_request
from codetape.ports import (
    CALL_EVENT_KINDS,
    MAX_ASKED,
    Lease,
    RecoveredSession,
    SessionList,
    SessionRow,
    Store,
    Stream,
)


class MemoryLease(Lease):
    """A lease of a MemoryStore."""

    def __init__(self, store: "MemoryStore", session: str, token: int) -> None:
        self.session, self.token, self._store = session, token, store

    def renew(self) -> None:
        """Nothing expires here."""

    def release(self) -> None:
        """Give the lease back; without effect if another holder has it now."""
        if self._store.holders.get(self.session) == self.token:
            del self._store.holders[self.session]


class MemoryStore(Store):
    """A store in memory, with the same checks as a real one. ``events`` are each session's own, the oldest session first."""

    def __init__(self) -> None:
        self.address = ""  # empty: no other process can open it
        self.events: dict[str, list[Event]] = {}
        self.texts: dict[str, str] = {}
        self.holders: dict[str, int] = {}
        self.reserved: dict[str, Spent] = {}
        self._token = 0

    # ---- the log

    async def acquire(self, session: str) -> MemoryLease:
        """Take the session's lease."""
        if session in self.holders:
            raise LeaseHeld(f"Session {session} is driven by this process already.")
        self._token += 1
        self.holders[session] = self._token
        return MemoryLease(self, session, self._token)

    async def append(
        self, event: Event, texts: Mapping[str, str], lease: Lease, reserve: Reservation | None = None
    ) -> None:
        """Append one event."""
        if self.holders.get(event.session) != lease.token:
            raise StaleLease(f"Session {event.session} was taken over: event {event.seq} was not written.")
        payload = event.payload
        # a fork's first event continues its parent's chain: seq and hash do not start again
        if isinstance(payload, SessionForked) and event.session not in self.events:
            chain = self._chain(payload.parent)[: payload.seq + 1]
        else:
            chain = self._chain(event.session)
        if event.seq != len(chain) or event.prev_hash != (chain[-1].hash if chain else GENESIS):
            raise StoreError(f"Event {event.session}:{event.seq} does not follow the log.")
        if reserve is not None:
            for limit in reserve.limits:
                check(limit, self._spent(limit.scope, event.session), reserve)
            self.reserved[f"{event.session}:{event.seq}"] = Spent(reserve.tokens, reserve.cost or 0)
        elif isinstance(payload, CallClosed) and (held := self.reserved.pop(payload.call, None)) is not None:
            times = unanswered(payload)
            if times:
                self.reserved[payload.call] = Spent(held.tokens * times, held.cost * times)
        self.events.setdefault(event.session, []).append(event)
        self.texts.update(texts)

    async def read(self, session: str) -> Stream:
        """Return a session's stream."""
        events = self._chain(session)
        if not events:
            raise SessionNotFound(f"There is no session {session}.", remedy="`codetape list` shows them.")
        check_chain(events)
        if isinstance(events[-1].payload, ContentForgotten):
            raise ContentGone(f"The content of session {session} was forgotten at {events[-1].at}.")
        texts = {ref: self.texts[ref] for event in events for ref in refs(event.payload) if ref in self.texts}
        check_blobs(events, texts)
        return Stream(tuple(events), texts)

    # ---- the catalogue

    def sessions(self) -> SessionList:
        """List the sessions, the newest first."""
        return SessionList([self._row(session) for session in reversed(self.events)], [])

    def find(self, name: str) -> str:
        """Return the id that an id, a unique prefix, or ``last`` names."""
        if name in self.events:
            return name
        matches = (
            [*self.events][-1:]
            if name == "last"
            else [session for session in self.events if name and session.startswith(name)]
        )
        if len(matches) == 1:
            return matches[0]
        problem = "names more than one session" if matches else "names no session"
        raise SessionNotFound(f"{name!r} {problem}.", remedy="`codetape list` shows them.")

    def asked(self, sessions: Collection[str]) -> dict[str, str]:
        """Return the beginning of what each session was asked, of those where it can be read."""
        prompts = {}
        for session in sessions:
            started = self._chain(session)[0].payload
            if isinstance(started, SessionStarted) and started.task in self.texts:
                prompts[session] = str(json.loads(self.texts[started.task])["prompt"])[:MAX_ASKED]
        return prompts

    def position(self) -> int:
        """Return how many events there are."""
        return sum(map(len, self.events.values()))

    def call_events(self, sessions: Collection[str] | None = None) -> Iterator[StoredEvent]:
        """Yield stored events of calls, of these sessions and their parents, or of all."""
        selected, pending = set[str](), list(self.events if sessions is None else sessions)
        while pending:
            if (name := pending.pop()) not in selected:
                selected.add(name)
                first = self.events.get(name, [])[:1]
                pending += [e.payload.parent for e in first if isinstance(e.payload, SessionForked)]
        for name in self.events:
            if name in selected:
                yield from (stored(event) for event in self.events[name] if event.kind in CALL_EVENT_KINDS)

    def images_needed(self) -> dict[str, list[tuple[str, str]]]:
        """Return the sessions, with their states, that last built each image."""
        sessions_by_image: dict[str, list[tuple[str, str]]] = {}
        for name in self.events:
            built = [e.payload.image for e in self.events[name] if isinstance(e.payload, BuildFinished)]
            for image in built[-1:]:
                sessions_by_image.setdefault(image, []).append((name, self._row(name)["state"]))
        return sessions_by_image

    # ---- maintenance

    def put(self, *streams: Stream) -> list[int]:
        """Add streams, all of them or none; return how many events of each were new."""
        before = {session: list(events) for session, events in self.events.items()}
        try:
            return [self._put(stream) for stream in streams]
        except StoreError:
            self.events = before
            raise

    def _put(self, stream: Stream) -> int:
        added = 0
        for session, group in groupby(stream.events, key=lambda event: event.session):
            own = self.events.get(session, [])
            if own and own[-1].kind == ContentForgotten.__name__:
                raise StoreError(f"The content of session {session} was forgotten here: it is not put back.")
            hashes = {event.seq: event.hash for event in own}
            for event in group:
                if hashes.get(event.seq, event.hash) != event.hash:
                    raise StoreError(f"Session {session} is here already, with another event {event.seq}.")
                if event.seq not in hashes:
                    if session in self.holders:
                        raise LeaseHeld(f"Session {session} is driven by this process already.")
                    self.events.setdefault(session, []).append(event)
                    added += 1
                self.texts.update({ref: stream.texts[ref] for ref in refs(event.payload)})
        return added

    async def forget(self, session: str) -> int:
        """Erase a session's content; what other sessions need stays."""
        lease = await self.acquire(session)
        try:
            events = self._chain(session)
            if not events:
                raise SessionNotFound(f"There is no session {session}.", remedy="`codetape list` shows them.")
            last = events[-1]
            if isinstance(last.payload, ContentForgotten):
                return 0
            own = {ref for event in events if event.session == session for ref in refs(event.payload)}
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            ends: list[Payload] = [ContentForgotten(texts=len(own))]
            if asked := open_request(events):
                ends.insert(0, CallLost(call=asked.call, input_estimate=asked.input_estimate))
            for payload in ends:
                last = encode(session, last.seq + 1, at, payload, last.hash)
                self.events[session].append(last)
            needed = self._needed()  # after the events above: this session counts as forgotten now
            unneeded = [ref for ref in self.texts if ref not in needed]
            for ref in unneeded:
                del self.texts[ref]
            return len(unneeded)
        finally:
            lease.release()

    def recover(self, session: str) -> RecoveredSession:
        """Return a session's rows and the blobs that still exist."""
        events = self._chain(session)
        texts = {ref: self.texts[ref] for event in events for ref in refs(event.payload) if ref in self.texts}
        return RecoveredSession([stored(event) for event in events], texts, [])

    def stored_sessions(self) -> list[str]:
        """Return the ids of all sessions."""
        return [*self.events]

    def unsound(self) -> list[str]:
        """Return no defect: the list is derived from the events at each call."""
        return []

    def for_reading(self) -> "MemoryStore":
        """Return this store."""
        return self

    def close(self) -> None:
        """Nothing is held open."""

    # ---- what follows from the events

    def _chain(self, session: str) -> list[Event]:
        own = self.events.get(session, [])
        if own and isinstance(first := own[0].payload, SessionForked):
            return [*self._chain(first.parent)[: first.seq + 1], *own]
        return list(own)

    def _needed(self) -> set[str]:
        """Return the refs of sessions whose content is not forgotten."""
        readable = [name for name, events in self.events.items() if events[-1].kind != ContentForgotten.__name__]
        return {ref for name in readable for event in self._chain(name) for ref in refs(event.payload)}

    @staticmethod
    def _server(chain: Sequence[Event]) -> str:
        found = [p.server for e in chain if isinstance(p := e.payload, SessionStarted | SessionForked | ConfigChanged)]
        return next((server for server in reversed(found) if server is not None), "")

    def _row(self, session: str) -> SessionRow:
        chain, own = self._chain(session), self.events[session]
        starts = [e.payload for e in chain if isinstance(e.payload, SessionStarted | SessionForked)]
        tags = [tag for start in starts for tag in start.tags]
        moves = [e.payload for e in own if isinstance(e.payload, Transition)]
        ledgers = [e.payload.ledger for e in own if isinstance(e.payload, Decided) and "iteration" in e.payload.ledger]
        answers = [e.payload for e in own if isinstance(e.payload, Answered)]
        paid = [answer for answer in answers if not answer.matched_by]
        first = own[0].payload
        held = self._held([session])
        return {
            "session": session,
            "task": next((start.task_id for start in starts if isinstance(start, SessionStarted)), ""),
            "model": [start.model for start in starts if start.model][-1],
            "tags": ",".join(tags),
            "state": moves[-1].target if moves else "forked",
            "reason": getattr(moves[-1], "reason", "") if moves else "",
            "iteration": ledgers[-1]["iteration"] if ledgers else 0,
            "events": own[-1].seq + 1,
            "input_tokens": sum(answer.usage.total_input for answer in answers),
            "output_tokens": sum(answer.usage.total_output for answer in answers),
            "started_at": own[0].at,
            "updated_at": own[-1].at,
            "head": own[-1].hash,
            "parent": first.parent if isinstance(first, SessionForked) else "",
            "forked_at": first.seq if isinstance(first, SessionForked) else 0,
            "cost": sum(picodollars(answer.price.cost) for answer in paid if answer.price),
            "unpriced": sum(answer.price is None for answer in paid),
            "reused_tokens": sum(
                answer.usage.total_input + answer.usage.total_output for answer in answers if answer.matched_by
            ),
            "reserved_tokens": held.tokens,
            "reserved_cost": held.cost,
            "server": self._server(chain),
            "confidence": getattr(moves[-1], "confidence", "") if moves else "",
        }

    def _held(self, sessions: Collection[str]) -> Spent:
        reservations = [
            reservation for call, reservation in self.reserved.items() if call.rpartition(":")[0] in sessions
        ]
        return Spent(
            sum(reservation.tokens for reservation in reservations),
            sum(reservation.cost for reservation in reservations),
        )

    def _spent(self, scope: str, session: str) -> Spent:
        kind, _, tag = scope.partition(":")
        rows = [self._row(name) for name in self.events]
        if kind == "tag":
            rows = [row for row in rows if tag in row["tags"].split(",")]
        elif kind == "session":
            rows = [row for row in rows if row["session"] == session]
        tokens = sum(row["input_tokens"] + row["output_tokens"] - row["reused_tokens"] for row in rows)
        held = self._held([row["session"] for row in rows])
        return Spent(tokens + held.tokens, sum(row["cost"] for row in rows) + held.cost)
