"""A session's events and texts as one portable file, and back: canonical JSON lines, checked as they are read.

The first line is a header, then each event in order, then each text once, by its hash. The same session
gives the same bytes. A tape is untrusted: its size, hashes, chain and every reference are checked.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from codetape.canonical import canonical, sha256
from codetape.chain import Event, check_chain, unseal
from codetape.errors import CorruptTape, UsageError
from codetape.events import Answered, BuildFinished, BuildRefused, Requested, TestsFinished
from codetape.fold import fold
from codetape.ports import Stream
from codetape.run import Run

FORMAT = 1
MAX_LINE = 16 << 20  # bytes
MAX_TAPE = 256 << 20  # bytes


@dataclass(frozen=True)
class Tape:
    """A tape's stream, and the state that it folds to."""

    session: str
    stream: Stream
    run: Run


def write(session: str, stream: Stream) -> Iterator[str]:
    """Yield a tape's lines, each with its line break."""
    texts = dict(sorted(stream.texts.items()))
    head = {"codetape": FORMAT, "session": session, "events": len(stream.events), "texts": len(texts)}
    yield canonical(head) + "\n"
    for event in stream.events:
        yield (
            f'{{"event":{{"at":{canonical(event.at)},"hash":"{event.hash}","kind":{canonical(event.kind)},'
            f'"payload":{event.stored_payload},"prev_hash":"{event.prev_hash}","seq":{event.seq},'
            f'"session":{canonical(event.session)},"version":{event.stored_version}}}}}\n'
        )
    for text in texts.values():
        yield canonical({"text": text}) + "\n"


def read(lines: Iterable[str], *, name: str = "the tape") -> Tape:
    """Read a tape whole, or raise CorruptTape with the line and the reason; nothing is taken from a bad one."""
    events: list[Event] = []
    texts: dict[str, str] = {}
    head: dict[str, Any] = {}
    size = number = 0
    for number, line in enumerate(lines, 1):
        size += len(line)
        if len(line) > MAX_LINE or size > MAX_TAPE:
            raise CorruptTape(f"{name}, line {number}: larger than a tape may be.")
        value = _value(line, name, number)
        if number == 1:
            head = _head(value, name)
        elif "event" in value and not texts:
            events.append(_event(value["event"], name, number))
        elif isinstance(value.get("text"), str):
            texts[sha256(value["text"])] = value["text"]
        else:
            raise CorruptTape(f"{name}, line {number}: neither an event nor a text, or out of order.")
    if not number or len(events) != head["events"] or len(texts) != head["texts"]:
        raise CorruptTape(f"{name} is cut off after line {number}: it should hold more.")
    try:
        check_chain(events)
        return Tape(head["session"], Stream(tuple(events), texts), fold(events, texts))
    except CorruptTape as error:
        raise CorruptTape(f"{name}: {error}", seq=error.seq) from error


def shipped(name: str) -> Path:
    """Return where a file that ships with the tapes is: in the wheel's data, or a checkout's replays."""
    installed = Path(str(files("codetape"))) / "data" / name
    return installed if installed.is_file() else Path(__file__).parents[2] / "replays" / name


def load(place: str) -> Tape:
    """Read a tape file, or the one that ships under the name ``demo``. Raises UsageError or CorruptTape."""
    path: Any = shipped("demo.tape.jsonl") if place == "demo" else Path(place)
    try:
        if path.stat().st_size > MAX_TAPE:
            raise CorruptTape(f"{place} is larger than a tape may be ({MAX_TAPE >> 20} MB).")
        with path.open(encoding="utf-8") as lines:
            return read(lines, name=place)
    except OSError as error:
        raise UsageError(f"The tape {place} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{place} is no tape: it is no text.") from error


def _value(line: str, name: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorruptTape(f"{name}, line {number}: no JSON; the tape is cut off or edited.") from error
    if not isinstance(value, dict) or canonical(value) != line.rstrip("\n"):
        raise CorruptTape(f"{name}, line {number}: not as codetape writes it; the tape was edited.")
    return value


def _head(value: dict[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(value.get("codetape"), int):
        raise CorruptTape(f"{name} is no tape: its first line is no header.")
    if value["codetape"] > FORMAT:
        raise CorruptTape(
            f"{name} is a tape of format {value['codetape']}.", remedy="A newer codetape wrote it: upgrade."
        )
    if not all(isinstance(value.get(k), t) for k, t in (("session", str), ("events", int), ("texts", int))):
        raise CorruptTape(f"{name}, line 1: the header is incomplete.")
    return value


def _event(value: Any, name: str, number: int) -> Event:
    try:
        return unseal(
            value["session"],
            value["seq"],
            value["kind"],
            value["version"],
            value["at"],
            canonical(value["payload"]),
            value["prev_hash"],
            value["hash"],
        )
    except CorruptTape as error:
        raise CorruptTape(f"{name}, line {number}: {error}", seq=error.seq) from error
    except (KeyError, TypeError) as error:
        raise CorruptTape(f"{name}, line {number}: the event is incomplete.") from error


@dataclass(frozen=True)
class Recorded:
    """One closed call of a tape: its request and its outcome."""

    request: Requested
    outcome: Answered | BuildFinished | BuildRefused | TestsFinished


def recorded_calls(stream: Stream) -> tuple[Recorded, ...]:
    """Return a stream's calls whose outcomes are known, in order."""
    asked: dict[str, Requested] = {}
    found: list[Recorded] = []
    for event in stream.events:
        payload = event.payload
        if isinstance(payload, Requested):
            asked[payload.call] = payload
        elif isinstance(payload, Answered | BuildFinished | BuildRefused | TestsFinished):
            found.append(Recorded(asked[payload.call], payload))
    return tuple(found)
