"""The file that is open, and whether it is still what lies at the path: a database that was moved or deleted is written on in vain."""

import os
from pathlib import Path
from threading import Lock

from codetape.errors import StoreError

_STATES = {"T": ", which is stopped", "t": ", which is stopped by a debugger", "D": ", which waits for the disk"}


class OpenFile:
    """What lay at a path, and at its log's, when it was opened. One a store, whatever its connections."""

    __slots__ = ("_lock", "_log", "_main", "_path", "_size")

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._main, self._size = _identity(path)
        self._log: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise StoreError where another file, or none, is at the path; before a call is paid whose reply would be lost."""
        with self._lock:  # a file that grows while two threads look was not cut off
            self._compare()

    def _compare(self) -> None:
        main, size = _identity(self._path)
        if main != self._main or size < self._size:
            raise self._gone(main)
        self._size = size
        log, _ = _identity(Path(f"{self._path}-wal"))
        if self._log is not None and log != self._log:
            raise StoreError(
                f"The log of {self._path} ({self._path.name}-wal) was removed or replaced while it was in use.",
                remedy="What was written since the last checkpoint was in it: put it back, then resume.",
            )
        self._log = log

    def _gone(self, now: tuple[int, int] | None) -> StoreError:
        if now == self._main:
            return StoreError(f"{self._path} was cut off while it was in use.", remedy="Put it back, then resume.")
        what = "was deleted or moved" if now is None else "was replaced"
        place = _place_of(self._main)
        return StoreError(
            f"{self._path} {what} while it was in use" + (f": it is at {place} now." if place else "."),
            remedy="Put it back, with the files beside it whose names begin as its does; then resume.",
        )


def _identity(path: Path) -> tuple[tuple[int, int] | None, int]:
    try:
        found = path.stat()
    except OSError:
        return None, 0
    return (found.st_dev, found.st_ino), found.st_size


def _place_of(identity: tuple[int, int] | None) -> str:
    """Return where an open file of this process lies now; empty where that is not known, or nowhere."""
    folder = Path("/proc/self/fd")
    try:
        numbers = [*folder.iterdir()]
    except OSError:
        return ""
    for number in numbers:
        try:
            found, place = number.stat(), str(number.readlink())
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == identity and not place.endswith(" (deleted)"):
            return place
    return ""


def holder(path: Path) -> str:
    """Say which process holds a database's write lock; empty where that is not known."""
    locked, _ = _identity(Path(f"{path}-shm"))
    try:
        lines = Path("/proc/locks").read_text("utf-8").splitlines() if locked else []
    except OSError:
        return ""
    for line in lines:
        words = line.split()
        if len(words) < 6 or "WRITE" not in words or words[5].rpartition(":")[2] != str(locked[1] if locked else ""):
            continue
        pid = words[4]
        try:
            said = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
            name, state = said[said.index("(") + 1 : said.rindex(")")], said[said.rindex(")") + 2]
        except (OSError, ValueError, IndexError):
            continue
        if pid != str(os.getpid()):
            return f"process {pid} ({name}){_STATES.get(state, '')}"
    return ""
