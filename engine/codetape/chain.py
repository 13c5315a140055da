"""Events as the log holds them: envelope, codec and hash chain.

A hash covers the stored bytes and is checked before they are read as the present version of their kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from codetape.canonical import canonical, sha256
from codetape.errors import CorruptTape
from codetape.events import KINDS, Payload, refs

GENESIS = "0" * 64
"""``prev_hash`` of a session's first event."""

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(kind, version) -> the payload of version + 1. Append only, once 0.1.0 is out."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact at (session, seq). ``hash`` covers the stored canonical JSON of everything else.

    ``stored_version`` and ``stored_payload`` are what the log holds; ``payload`` is that, upcast.
    """

    session: str
    seq: int
    kind: str
    stored_version: int
    at: str
    stored_payload: str
    prev_hash: str
    hash: str
    payload: Payload


SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a session's id looks like: it becomes part of commands and of file names."""


_KIND = re.compile(r"[A-Za-z]{1,60}")
_TIME = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(?:\.\d{1,6})?Z")
_IS = {"session": "session's id", "kind": "kind of event", "at": "time"}


class Row(NamedTuple):
    """An event as it is stored; nothing of it is checked yet."""

    session: str
    seq: int
    kind: str
    version: int
    at: str
    payload: str
    prev_hash: str
    hash: str

    @classmethod
    def of(cls, values: Sequence[Any]) -> Row:
        """Read the fields of a row from elsewhere: their types are checked, and nothing more. Raises CorruptTape."""
        row = cls(*values)
        seq = row.seq if type(row.seq) is int else None
        kinds = (str, int, str, int, str, str, str, str)
        if any(type(value) is not kind for value, kind in zip(row, kinds, strict=True)):
            raise CorruptTape(f"event {seq if seq is not None else '?'} has a field of the wrong type.", seq=seq)
        for name, pattern in (("session", SESSION_ID), ("kind", _KIND), ("at", _TIME)):
            value = getattr(row, name)
            if not pattern.fullmatch(value):
                raise CorruptTape(f"event {row.seq}: {value[:80]!r} is no {_IS[name]}.", seq=seq)
        return row

    @property
    def covered(self) -> bool:
        """Whether the hash covers the rest."""
        return sha256(envelope(*self[:7])) == self.hash


def row_of(event: Event) -> Row:
    """Return an event as it is stored."""
    e = event
    return Row(e.session, e.seq, e.kind, e.stored_version, e.at, e.stored_payload, e.prev_hash, e.hash)


def envelope(session: str, seq: int, kind: str, version: int, at: str, payload: str, prev_hash: str) -> str:
    """Return the canonical JSON that an event's hash covers; ``payload`` is canonical JSON already."""
    return (
        f'{{"at":{canonical(at)},"kind":{canonical(kind)},"payload":{payload},"prev_hash":"{prev_hash}",'
        f'"seq":{seq},"session":{canonical(session)},"version":{version}}}'
    )


def seal(session: str, seq: int, at: str, payload: Payload, prev_hash: str) -> Event:
    """Make the event that follows ``prev_hash`` in a session's chain."""
    kind, text = type(payload).__name__, canonical(payload.model_dump(mode="json"))
    digest = sha256(envelope(session, seq, kind, payload.version, at, text, prev_hash))
    return Event(session, seq, kind, payload.version, at, text, prev_hash, digest, payload)


def unseal(row: Row) -> Event:
    """Read one stored event; its hash is checked over the stored bytes, before upcasting.

    Raises CorruptTape with the event's seq.
    """
    if not row.covered:
        where = f"{row.session}:{row.seq}"
        raise CorruptTape(f"{where} was edited: its hash does not cover what it says.", seq=row.seq)
    return Event(*row, decode(row.kind, row.version, row.payload, row.seq))


def decode(kind: str, version: int, payload: str, seq: int) -> Payload:
    """Read a stored payload as the present version of its kind."""
    shape = KINDS.get(kind)
    if version < 1:
        raise CorruptTape(f"event {seq} is of version {version}, which there never was.", seq=seq)
    if shape is None or version > shape.version:
        raise CorruptTape(
            f"event {seq} is a {kind} of version {version}, which this codetape does not know.",
            remedy="A newer codetape wrote it: upgrade.",
            seq=seq,
        )
    try:
        if version == shape.version:
            return shape.model_validate_json(payload)
        value = json.loads(payload)
        while version < shape.version:
            value, version = UPCASTERS[kind, version](value), version + 1
        return shape.model_validate(value)
    except (ValueError, RecursionError) as error:
        raise CorruptTape(f"event {seq} is no {kind}: {reason_of(error)}", seq=seq) from error


def reason_of(error: Exception) -> str:
    """Return what is wrong with a value, in one line: of many things the first."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def check_chain(events: Iterable[Event]) -> None:
    """Raise CorruptTape at the first gap, or the first event that does not follow its predecessor."""
    expected, previous, session = 0, GENESIS, ""
    for event in events:
        if session and event.session != session and event.kind != "SessionForked":
            raise CorruptTape(
                f"{event.session}:{event.seq} follows an event of session {session}, and is no fork.", seq=event.seq
            )
        if event.seq != expected:
            raise CorruptTape(f"{event.session}:{expected} is missing: {event.seq} follows.", seq=expected)
        if event.prev_hash != previous:
            raise CorruptTape(f"{event.session}:{event.seq} does not follow its predecessor.", seq=event.seq)
        expected, previous, session = expected + 1, event.hash, event.session


def check_texts(events: Iterable[Event], texts: Mapping[str, str]) -> None:
    """Raise CorruptTape at the first event that refers to a text which is not there."""
    for event in events:
        for ref in refs(event.payload):
            if ref not in texts:
                what = f"{event.session}:{event.seq} {event.kind} refers to the text {ref}, which is missing."
                raise CorruptTape(what, seq=event.seq)
