"""Replies in the forms that models use, brought into the one that was asked for where nothing is in doubt.

A reply is looked through for everything that could be meant: fenced blocks, objects within prose. The one that fits
what was asked for is taken; where none fits, or several do that differ, the reply stays as it came, and the strict
reader says what is wrong with it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from codetape.prompts.fences import FENCE, closes
from codetape.prompts.reply_parser import SHAPES
from codetape.prompts.thoughts import split
from codetape.rules.source_tree import tree_of

MAX_FENCES = 200  # lines that look like fences; a reply with more is read strictly
MAX_LOOKED_THROUGH = 1_500_000  # characters, over all that is tried; a reply has 400,000 at most
_PYTHON = frozenset({"", "python", "python3", "py", "py3", "python-code", "code", "text", "plaintext", "txt"})

Fits = Callable[[str], bool]
"""Whether source is what was asked for."""


def as_json(purpose: str, text: str) -> str:
    """Return the one JSON object in a reply that has the purpose's shape, or the reply as it is."""
    body = split(text).answer
    shaped, others = list[str](), dict[int, str]()
    for start, value in _objects(body):
        cleaned = _shaped(purpose, value)
        if cleaned is None:
            others[start] = json.dumps(value, ensure_ascii=False)
        elif (found := json.dumps(cleaned, ensure_ascii=False)) not in shaped:
            shaped.append(found)
    if len(shaped) == 1:
        return shaped[0]
    whole = others.get(body.find("{"))  # not a part of an object that does not end
    return whole if whole and not shaped and len(others) == 1 else text


def as_block(text: str, fits: Fits) -> str:
    """Return the one block of Python in a reply that fits, in a fence of its own, or the reply as it is."""
    text = split(text).answer.replace("\r\n", "\n").replace("\r", "\n")
    blocks = list(dict.fromkeys(code for code in _blocks(text) if fits(code)))
    if not blocks and _is_python(text) and fits(text):  # no prose is Python that defines what was asked for
        blocks = [text]
    return fenced(blocks[0]) if len(blocks) == 1 else text


def fenced(code: str) -> str:
    """Return source in a fence that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}python\n{code.rstrip(chr(10))}\n{fence}\n"


# ---- Python


def _blocks(text: str) -> Iterator[str]:
    """Yield the blocks of Python of a text. A block ends where what it holds is Python: a fence may stand in a string."""
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE.match(line)]
    if len(fences) > MAX_FENCES:
        return
    number, left = 0, MAX_LOOKED_THROUGH
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if opened is None:
            number += 1
            continue
        ends = [n for n in range(number + 1, len(lines)) if _may_close(lines[n], opened["fence"])]
        following = ends[0] + 1 if ends else len(lines)
        if opened["info"].strip().lower().partition(" ")[0].strip("{}.") in _PYTHON:
            for end in ends:
                code = _dedented(lines[number + 1 : end], lines[end], opened)
                left -= len(code)
                if left < 0:
                    return
                if _is_python(code):
                    yield code
                    following = end + 1
                    break
        number = following


def _may_close(line: str, fence: str) -> bool:
    """Whether a line ends a block, by itself or glued to the block's last line."""
    return closes(line, fence) or (line.rstrip().endswith(fence) and not FENCE.match(line))


def _dedented(inside: list[str], last: str, opened: re.Match[str]) -> str:
    """Return a block's content: without the fence's own indentation, and with what is glued to the closing fence."""
    fence, indent = opened["fence"], opened["indent"]
    glued = "" if closes(last, fence) else last.rstrip().removesuffix(fence)
    lines = [line.removeprefix(indent) for line in (*inside, *([glued] if glued else []))]
    return "\n".join(lines).removeprefix("\ufeff") + "\n"


def _is_python(source: str) -> bool:
    try:
        return bool(tree_of(source).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


# ---- JSON


def _objects(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON objects of a text that stand in no other one, leniently read."""
    decoder = json.JSONDecoder(strict=False, parse_constant=_no_constant)
    start, left = text.find("{"), MAX_LOOKED_THROUGH
    while start >= 0 and left > 0:
        end = _end_of_object(text, start)
        left -= (end or len(text)) - start
        if end is None:
            start = text.find("{", start + 1)
            continue
        try:
            value = decoder.decode(_without_trailing_commas(text[start:end]))
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(value, dict):
            yield start, value
        start = text.find("{", end)


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}]', re.DOTALL)
_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+")|,(?=\s*[}\]])', re.DOTALL)


def _end_of_object(text: str, start: int) -> int | None:
    """Return where the object that begins at ``start`` ends; None where it does not."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None


def _without_trailing_commas(text: str) -> str:
    return _STRING_OR_COMMA.sub(lambda match: match[1] or "", text)


def _no_constant(_name: str) -> None:
    """Read NaN and infinities as null: they are no JSON, and what holds them may be a field that nobody asked for."""


def _shaped(purpose: str, value: dict[str, Any]) -> dict[str, Any] | None:
    """Return an object in the purpose's shape; None where it has another. One key around it is taken off."""
    inner = next(iter(value.values())) if len(value) == 1 else None
    candidates: Iterable[Any] = (value, inner) if isinstance(inner, dict) else (value,)
    for candidate in candidates:
        cleaned = _without_extras(purpose, candidate)
        if cleaned is not None:
            return cleaned
    return None


def _without_extras(purpose: str, value: dict[str, Any]) -> dict[str, Any] | None:
    """Return an object without fields that nobody asked for, and without nulls for what may be missing."""
    value = json.loads(json.dumps(value))
    for _ in range(2):
        try:
            SHAPES[purpose].model_validate(value)
        except ValidationError as error:
            wrong = [(e["loc"], e) for e in error.errors()]
            if not all(e["type"] == "extra_forbidden" or e["input"] is None for _, e in wrong):
                return None
            for place, _ in wrong:
                _drop(value, place)
        except RecursionError:
            return None
        else:
            return value
    return None


def _drop(value: Any, place: tuple[int | str, ...]) -> None:
    for part in place[:-1]:
        value = value[part]
    value.pop(place[-1])
