"""Reading files that a person names: regular ones, of bounded size, in UTF-8."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codetape.errors import UsageError

MAX_TEXT = 8 << 20  # bytes


@contextmanager
def opened_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file to read. Raises OSError, and UsageError for a pipe or a device, which may never end."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # without this flag a pipe waits for a writer
    with os.fdopen(number, "rb") as file:
        kind = os.fstat(number).st_mode
        if stat.S_ISDIR(kind):
            raise UsageError(f"{path} is a folder.", remedy="Name a file in it.")
        if not stat.S_ISREG(kind):
            raise UsageError(f"{path} is no regular file.", remedy="Write what it holds into one.")
        yield file


def read_text_file(path: Path, what: str = "", *, most: int = MAX_TEXT) -> str:
    """Return a text file's content; ``what`` names it in messages. Raises UsageError."""
    name = what or str(path)
    try:
        with opened_file(path) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a zero byte in its name
        raise UsageError(f"{name} cannot be read: {error}.") from error
    if len(content) > most:
        raise UsageError(f"{name} is larger than {most >> 10} KB.")
    try:
        return content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is no text: it is not UTF-8.") from error
