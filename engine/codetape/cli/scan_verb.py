"""codetape scan."""

import asyncio
from collections.abc import Iterator
from typing import Any

import click

from codetape.cli.filters import corpus_of, filters
from codetape.cli.options import as_json, database, own_patterns, redacting
from codetape.cli.text import say, say_json


@click.command("scan")
@filters("--of-model")
@redacting
@database
@as_json
def command(**given: Any) -> int:
    """Look for keys in a database or in tapes, and say where they are, without printing them.

    Known forms of keys, the patterns of [tool.codetape.redact] and those of --redact. Found: exit 100.
    """
    found = list(_found({**given, "forks": True}))
    if given["as_json"]:
        say_json({"found": found})
        return 100 if found else 0
    for one in found:
        say(f"{one['name']}:{one['seq']} {one['kind']}, {one['field']}: {one['what']}, {one['times']} times")
    say(f"{len(found)} places hold what looks like a key" if found else "Nothing that looks like a key.")
    return 100 if found else 0


def _found(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from codetape.redaction import KEY_PATTERNS, read_patterns

    patterns = {**KEY_PATTERNS, **read_patterns(own_patterns(given))}
    seen: set[str] = set()
    for name, stream in asyncio.run(_streams(given)):
        for event in stream.events:
            for field, text in _texts(event, stream, seen):
                for what, pattern in patterns.items():
                    if times := len(pattern.findall(text)):
                        yield {
                            "name": name,
                            "seq": event.seq,
                            "kind": event.kind,
                            "field": field,
                            "what": what,
                            "times": times,
                        }


async def _streams(given: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(member.name, stream) async for member, stream in corpus_of(given).members()]


def _texts(event: Any, stream: Any, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield an event's own payload and the texts that it is the first to refer to."""
    from codetape.events import refs

    yield "payload", event.stored_payload
    for ref in refs(event.payload):
        if ref not in seen and ref in stream.texts:
            seen.add(ref)
            yield f"text {ref[:12]}", stream.texts[ref]
