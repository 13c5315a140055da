"""Files that are written whole or not at all."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_whole(path: Path, lines: Iterable[str], *, private: bool = False) -> int:
    """Write a file through one beside it that takes its place; return its bytes. A link stays one, and a file keeps its
    mode; a new one that is ``private`` is read by its user alone.

    What is no regular file (a pipe, a device) is written to as it is. Raises OSError, and leaves what was there.
    """
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="\n") as out:
            return _all(out.write, lines)
    target = path.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600 if private else 0o666 & ~_umask()
    with NamedTemporaryFile(
        "w", encoding="utf-8", newline="\n", dir=target.parent, prefix=".codetape-", delete=False
    ) as out:
        fresh = Path(out.name)
        try:
            size = _all(out.write, lines)
            out.flush()
            fresh.chmod(mode)
            fresh.replace(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        return size


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
