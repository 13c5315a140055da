"""Prompt packs: identity, checks, reply schemas."""

import json
from collections.abc import Mapping
from typing import Any

import minijinja

from codetape.domain.canonical import canonical, sha256
from codetape.domain.purposes import PURPOSES
from codetape.errors import TemplateError
from codetape.eventlog.session_state import SessionState
from codetape.prompts import grammar
from codetape.prompts.reply_parser import SHAPES

TEMPLATES = ("system.md", "repair.md", *(f"{row.name}.md" for row in PURPOSES))
MAX_TEMPLATE = 16 << 10  # characters of one template
MAX_SCHEMA = 64 << 10  # of one schema
MAX_FILES = 100


def pack_hash(pack: Mapping[str, str]) -> str:
    """Return a pack's identity: the hash of its files' names and hashes."""
    return sha256(canonical({name: sha256(text) for name, text in pack.items()}))


def check_pack(pack: Mapping[str, str]) -> None:
    """Raise TemplateError, naming the file, where a pack lacks one or one does not parse."""
    if len(pack) > MAX_FILES:
        raise TemplateError(f"The prompt pack has {len(pack)} files.", remedy=f"It may have {MAX_FILES}.")
    schemas = [f"schemas/{purpose}.json" for purpose in SHAPES]
    for name in (*TEMPLATES, *schemas):
        if name not in pack:
            raise TemplateError(f"The prompt pack has no {name}.", remedy="Every purpose needs its file.")
    for name, text in pack.items():
        if name.endswith(".md"):
            _check_template(name, text)
        elif name.endswith(".json"):
            if len(text) > MAX_SCHEMA:
                raise TemplateError(f"{name} in the prompt pack has more than {MAX_SCHEMA} characters.")
            parse_json(name, text)


def _check_template(name: str, text: str) -> None:
    if len(text) > MAX_TEMPLATE:
        raise TemplateError(f"The template {name} has more than {MAX_TEMPLATE} characters.")
    grammar.check(name, text)
    try:
        minijinja.Environment(debug=False).add_template(name, text)
    except minijinja.TemplateError as error:
        raise TemplateError(f"The template {name} does not parse: {error}") from error


def parse_json(name: str, text: str) -> Any:
    """Return a file of a pack as JSON. Raises TemplateError, naming the file."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"{name} in the prompt pack is no JSON: {str(error)[:200]}") from error


def schema_of(session: SessionState, purpose: str) -> dict[str, Any] | None:
    """Return the reply schema of a purpose from the run's pack; None where it answers in a code block."""
    text = session.pack.get(f"schemas/{purpose}.json")
    if text is None or purpose not in SHAPES:
        return None
    schema: dict[str, Any] = parse_json(f"schemas/{purpose}.json", text)
    return schema
