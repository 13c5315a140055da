"""A provider's usage as disjoint buckets of tokens, held against its own total and against our estimate."""

from typing import Any

from codetape.domain.model_request import ModelRequest
from codetape.domain.usage import Usage

MAX_COUNT = 2**40  # tokens; a larger figure is taken for an error
_MAX_BEYOND = 4  # times the output limit: a total further beyond the sum is an error

_PROMPT = (("prompt_tokens",), ("input_tokens",))
_COMPLETION = (("completion_tokens",), ("output_tokens",))
_CACHE_READ = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),
    ("cache_read_input_tokens",),
    ("cached_tokens",),
    ("prompt_tokens_details", "cache_read_tokens"),
)
_CACHE_WRITE = (
    ("prompt_tokens_details", "cache_creation_tokens"),
    ("prompt_tokens_details", "cache_write_tokens"),
    ("cache_creation_input_tokens",),
    ("cache_write_tokens",),
)
_REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
)


def usage(raw: Any, request: ModelRequest, text: str, *, cache_beside: bool = False) -> Usage:
    """Return a reply's usage. What a provider leaves out, or what cannot be, is estimated, and all of it is marked so.

    Cached input is part of the input here and beside it there, reasoning likewise of the output; which of the two holds
    for reasoning is told by the total. ``cache_beside`` says that this API counts it beside.
    """
    raw = raw if isinstance(raw, dict) else {}
    prompt, completion = _first(raw, _PROMPT), _first(raw, _COMPLETION)
    read, write = _first(raw, _CACHE_READ) or 0, _first(raw, _CACHE_WRITE) or 0
    reasoning, total = _first(raw, _REASONING) or 0, _count(raw, ("total_tokens",))
    estimated = False
    if completion is None or (completion == 0 and text and not reasoning):
        completion, estimated = len(text) // 4 + 1, True
    if not prompt and total is not None and total > completion:
        prompt = total - completion
    if not prompt and not read + write:
        prompt, estimated = request.input_estimate, True
    prompt = prompt or 0
    if cache_beside or read + write > prompt:  # counted beside the prompt, not as part of it
        prompt += read + write
    beyond = total - prompt - completion if total is not None and not estimated else 0
    if not 0 < beyond <= _MAX_BEYOND * request.max_output_tokens:
        beyond = 0
    if reasoning <= beyond or reasoning > completion:  # beside the completion; or thinking that only the total holds
        output, reasoning = completion, max(reasoning, beyond)
    else:
        output = completion - reasoning
    return Usage(
        input=prompt - read - write,
        cache_read=read,
        cache_write=write,
        output=output,
        reasoning=reasoning,
        source="estimated" if estimated else "provider",
    )


def _first(raw: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> int | None:
    """Return the first count that is there and not 0; 0 where all are; None where none is."""
    counts = [count for path in paths if (count := _count(raw, path)) is not None]
    return next((count for count in counts if count), counts[0] if counts else None)


def _count(raw: dict[str, Any], path: tuple[str, ...]) -> int | None:
    value: Any = raw
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_COUNT else None
