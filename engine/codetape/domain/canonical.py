"""One spelling for every value: canonical JSON, and content hashes."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from json.encoder import encode_basestring
from typing import Any

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: Any) -> str:
    """Return the one JSON text for a plain value: keys sorted, no blanks, no NaN, characters unescaped."""
    return encode_basestring(value) if type(value) is str else _encode(value)


def canonical_without_floats(value: Any) -> str:
    """As `canonical`, in a sixth of the time, for a plain value that is known by its type to hold no float, and to have
    texts for keys: the two write some floats differently."""
    try:
        return _fast()(value).decode()
    except (ValueError, OverflowError, TypeError):  # a lone surrogate, an integer of more than 64 bits, a subclass
        return _encode(value)


@cache
def _fast() -> Callable[[Any], bytes]:
    from msgspec.json import Encoder  # not for the commands that show what SQL answers

    return Encoder(order="sorted").encode


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
