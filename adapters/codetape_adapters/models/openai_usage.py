"""A provider's usage as disjoint buckets of tokens."""

from typing import Any

from codetape.domain.usage import Usage

MAX_COUNT = 2**40  # tokens; a larger figure is taken for an error


def usage(raw: dict[str, Any]) -> Usage:
    """Return a provider's usage as disjoint buckets. Cached input is part of prompt_tokens there, and not here."""
    prompt, completion = _count(raw, "prompt_tokens"), _count(raw, "completion_tokens")
    read = _count(raw, "prompt_tokens_details", "cached_tokens")
    write = _count(raw, "prompt_tokens_details", "cache_creation_tokens")
    reasoning = _count(raw, "completion_tokens_details", "reasoning_tokens")
    return Usage(
        input=max(0, prompt - read - write),
        cache_read=read,
        cache_write=write,
        output=max(0, completion - reasoning),
        reasoning=reasoning,
    )


def _count(raw: dict[str, Any], *path: str) -> int:
    value: Any = raw
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return min(max(0, value), MAX_COUNT) if isinstance(value, int) and not isinstance(value, bool) else 0
