"""Files that are written whole or not at all."""

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path


def write_whole(path: Path, lines: Iterable[str], *, private: bool = False) -> int:
    """Write a file through one beside it that takes its place; return its bytes. A link stays one, and a file keeps its
    mode; a new one that is ``private`` is read by its user alone.

    What is no regular file (a pipe, a device) is written to as it is. Raises OSError, and leaves what was there.
    """
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="\n") as out:
            return _all(out.write, lines)
    target = path.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600 if private else None
    return put_whole(target, lines, mode)


def put_whole(target: Path, lines: Iterable[str], mode: int | None = None) -> int:
    """Write a file in the place of what has its name, be that a link; return its bytes. Without a ``mode`` it gets that of
    any new file. Raises OSError, and leaves what was there."""
    mode = 0o666 & ~_umask() if mode is None else mode
    number, fresh = _unnamed(target.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="\n") as out:
            size = _all(out.write, lines)
            out.flush()
            os.fchmod(number, mode)
            if not fresh.exists():
                os.link(
                    f"/proc/self/fd/{number}", fresh, src_dir_fd=number, follow_symlinks=True
                )  # with a descriptor: linkat, which follows
            fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return size


def _unnamed(folder: Path) -> tuple[int, Path]:
    """Open a new file in a folder that has no name yet, so that a kill leaves nothing of it; and the name that it gets
    when it is whole. Where that cannot be, it has the name at once."""
    fresh = folder / f".codetape-{secrets.token_hex(8)}"
    try:
        if not Path("/proc/self/fd").exists():
            raise OSError
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), fresh
    except (OSError, AttributeError):  # a file system, or a system, without them
        return os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), fresh


def _all(write: Callable[[str], object], lines: Iterable[str]) -> int:
    size = 0
    for line in lines:
        write(line)
        size += len(line.encode("utf-8", "surrogatepass"))
    return size


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
