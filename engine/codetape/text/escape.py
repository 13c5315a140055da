"""Escaping of control and direction-changing characters: what came from outside is shown, never obeyed."""

import json
import re
import unicodedata
from typing import Any

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufdd0-\ufdef"
    "\ufffe\uffff\U000e0000-\U000e007f]"
)


def shown(value: object) -> str:
    """Return a value as text in which control and direction-changing characters are spelled out."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(value))


def safe(text: str) -> str:
    """Return the text with control and direction-changing characters spelled out; tabs and line breaks stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not hidden(c) else f"\\x{ord(c):02x}" for c in text)


def hidden(character: str) -> bool:
    """Whether a terminal would obey a character, or hide it."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")


def json_text(value: Any) -> str:
    """Return a value as JSON in which nothing reaches a terminal that it would obey."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isascii() and text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if hidden(c) else c for c in text)


def first_line(text: str, width: int = 100) -> str:
    """Return a text's first line, cut to a width."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= width else line[: width - 1] + "…"
