"""Validation errors in one line."""

from __future__ import annotations

from pydantic import ValidationError


def reason_of(error: Exception) -> str:
    """Return what is wrong with a value in one line: the first of several errors."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return " ".join(str(error).split())[:300] or type(error).__name__
