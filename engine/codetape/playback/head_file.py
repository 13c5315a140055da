"""Head hashes kept elsewhere: a line a session, its last event and that event's hash. It suits a git repository.

Whoever has the file knows that a session said then what it says now: a chain that was forged again, or cut, does not
have the hash
at that event.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from codetape.errors import UsageError
from codetape.runtime.whole_file import write_whole

HeadHashes = Mapping[str, tuple[int, str]]
"""Session: seq and hash of its last event when it was written down."""

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}) (\d{1,9}) ([0-9a-f]{64})")


def read(file: str) -> HeadHashes:
    """Read a file of heads; none is an empty one. Raises UsageError for what is no such file."""
    path = Path(file)
    if not path.exists():
        return {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file of heads {file} cannot be read.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] in found:
            raise UsageError(f"{file}, line {number}: no head, or one of a session that has one already.")
        found[match[1]] = int(match[2]), match[3]
    return found


def write(file: str, heads: HeadHashes) -> None:
    """Write the heads in the order of the sessions' ids, whole or not at all. Raises UsageError."""
    text = "".join(f"{session} {seq} {hash_}\n" for session, (seq, hash_) in sorted(heads.items()))
    path = Path(file).resolve()  # a link stays one
    try:
        there = path.read_text("utf-8") if path.exists() else ""
        text = "".join(f"{line}\n" for line in there.splitlines() if line.startswith("#")) + text
        if there == text:
            return
        write_whole(path, [text])
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error


def check(heads: HeadHashes, session: str, hashes: Mapping[int, str]) -> list[tuple[int, str]]:
    """Return what is wrong with a session, by seq, whose events have these hashes."""
    if session not in heads:
        return []
    seq, kept = heads[session]
    if seq not in hashes:
        return [
            (
                seq,
                f"{session} ended at event {seq} when its head was kept, and has fewer events now: its tail was cut "
                "off.",
            )
        ]
    if hashes[seq] != kept:
        return [(seq, f"{session}:{seq} is not the event whose head was kept: the chain was made again.")]
    return []


def of_chain(heads: HeadHashes, rows: Sequence[tuple[str, int, str]]) -> list[tuple[int, str]]:
    """Return what is wrong with a chain of (session, seq, hash), what it inherits among it: of a parent it need not
    hold all."""
    found: list[tuple[int, str]] = []
    for name in dict.fromkeys(session for session, _, _ in rows):
        own = {seq: hash_ for session, seq, hash_ in rows if session == name}
        if name == rows[-1][0] or heads.get(name, (-1, ""))[0] in own:
            found += check(heads, name, own)
    return found


def absent(heads: HeadHashes, sessions: Iterable[str]) -> list[str]:
    """Return what there is to say of sessions that have a head, and are not there."""
    return [f"Session {name} has a head in the file, and is gone." for name in sorted(set(heads) - {*sessions})]
