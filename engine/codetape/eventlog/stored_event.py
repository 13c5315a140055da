"""Events as a log's rows hold them: the form of each field, and what a hash covers. Nothing here decodes a payload."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from codetape.domain.canonical import canonical, sha256
from codetape.errors import CorruptTape

GENESIS = "0" * 64
"""``prev_hash`` of a session's first event."""
SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a session's id looks like: it becomes part of commands and of file names."""
_KIND = re.compile(r"[A-Za-z]{1,60}")
TIME = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(?:\.\d{1,6})?Z")
_MEANINGS = {"session": "session's id", "kind": "kind of event", "at": "time"}


_TYPES = (str, int, str, int, str, str, str, str)
"""Types of the fields of a stored event: themselves, for True is an instance of int."""


class StoredEvent(NamedTuple):
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
    def of(cls, values: Sequence[Any]) -> StoredEvent:
        """Read the fields of a stored row: only their types and form are checked. Raises CorruptTape."""
        row = cls(*values)
        seq = row.seq if type(row.seq) is int else None
        if tuple(map(type, row)) != _TYPES:
            raise CorruptTape(f"event {seq if seq is not None else '?'} has a field of the wrong type.", seq=seq)
        for name, value, pattern in (
            ("session", row.session, SESSION_ID),
            ("kind", row.kind, _KIND),
            ("at", row.at, TIME),
        ):
            if not pattern.fullmatch(value):
                raise CorruptTape(f"event {row.seq}: {value[:80]!r} is no {_MEANINGS[name]}.", seq=seq)
        return row

    @property
    def covered(self) -> bool:
        """Whether the hash covers the rest."""
        return sha256(envelope(*self[:7])) == self.hash


def envelope(session: str, seq: int, kind: str, version: int, at: str, payload: str, prev_hash: str) -> str:
    """Return the canonical JSON that an event's hash covers; ``payload`` is canonical JSON already."""
    # Spelled out with sorted keys, as `canonical` does it: the payload is JSON already, and is not quoted again.
    return (
        f'{{"at":{canonical(at)},"kind":{canonical(kind)},"payload":{payload},"prev_hash":"{prev_hash}",'
        f'"seq":{seq},"session":{canonical(session)},"version":{version}}}'
    )
