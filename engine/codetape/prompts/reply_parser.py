"""What a model must answer with, and how an answer is read: into values, or into `Unusable` with the reason.

The words of an `Unusable` are ours and name a position: nothing of Python's or a library's own wording
enters a later request, because it changes between versions.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from codetape.domain.frozen_model import FrozenModel
from codetape.domain.purposes import PURPOSES
from codetape.rules.pytest_source import defined_names, functions, imported_from_solution, names
from codetape.rules.source_tree import tree_of

SHAPES: dict[str, type[FrozenModel]] = {row.name: row.shape for row in PURPOSES if row.shape is not None}
"""Purposes that are answered by JSON. The others answer with one fenced block of Python."""
MAX_REPLY = 400_000  # characters; a larger reply is no script


@dataclass(frozen=True)
class Unusable:
    """A reply that cannot be used: ``reason`` is a code, ``detail`` what to say of it to the model."""

    reason: str
    detail: str


def schema_for(purpose: str) -> dict[str, Any]:
    """Return the JSON schema of a purpose's reply, in the strict subset: everything required, nothing extra."""
    schema: dict[str, Any] = _strict(SHAPES[purpose].model_json_schema())
    return schema


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    dropped = ("title", "default", "pattern", "description")
    kept = {k: _strict(v) for k, v in node.items() if k not in dropped or not isinstance(v, str | int | list | None)}
    if "properties" in kept:
        kept["required"] = sorted(kept["properties"])
    return kept


def arrived(text: str | None, refusal: str, finish_reason: str) -> str | Unusable:
    """Return the text of a reply that is whole, or why there is none."""
    if refusal:
        return Unusable("refusal", "The reply was a refusal.")
    if finish_reason == "length":
        return Unusable("cut_off", "The reply was cut off at the output limit: answer in full, and shorter.")
    if finish_reason == "content_filter":
        return Unusable("refusal", "The reply was withheld by a content filter.")
    if text is None or not text.strip():
        return Unusable("empty", "The reply was empty.")
    if len(text) > MAX_REPLY:
        return Unusable("too_long", f"The reply had more than {MAX_REPLY} characters.")
    return text


def read_json(purpose: str, text: str) -> FrozenModel | Unusable:
    """Read a JSON reply. A single fence around the object is forgiven; nothing else is."""
    body = text.strip()
    if body.startswith("```"):
        fenced = fenced_blocks(body)
        if not isinstance(fenced, Unusable) and len(fenced) == 1:
            body = fenced[0]
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Unusable("not_json", "The reply is not one JSON object. Answer with the object alone.")
    try:
        return SHAPES[purpose].model_validate(value)
    except ValidationError as error:
        where = sorted({".".join(str(part) for part in e["loc"]) or "the object" for e in error.errors()})
        return Unusable("shape", f"The JSON does not have the asked shape at: {', '.join(where[:8])}.")


def _no_constant(name: str) -> None:
    raise ValueError(name)


_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$")


def fenced_blocks(text: str) -> list[str] | Unusable:
    """Return the contents of a text's fenced blocks. A block ends at a bare fence at least as long as its first."""
    found: list[str] = []
    fence, lines = "", list[str]()
    for line in text.replace("\r\n", "\n").split("\n"):
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, lines = match.group(1), []
        elif match and match.group(1).startswith(fence) and not match.group(2).strip():
            found.append("\n".join(lines) + "\n")
            fence = ""
        else:
            lines.append(line)
    if fence:
        return Unusable("open_block", "The code block was opened and never closed.")
    return found


def read_block(text: str) -> str | Unusable:
    """Return the content of exactly one closed fenced block, or why there is none."""
    blocks = fenced_blocks(text)
    if isinstance(blocks, Unusable):
        return blocks
    if not blocks:
        return Unusable("no_block", "There was no fenced code block: answer with exactly one.")
    if len(blocks) > 1:
        return Unusable("several_blocks", f"There were {len(blocks)} fenced code blocks: answer with exactly one.")
    return python(blocks[0])


def python(source: str) -> str | Unusable:
    """Return source that parses, or where it does not."""
    try:
        tree_of(source)
    except SyntaxError as error:
        return Unusable("syntax", f"Line {error.lineno or 1} of the code is no valid Python.")
    except (ValueError, RecursionError, MemoryError):
        return Unusable("syntax", "The code is no valid Python.")
    return source if source.strip() else Unusable("empty", "The code block was empty.")


def read_code(text: str, required: Iterable[str]) -> str | Unusable:
    """Read a script; every required name must be defined at module level."""
    code = read_block(text)
    if isinstance(code, Unusable):
        return code
    missing = [name for name in required if name not in defined_names(code)]
    if missing:
        return Unusable("interface", f"The module does not define at its top level: {', '.join(missing)}.")
    return code


def read_tests(text: str, offered: Iterable[str]) -> str | Unusable:
    """Read a test file: it holds tests, and takes from the solution only what the interface offers."""
    source = read_block(text)
    if isinstance(source, Unusable):
        return source
    if not names(source):
        return Unusable("no_tests", "The file defines no test function.")
    if repeated := sorted({n for n in names(source) if names(source).count(n) > 1}):
        return Unusable("repeated", f"Tests are defined twice, so only the last would run: {', '.join(repeated)}.")
    allowed = set(offered)
    unknown = [name for name in imported_from_solution(source) if name not in allowed]
    if allowed and unknown:
        return Unusable("interface", f"The tests import what the interface does not offer: {', '.join(unknown)}.")
    return source


def read_patches(text: str, wanted: Iterable[str]) -> str | Unusable:
    """Read fixed tests: a block whose functions replace those of the same name. Other tests must not be in it."""
    block = read_block(text)
    if isinstance(block, Unusable):
        return block
    found = {f.name for f in functions(block)}
    if not found:
        return Unusable("no_tests", "The block holds no test function.")
    if extra := sorted(found - set(wanted)):
        return Unusable("patch_extra", f"The block changes tests that are not at fault: {', '.join(extra)}.")
    return block
