"""Head hashes kept elsewhere, fit for a git repository: one line per session, its last event and that event's hash.

The file proves that a session is what it was: a chain that was forged or cut does not have this hash at this event.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from codetape.errors import UsageError
from codetape.runtime.whole_file import write_whole

HeadHashes = Mapping[str, tuple[int, str]]
"""By session: seq and hash of its last event at the time of writing."""

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}) (\d{1,9}) ([0-9a-f]{64})")


def read(file: str) -> HeadHashes:
    """Read a file of heads; a missing file is an empty one. Raises UsageError for a malformed file."""
    path = Path(file)
    if not path.exists():
        return {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file of heads {file} cannot be read.") from error
    heads = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] in heads:
            raise UsageError(f"{file}, line {number}: no head, or one of a session that has one already.")
        heads[match[1]] = int(match[2]), match[3]
    return heads


def write(file: str, heads: HeadHashes) -> None:
    """Write the heads, sorted by session id, whole or not at all. Raises UsageError."""
    text = "".join(f"{session} {seq} {hash_}\n" for session, (seq, hash_) in sorted(heads.items()))
    path = Path(file).resolve()  # write through a symbolic link instead of replacing it
    try:
        # comments stay, at the top; an unchanged file is not touched
        old_text = path.read_text("utf-8") if path.exists() else ""
        text = "".join(f"{line}\n" for line in old_text.splitlines() if line.startswith("#")) + text
        if old_text == text:
            return
        write_whole(path, [text])
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error


def check(heads: HeadHashes, session: str, hashes: Mapping[int, str]) -> list[tuple[int, str]]:
    """Return what is wrong with a session whose events have these hashes, as pairs of seq and message."""
    if session not in heads:
        return []
    seq, expected = heads[session]
    if seq not in hashes:
        return [
            (
                seq,
                f"{session} ended at event {seq} when its head was kept, and has fewer events now: its tail was cut "
                "off.",
            )
        ]
    if hashes[seq] != expected:
        return [(seq, f"{session}:{seq} is not the event whose head was kept: the chain was made again.")]
    return []


def of_chain(heads: HeadHashes, rows: Sequence[tuple[str, int, str]]) -> list[tuple[int, str]]:
    """Return what is wrong with a chain of (session, seq, hash), inherited events included.

    A fork holds its parent's events up to the fork only: a parent whose head lies beyond them is not checked.
    """
    problems: list[tuple[int, str]] = []
    for name in dict.fromkeys(session for session, _, _ in rows):
        own = {seq: hash_ for session, seq, hash_ in rows if session == name}
        if name == rows[-1][0] or heads.get(name, (-1, ""))[0] in own:
            problems += check(heads, name, own)
    return problems


def absent(heads: HeadHashes, sessions: Iterable[str]) -> list[str]:
    """Return a message for each session that has a head in the file, and no longer exists."""
    return [f"Session {name} has a head in the file, and is gone." for name in sorted(set(heads) - {*sessions})]
