"""One spelling for every value: canonical JSON, content hashes, and the frozen base of all models."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hex: of a text (a blob's name), or of an event."""
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
"""How many of something, or a time in milliseconds: no boolean, and no more than a column of a database holds."""


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class FrozenModel(BaseModel):
    """A value: immutable, and closed to fields that it does not know. Its validator is built when it is first used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def canonical(value: Any) -> str:
    """Return the one JSON text for a plain value: keys sorted, no blanks, no NaN, characters unescaped."""
    return _encode(value)


def sha256(text: str) -> str:
    """Return the hash of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def well_formed(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 cannot carry, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
