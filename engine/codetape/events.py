"""The facts of a session: the union of event payloads, their envelope, codec and hash chain.

Payloads are plain JSON: integers, no floats. Every text that came from a user, a model or a sandbox is
a blob, referred to by its hash, whatever its length. An event never changes its meaning: a new version
comes with an upcaster. `docs/reference/events.md` lists the kinds and says what a replay does with each.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field

from codetape.canonical import Frozen, Hash, canonical, sha256
from codetape.errors import CorruptTape

GENESIS = "0" * 64
"""``prev_hash`` of a session's first event."""

Effect = Literal["ask", "build", "execute"]


class Payload(Frozen):
    """What one kind of event says. ``role`` is what a replay does with it: feed it, or derive and compare it."""

    version: ClassVar[int] = 1
    role: ClassVar[Literal["input", "derived"]] = "derived"


class Transition(Payload):
    """An event that moves the machine: the trigger's name, and the states on both sides."""

    trigger: str
    source: str
    target: str


MAX_TOKENS = 2**53
"""Of one bucket: more is no count, and no database column takes it."""


class Usage(Frozen):
    """Tokens of one call, in disjoint buckets. ``source`` tells the provider's figures from an estimate."""

    input: int = Field(default=0, ge=0, le=MAX_TOKENS)
    cache_read: int = Field(default=0, ge=0, le=MAX_TOKENS)
    cache_write: int = Field(default=0, ge=0, le=MAX_TOKENS)
    output: int = Field(default=0, ge=0, le=MAX_TOKENS)
    reasoning: int = Field(default=0, ge=0, le=MAX_TOKENS)
    source: Literal["provider", "estimated"] = "provider"

    @property
    def total_input(self) -> int:
        """All input tokens, cached ones included."""
        return self.input + self.cache_read + self.cache_write

    @property
    def total_output(self) -> int:
        """All output tokens, reasoning included."""
        return self.output + self.reasoning


class Versions(Frozen):
    """What derives decisions: a tape of another rules version drifts, one of the same must agree."""

    engine: str
    rules: int
    machine: int
    host_python: str
    templates: str


class SessionStarted(Transition):
    """Everything that decisions depend on. ``task``, ``config`` and each file of ``pack`` are blobs."""

    role = "input"
    task_id: str
    tags: tuple[str, ...] = ()
    model: str
    task: Hash
    config: Hash
    pack: dict[str, Hash]
    versions: Versions


class AnchorsExtracted(Payload):
    """Examples found in the prompt by rule, as a test file that no ask may change."""

    count: int
    anchors: Hash


class Requested(Payload):
    """One call is about to be made. ``messages`` are (role, blob); ``detail`` is the rest of the request."""

    call: str
    effect: Effect
    purpose: str
    fingerprint: Hash
    messages: tuple[tuple[str, Hash], ...] = ()
    detail: Hash
    input_estimate: int = 0
    max_output_tokens: int = 0


class Closing(Payload):
    """An event that closes the open call."""

    role = "input"
    call: str


class Answered(Closing):
    """A model's reply exactly as it came (after redaction)."""

    text: Hash | None = None
    refusal: Hash | None = None
    finish_reason: str = "stop"
    model: str = ""
    fingerprint: str = ""
    usage: Usage
    usage_raw: Hash | None = None
    matched_by: Literal["", "fingerprint", "order"] = ""
    tries: tuple[str, ...] = ()
    duration_ms: int = 0


class CallRefused(Closing):
    """The server refuses the form of the request: asked again without the schema or parameter, or trimmed."""

    what: Literal["schema", "parameter", "context"]
    parameter: str = ""
    message: Hash


class BuildFinished(Closing):
    """An environment is ready; ``lock`` holds names, versions and hashes, never a registry's address."""

    image: str
    lock: Hash
    cached: bool
    duration_ms: int = 0


class BuildRefused(Closing):
    """An environment cannot be as asked: a package does not exist, has no wheel, or conflicts."""

    reason: Literal["not_found", "no_wheel", "conflict", "needs_system_packages", "needs_commands", "unknown"]
    packages: tuple[str, ...] = ()
    message: Hash
    duration_ms: int = 0


class TestsFinished(Closing):
    """An execution's outcome; ``report`` is the whole Report as canonical JSON."""

    __test__: ClassVar[bool] = False

    purpose: Literal["vet", "run", "oracle", "script"]
    exit: str
    whole: bool
    passed: int
    failed: int
    errors: int
    skipped: int
    report: Hash
    duration_ms: int = 0


class CallLost(Closing):
    """The call's outcome will never be known: interrupted, or the process died. Possibly billed."""

    input_estimate: int = 0


class GaveUp(Closing):
    """The provider or daemon is down; the session is suspended next. It costs no iteration."""

    message: Hash
    tries: tuple[str, ...] = ()


class Decided(Transition):
    """What the rules made of an outcome. ``ledger`` holds the new plain values, ``changes`` the new texts.

    ``source == target`` without a trigger: the state is kept (a repair ask follows, say).
    """

    about: str
    usable: bool = True
    reason: str = ""
    ledger: dict[str, Any]
    changes: dict[str, Hash | None]


class Suspended(Decided):
    """The session waits; always resumable. ``question`` names what a person must answer."""

    cause: Literal["person", "budget", "outage", "question", "need"]
    message: Hash | None = None


class Succeeded(Decided):
    """The end that was wanted, and how far it can be trusted."""

    confidence: Literal["oracle", "anchored", "self_tested", "untested"]


class Failed(Decided):
    """The other end: unusable, iterations, stalled, no_tests, user_tests, oracle."""

    message: Hash


class FailureReclassified(Payload):
    """A failure outlived the fixes of one kind: the other side is to blame."""

    test: str
    before: str
    after: str
    times: int
    root_cause: Hash


class TestQuarantined(Payload):
    """A test runs no more: nothing in the specification settles it, or the specification refutes it."""

    __test__: ClassVar[bool] = False

    test: str
    reason: str
    words: Hash


class CodeReverted(Payload):
    """A change broke what had passed and cured nothing: the code before it stands again."""

    broken: tuple[str, ...]
    attempt: Hash


class ConfigChanged(Payload):
    """A person changed the configuration of a suspended session; ``changes`` is a JSON object of its fields."""

    role = "input"
    changes: Hash


class PersonAnswered(Payload):
    """The answer to a question."""

    role = "input"
    subject: str
    answer: Literal["allow", "deny"]


class Resumed(Transition):
    """A suspended (or iteration-bound failed) session goes on, under these versions."""

    role = "input"
    versions: Versions


KINDS: dict[str, type[Payload]] = {
    kind.__name__: kind
    for kind in (
        SessionStarted,
        AnchorsExtracted,
        Requested,
        Answered,
        CallRefused,
        BuildFinished,
        BuildRefused,
        TestsFinished,
        CallLost,
        GaveUp,
        Decided,
        Suspended,
        Succeeded,
        Failed,
        FailureReclassified,
        TestQuarantined,
        CodeReverted,
        ConfigChanged,
        PersonAnswered,
        Resumed,
    )
}

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(kind, version) -> the payload of version + 1. Append only, once 0.1.0 is out."""


@dataclass(frozen=True)
class Draft:
    """An event that is not yet in the log: its payload and the texts that it refers to."""

    payload: Payload
    texts: Mapping[str, str] = field(default_factory=dict)


class Texts(dict[str, str]):
    """Texts by hash, gathered while a payload is made."""

    def put(self, text: str) -> str:
        """Keep the text; return its hash."""
        key = sha256(text)
        self[key] = text
        return key


@dataclass(frozen=True, slots=True)
class Event:
    """A fact at (session, seq). ``hash`` covers the stored canonical JSON of everything else.

    ``stored_version`` and ``stored_payload`` are what the log holds; ``payload`` is that, upcast.
    """

    session: str
    seq: int
    kind: str
    stored_version: int
    at: str
    stored_payload: str
    prev_hash: str
    hash: str
    payload: Payload


def envelope(session: str, seq: int, kind: str, version: int, at: str, payload: str, prev_hash: str) -> str:
    """Return the canonical JSON that an event's hash covers; ``payload`` is canonical JSON already."""
    return (
        f'{{"at":{canonical(at)},"kind":{canonical(kind)},"payload":{payload},"prev_hash":"{prev_hash}",'
        f'"seq":{seq},"session":{canonical(session)},"version":{version}}}'
    )


def seal(session: str, seq: int, at: str, payload: Payload, prev_hash: str) -> Event:
    """Make the event that follows ``prev_hash`` in a session's chain."""
    kind, text = type(payload).__name__, canonical(payload.model_dump(mode="json"))
    digest = sha256(envelope(session, seq, kind, payload.version, at, text, prev_hash))
    return Event(session, seq, kind, payload.version, at, text, prev_hash, digest, payload)


def unseal(
    session: str, seq: int, kind: str, version: int, at: str, payload: str, prev_hash: str, digest: str
) -> Event:
    """Read one stored event; its hash is checked over the stored bytes, before upcasting.

    Raises CorruptTape with the event's seq.
    """
    if sha256(envelope(session, seq, kind, version, at, payload, prev_hash)) != digest:
        raise CorruptTape(f"{session}:{seq} was edited: its hash does not cover what it says.", seq=seq)
    return Event(session, seq, kind, version, at, payload, prev_hash, digest, decode(kind, version, payload, seq))


def decode(kind: str, version: int, payload: str, seq: int) -> Payload:
    """Read a stored payload as the present version of its kind."""
    shape = KINDS.get(kind)
    if shape is None or version > shape.version:
        raise CorruptTape(
            f"event {seq} is a {kind} of version {version}, which this codetape does not know.",
            remedy="A newer codetape wrote it: upgrade.",
            seq=seq,
        )
    try:
        if version == shape.version:
            return shape.model_validate_json(payload)
        value = json.loads(payload)
        while version < shape.version:
            value, version = UPCASTERS[kind, version](value), version + 1
        return shape.model_validate(value)
    except ValueError as error:
        raise CorruptTape(f"event {seq} is no {kind}: {error}", seq=seq) from error


def check_chain(events: Iterable[Event]) -> None:
    """Raise CorruptTape at the first gap, or the first event that does not follow its predecessor."""
    expected, previous = 0, GENESIS
    for event in events:
        if event.seq != expected:
            raise CorruptTape(f"{event.session}:{expected} is missing: {event.seq} follows.", seq=expected)
        if event.prev_hash != previous:
            raise CorruptTape(f"{event.session}:{event.seq} does not follow its predecessor.", seq=event.seq)
        expected, previous = expected + 1, event.hash
