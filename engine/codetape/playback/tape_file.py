"""A session's events and blobs as one portable file, and back: canonical JSON lines, checked as they are read.

The first line is a header, then comes each event in order, then each blob once, sorted by hash, then samples where they
travel with it (`codetape.playback.tape_samples`). The same session gives the same bytes. A tape is untrusted: its size, form, hashes, chain and every reference are checked.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

from codetape.domain.canonical import canonical, sha256
from codetape.errors import CorruptTape, UsageError
from codetape.eventlog.envelope import decode, stored
from codetape.eventlog.events import (
    Answered,
    BuildFinished,
    BuildRefused,
    ContentForgotten,
    Requested,
    TestsFinished,
    refs,
)
from codetape.eventlog.fold import fold
from codetape.eventlog.hash_chain import check_blobs, check_chain
from codetape.eventlog.session_state import SessionState
from codetape.eventlog.stored_event import StoredEvent
from codetape.playback import tape_samples
from codetape.ports import Stream
from codetape.runtime.text_file import opened_file

FORMAT = 1
MAX_LINE = 16 << 20  # characters
MAX_TAPE = 256 << 20  # bytes
_HASH = re.compile(r'"([0-9a-f]{64})"')
_HEADER = {"codetape": int, "session": str, "events": int, "texts": int}


@dataclass(frozen=True)
class Tape:
    """A tape's stream, and the session state that it folds to."""

    session: str
    stream: Stream
    run: SessionState
    samples: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say which session and how much; the contents of a stream may be megabytes."""
        return f"Tape({self.session!r}, {self.stream!r})"


@dataclass
class ParsedTape:
    """A tape as it is written: rows and blobs, each with its line number. Only its form is checked, not its content."""

    session: str
    content: bool = True
    rows: list[tuple[int, StoredEvent]] = field(default_factory=list)
    texts: dict[str, tuple[int, str]] = field(default_factory=dict)
    samples: dict[str, bytes] = field(default_factory=dict)

    @property
    def by_hash(self) -> dict[str, str]:
        """The blobs by their hashes."""
        return {key: text for key, (_, text) in self.texts.items()}


def write(session: str, stream: Stream, samples: Mapping[str, bytes] | None = None) -> Iterator[str]:
    """Yield a tape's lines, each with its line break. ``samples`` travel with it, by the names of their files."""
    hashes = {ref for event in stream.events for ref in refs(event.payload)}
    texts = {key: stream.texts[key] for key in sorted(hashes)}
    counts = {"events": len(stream.events), "texts": len(texts), **({"samples": len(samples)} if samples else {})}
    yield canonical({"codetape": FORMAT, "session": session, **counts}) + "\n"
    yield from _events(map(stored, stream.events))
    for text in texts.values():
        yield canonical({"text": text}) + "\n"
    yield from tape_samples.lines(samples or {})


def write_without_content(session: str, rows: Sequence[StoredEvent]) -> Iterator[str]:
    """Yield the lines of a tape without content: hashes stand for the blobs."""
    yield canonical({"codetape": FORMAT, "session": session, "events": len(rows), "texts": 0, "content": False}) + "\n"
    yield from _events(rows)


def _events(rows: Iterable[StoredEvent]) -> Iterator[str]:
    for row in rows:
        yield (
            f'{{"event":{{"at":{canonical(row.at)},"hash":"{row.hash}","kind":{canonical(row.kind)},'
            f'"payload":{row.payload},"prev_hash":"{row.prev_hash}","seq":{row.seq},'
            f'"session":{canonical(row.session)},"version":{row.version}}}}}\n'
        )


def parse(lines: Iterable[str], *, name: str = "the tape") -> ParsedTape:
    """Read a tape's lines. Raises CorruptTape, with line and reason, where codetape would not have written it."""
    tape, hashes = ParsedTape(""), set[str]()
    head: dict[str, Any] = {}
    size = number = 0
    for number, line in enumerate(lines, 1):
        size += len(line)
        if len(line) > MAX_LINE or size > MAX_TAPE:
            raise CorruptTape(f"{name}, line {number}: larger than a tape may be.")
        value = _value(line, name, number)
        if number == 1:
            head = _head(value, name)
            tape.session = head["session"]
            tape.content = "content" not in head
        elif set(value) == {"event"} and not tape.texts:
            tape.rows.append((number, _row(value["event"], name, number)))
            # any quoted hash counts as a reference here; `check_blobs` knows the real ones, once events are decoded
            hashes.update(_HASH.findall(tape.rows[-1][1].payload))
        elif set(value) == {"sample"} and len(tape.texts) == head["texts"]:
            try:
                sample, data = tape_samples.read(value["sample"], tape.samples)
            except CorruptTape as error:
                raise CorruptTape(f"{name}, line {number}: {error.message}") from error
            tape.samples[sample] = data
        elif set(value) == {"text"} and isinstance(value["text"], str) and not tape.samples:
            if len(tape.rows) < head["events"]:
                progress = f"{len(tape.rows)} of {head['events']} events"
                raise CorruptTape(f"{name}, line {number}: a text after {progress}: out of order, or one is missing.")
            _add_text(tape, value["text"], hashes, name, number)
        else:
            raise CorruptTape(f"{name}, line {number}: neither an event nor a text, or out of order.")
        if head and (len(tape.rows) > head["events"] or len(tape.texts) > head["texts"]):
            raise CorruptTape(
                f"{name}, line {number}: more events or texts than the {head['events']} and {head['texts']} of the "
                "header."
            )
        if len(tape.samples) > head.get("samples", 0):
            raise CorruptTape(f"{name}, line {number}: more samples than the header says.")
    for part, count in (("events", len(tape.rows)), ("texts", len(tape.texts)), ("samples", len(tape.samples))):
        if not number or count < head.get(part, 0):
            raise CorruptTape(f"{name} is cut off after line {number}: it should hold {head.get(part, 'some')} {part}.")
    return tape


def read(lines: Iterable[str], *, name: str = "the tape") -> Tape:
    """Read a whole tape, or raise CorruptTape with the line and the reason; nothing is taken from a bad one."""
    tape = parse(lines, name=name)
    if not tape.content:
        raise UsageError(
            f"{name} holds no content, but hashes in its place.",
            remedy="`codetape verify` checks it, and `codetape spend` counts it; it cannot be replayed or imported.",
        )
    texts, places = tape.by_hash, {row.seq: number for number, row in tape.rows}
    try:
        for due, (number, row) in enumerate(tape.rows):
            if row.seq != due:
                raise CorruptTape(
                    f"{name}, line {number}: event {row.seq} where {due} was due: out of order, or one is missing."
                )
        events = tuple(decode(row) for _, row in tape.rows)
        if not events:
            raise CorruptTape(f"{name} holds no event.")
        if isinstance(events[-1].payload, ContentForgotten):
            raise CorruptTape(
                f"{name} says that its content was forgotten: there is no tape of such a session with content."
            )
        check_chain(events)
        check_blobs(events, texts)
        if wrong := misplaced(tape):
            raise CorruptTape(f"{name}, {wrong[0]}")
        state = fold(events, texts)
        if tape.samples:
            tape_samples.check(state.the_task, tape.samples)
        return Tape(tape.session, Stream(events, texts), state, tape.samples)
    except CorruptTape as error:
        if error.seq is None:
            raise
        where = f", line {places[error.seq]}" if error.seq in places else ""
        raise CorruptTape(f"{name}{where}: {error.message}", remedy=error.remedy, seq=error.seq) from error


def shipped(name: str) -> Path:
    """Return the path of a shipped file: in the wheel's data, or in a checkout's ``replays``."""
    installed = Path(str(files("codetape"))) / "data" / name
    return installed if installed.is_file() else Path(__file__).parents[3] / "replays" / name


def misplaced(found: ParsedTape) -> list[str]:
    """Return what does not belong in a tape: events of another session than its header says."""
    if not found.rows or found.rows[-1][1].session != found.session:
        return [f"line 1: the events are not those of session {found.session[:80]}."]
    return []


def lines_of(file: BinaryIO, name: str = "the tape") -> Iterator[str]:
    """Yield a file's lines; one beyond the limit comes in pieces, so that it is never held whole."""
    number = 0
    while data := file.readline(MAX_LINE + 1):
        number += 1
        try:
            yield data.decode()
        except UnicodeDecodeError as error:
            if len(data) > MAX_LINE:  # a piece may end within a character; `parse` refuses the line for its length
                yield data.decode(errors="replace")
                continue
            raise CorruptTape(f"{name}, line {number}: no UTF-8; the tape is cut off or edited.") from error


def load(place: str) -> Tape:
    """Read a tape file, or the one that ships under the name ``demo``. Raises UsageError or CorruptTape."""
    with opened(place) as file:
        return read(lines_of(file, place), name=place)


@contextmanager
def opened(place: str) -> Iterator[BinaryIO]:
    """Open a tape file, or the one that ships under the name ``demo``. Raises UsageError or CorruptTape."""
    path: Any = shipped("demo.tape.jsonl") if place == "demo" else Path(place)
    try:
        if path.stat().st_size > MAX_TAPE:
            raise CorruptTape(f"{place} is larger than a tape may be ({MAX_TAPE >> 20} MB).")
        with path.open("rb") if place == "demo" else opened_file(path) as file:
            yield file
    except OSError as error:
        raise UsageError(f"The tape {place} cannot be read: {error.strerror}.") from error


def _value(line: str, name: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorruptTape(f"{name}, line {number}: no JSON; the tape is cut off or edited.") from error
    try:
        same = isinstance(value, dict) and canonical(value) + "\n" == line
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise CorruptTape(f"{name}, line {number}: not as codetape writes it; the tape is cut off or edited.")
    return dict(value)


def _head(value: dict[str, Any], name: str) -> dict[str, Any]:
    version = value.get("codetape")
    if type(version) is not int:
        raise CorruptTape(f"{name} is no tape: its first line is no header.")
    if version > FORMAT:
        raise CorruptTape(f"{name} is a tape of format {version}.", remedy="A newer codetape wrote it: upgrade.")
    without = value.get("content") is False and not value.get("texts")
    if set(value) - ({"content"} if without else {"samples"}) != set(_HEADER) or any(
        type(value[key]) is not kind for key, kind in {**_HEADER, "samples": int}.items() if key in value
    ):
        raise CorruptTape(f"{name}, line 1: the header is not as codetape writes it.")
    return value


def _row(value: Any, name: str, number: int) -> StoredEvent:
    if not isinstance(value, dict) or set(value) != set(StoredEvent._fields) or not isinstance(value["payload"], dict):
        raise CorruptTape(f"{name}, line {number}: the event is incomplete, or has more than an event has.")
    try:
        return StoredEvent.of(
            [canonical(value[key]) if key == "payload" else value[key] for key in StoredEvent._fields]
        )
    except CorruptTape as error:
        raise CorruptTape(f"{name}, line {number}: {error.message}", seq=error.seq) from error


def _add_text(tape: ParsedTape, text: str, hashes: set[str], name: str, number: int) -> None:
    key = sha256(text)
    if key not in hashes:
        raise CorruptTape(f"{name}, line {number}: a text that no event refers to; it was edited or added.")
    if key in tape.texts:
        raise CorruptTape(f"{name}, line {number}: a text that is there already.")
    if tape.texts and key < next(reversed(tape.texts)):
        raise CorruptTape(f"{name}, line {number}: a text out of order; the tape was edited.")
    tape.texts[key] = (number, text)


@dataclass(frozen=True)
class Recorded:
    """One closed call of a tape: its request and its outcome."""

    request: Requested
    outcome: Answered | BuildFinished | BuildRefused | TestsFinished


def recorded_calls(stream: Stream) -> tuple[Recorded, ...]:
    """Return a stream's calls whose outcomes are known, in order."""
    requests: dict[str, Requested] = {}
    calls: list[Recorded] = []
    for event in stream.events:
        payload = event.payload
        if isinstance(payload, Requested):
            requests[payload.call] = payload
        elif isinstance(payload, Answered | BuildFinished | BuildRefused | TestsFinished):
            calls.append(Recorded(requests[payload.call], payload))
    return tuple(calls)
