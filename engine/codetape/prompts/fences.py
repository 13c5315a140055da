"""Fenced blocks of Markdown, and which lines of a text stand outside of them."""

import re
from collections.abc import Iterator

FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")


def closes(line: str, fence: str) -> bool:
    """Whether a line ends the block that such a fence opened."""
    match = FENCE.match(line)
    return match is not None and match["fence"].startswith(fence) and not match["info"].strip()


def outside_fences(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line outside of fenced blocks, with its position in the text."""
    position, fence = 0, ""
    for line in text.splitlines(keepends=True):
        match = FENCE.match(line.rstrip("\r\n"))
        if not fence and match:
            fence = match["fence"]
        elif fence and closes(line.rstrip("\r\n"), fence):
            fence = ""
        elif not fence:
            yield position, line
        position += len(line)
