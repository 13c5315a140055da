"""Test output without what changes from run to run."""

import re
from functools import lru_cache

_VOLATILE = (
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "0x…"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|seconds)\b(?=[ ,)=]|$)"), "N s"),
    (re.compile(r"/tmp/[\w./-]+"), "/tmp/…"),  # noqa: S108 - a pattern, not a place
)


@lru_cache(256)
def normalise(text: str) -> str:
    """Return test output without what changes from run to run: addresses, durations, temporary paths."""
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return text
