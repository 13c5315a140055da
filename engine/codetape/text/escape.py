"""Escaping of control and direction-changing characters: what came from outside is shown, never obeyed."""

import unicodedata
from typing import Any


def shown(value: object) -> str:
    """Return a value as text in which control and direction-changing characters are spelled out."""
    return safe(str(value))


def safe(text: str) -> str:
    """Return the text with control and direction-changing characters spelled out; tabs and line breaks stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not hidden(c) else f"\\x{ord(c):02x}" for c in text)


def hidden(character: str) -> bool:
    """Whether a terminal would obey a character, or hide it."""
    code = ord(character)
    nonsense = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE  # noncharacters: XML has none of them
    return nonsense or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")


def json_text(value: Any) -> str:
    """Return a value as JSON in which nothing reaches a terminal that it would obey."""
    import json  # not for a command's help

    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isascii() and text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if hidden(c) else c for c in text)


def first_line(text: str, width: int = 100) -> str:
    """Return a text's first line, cut to a width."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= width else line[: width - 1] + "…"
