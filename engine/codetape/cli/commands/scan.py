"""codetape scan."""

import json
from collections.abc import Iterator
from typing import Any

import click

from codetape.cli.options import RedactOptions, as_json, database, own_patterns, redacting, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters


class ScanOptions(FilterOptions, RedactOptions):
    """The options."""


@click.command("scan")
@filters()
@redacting
@database
@as_json
@typed(ScanOptions)
def command(options: ScanOptions) -> int:
    """Look for keys in a database or in tapes, and say where they are, without printing them.

    Known forms of keys, the patterns of [tool.codetape.redact] and those of --redact. Found: exit 100.
    """
    places = list(_places(options))
    if options.as_json:
        say_json({"found": places})
        return 100 if places else 0
    for place in places:
        say(
            f"{place['name']}:{place['seq']} {place['kind']}, {place['field']}: {place['what']}, {place['times']} times"
        )
    say(f"{len(places)} places hold what looks like a key" if places else "Nothing that looks like a key.")
    return 100 if places else 0


def _places(options: ScanOptions) -> Iterator[dict[str, Any]]:
    from codetape.api.exports import members
    from codetape.runtime.redaction import KEY_PATTERNS, read_patterns

    patterns = {**KEY_PATTERNS, **read_patterns(own_patterns(options))}
    seen: set[str] = set()
    for member, stream in members(*options.sources, store=options.db, where=options.where):
        for event in stream.events:
            for field, text in _texts(event, stream, seen):
                for key_kind, pattern in patterns.items():
                    if times := sum(len(pattern.findall(part)) for part in _parts(text)):
                        yield {
                            "name": member.name,
                            "seq": event.seq,
                            "kind": event.kind,
                            "field": field,
                            "what": key_kind,
                            "times": times,
                        }


def _parts(text: str) -> list[str]:
    """Return the text itself or, for JSON, its decoded strings: patterns may depend on real line breaks."""
    try:
        value = json.loads(text) if text[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        value = None
    return list(_strings(value)) if value is not None else [text]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _texts(event: Any, stream: Any, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield an event's payload and the blobs that it is the first to refer to."""
    from codetape.eventlog.events import refs

    yield "payload", event.stored_payload
    for ref in refs(event.payload):
        if ref not in seen and ref in stream.texts:
            seen.add(ref)
            yield f"text {ref[:12]}", stream.texts[ref]
