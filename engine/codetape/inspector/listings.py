"""Code and differences as markup: highlighted Python, and lines of a unified diff, alone or side by side."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from codetape.inspector.rendering import markup
from codetape.text.escape import shown

MAX_HIGHLIGHTED, MAX_LINE = 100_000, 400  # characters; more is shown plain: a lexer may take the square of a line
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")


def python(text: str) -> Any:
    """Return Python code as highlighted markup."""
    clean = shown(text)
    if len(clean) > MAX_HIGHLIGHTED or max(map(len, clean.splitlines()), default=0) > MAX_LINE:
        return markup(escape(clean))
    from pygments import highlight
    from pygments.formatters.html import HtmlFormatter
    from pygments.lexers.python import PythonLexer

    return markup(highlight(clean, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)))


def marked(left: str, right: str) -> tuple[Any, Any]:
    """Return two values as markup in which the part that differs is marked: what both begin and end with is not."""
    least = min(len(left), len(right))
    start = next((n for n in range(least) if left[n] != right[n]), least)
    end = next((n for n in range(least - start) if left[-1 - n] != right[-1 - n]), least - start)
    if not start and not end:
        return markup(escape(shown(left))), markup(escape(shown(right)))

    def one(text: str) -> Any:
        stop = len(text) - end
        parts = [escape(shown(part)) for part in (text[:start], text[start:stop], text[stop:])]
        return markup(f"{parts[0]}<mark>{parts[1]}</mark>{parts[2]}" if parts[1] else "".join(parts))

    return one(left), one(right)


@dataclass(frozen=True)
class DiffLine:
    """A line of a unified diff: what became of it (add, del, same, hunk), its numbers on both sides, its text."""

    kind: str
    old: int | None
    new: int | None
    text: str


def diff_lines(unified: str) -> list[DiffLine]:
    """Return the lines of a unified diff without a header of names."""
    lines, old, new = [], 1, 1
    for line in unified.splitlines():
        sign, text = line[:1], line[1:]
        if match := _HUNK.match(line):
            old, new = int(match[1]), int(match[2])
            lines.append(DiffLine("hunk", None, None, line))
        elif sign == "+":
            lines.append(DiffLine("add", None, new, text))
            new += 1
        elif sign == "-":
            lines.append(DiffLine("del", old, None, text))
            old += 1
        else:
            lines.append(DiffLine("same", old, new, text))
            old, new = old + 1, new + 1
    return lines


def side_by_side(unified: str) -> list[tuple[DiffLine | None, DiffLine | None]]:
    """Return a unified diff as pairs of lines: what was, and what is instead; None where a side has nothing."""
    return list(_pairs(diff_lines(unified)))


def _pairs(lines: list[DiffLine]) -> Iterator[tuple[DiffLine | None, DiffLine | None]]:
    gone: list[DiffLine] = []
    come: list[DiffLine] = []
    for line in [*lines, DiffLine("end", None, None, "")]:
        if line.kind == "del" and not come:
            gone.append(line)
        elif line.kind == "add":
            come.append(line)
        else:
            for number in range(max(len(gone), len(come))):
                yield (
                    gone[number] if number < len(gone) else None,
                    come[number] if number < len(come) else None,
                )
            gone, come = ([line], []) if line.kind == "del" else ([], [])
            if line.kind in ("same", "hunk"):
                yield line, line
