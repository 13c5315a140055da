"""The frozen base of all models, and the types of their commonest fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hex: of a text (a blob's name), or of an event."""
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
"""How many of something, or a time in milliseconds: no boolean, and no more than a column of a database holds."""


class FrozenModel(BaseModel):
    """A value: immutable, and closed to fields that it does not know. Its validator is built when it is first used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
