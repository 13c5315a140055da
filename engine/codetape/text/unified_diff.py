"""Differences of texts, bounded: the time of a comparison by lines grows with the square of what differs."""

import difflib

MAX_LINES = 3_000  # of each side


def unified(old: str, new: str, names: tuple[str, str] = ("", "")) -> str:
    """Return a unified diff, with a header where names are given; empty where the texts are the same."""
    if old == new:
        return ""
    before, after = old.splitlines(), new.splitlines()
    if max(len(before), len(after)) > MAX_LINES:
        return f"({len(before):,} and {len(after):,} lines: too many to compare line by line)"
    lines = list(difflib.unified_diff(before, after, *names, lineterm="", n=2))
    return "\n".join(lines if any(names) else lines[2:])
