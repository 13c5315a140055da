"""Tokens of one call."""

from typing import Literal

from pydantic import Field

from codetape.domain.frozen_model import FrozenModel

MAX_TOKENS = 2**53
"""The limit of one bucket: more is an error of the server, and a database column has only 64 bits."""


class Usage(FrozenModel):
    """Tokens of one call, in disjoint buckets. ``source`` tells the provider's figures from an estimate."""

    input: int = Field(default=0, strict=True, ge=0, le=MAX_TOKENS)
    cache_read: int = Field(default=0, strict=True, ge=0, le=MAX_TOKENS)
    cache_write: int = Field(default=0, strict=True, ge=0, le=MAX_TOKENS)
    output: int = Field(default=0, strict=True, ge=0, le=MAX_TOKENS)
    reasoning: int = Field(default=0, strict=True, ge=0, le=MAX_TOKENS)
    source: Literal["provider", "estimated"] = "provider"

    @property
    def total_input(self) -> int:
        """All input tokens, cached ones included."""
        return self.input + self.cache_read + self.cache_write

    @property
    def total_output(self) -> int:
        """All output tokens, reasoning included."""
        return self.output + self.reasoning
