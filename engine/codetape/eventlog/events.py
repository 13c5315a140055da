"""The facts of a session: the union of event payloads.

Payloads are plain JSON: integers, no floats. Every text that came from a user, a model or a sandbox is
a blob, referred to by its hash, whatever its length. An event never changes its meaning: a new version
comes with an upcaster. `docs/reference/events.md` lists the kinds and says what a replay does with each.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import Field

from codetape.domain.canonical import sha256
from codetape.domain.frozen_model import Count, FrozenModel, Hash
from codetape.domain.purposes import CallPurpose, JobPurpose
from codetape.domain.usage import Usage

Effect = Literal["ask", "build", "execute"]
EXTERNAL_CAUSES = ("person", "budget", "outage")
"""Causes of a `Suspended` that come from outside: they are input to a replay, which derives the others."""
PACK_FILE = re.compile(r"(?:[A-Za-z0-9_-]{1,40}/)?[A-Za-z0-9_-]{1,60}\.(?:md|json)")
"""Legal names of files in a prompt pack: exporting a pack writes files under these names."""
_IS_REF = "names a text"
Ref = Annotated[Hash, _IS_REF]
"""The name of a blob: the SHA-256 of its text. Fingerprints are hashes too, but name no blob."""


class Payload(FrozenModel):
    """What one kind of event says. A replay is fed the ``input`` ones, and derives and compares the others."""

    version: ClassVar[int] = 1
    role: ClassVar[Literal["input", "derived"]] = "derived"


class Transition(Payload):
    """An event that moves the machine: the trigger's name, and the states before and after."""

    trigger: str
    source: str
    target: str


class Versions(FrozenModel):
    """What derives decisions: a tape of another version of the rules drifts, one of the same version must agree."""

    engine: str
    rules: Count
    machine: Count
    host_python: str
    templates: str


class SessionStarted(Transition):
    """Everything that decisions depend on. ``task``, ``config`` and each file of ``pack`` are blobs.

    ``server`` is the address of ``model``, as the configuration has it: empty for the provider's own.
    """

    role = "input"
    task_id: str
    tags: tuple[str, ...] = ()
    model: str
    server: str = ""
    task: Ref
    config: Ref
    pack: dict[str, Ref]
    versions: Versions


class SessionForked(Payload):
    """A session that continues from another one's events, up to ``seq``, with changes.

    ``hash`` is the parent's at ``seq``. ``config`` is a JSON object of the fields that change, and ``pack`` the new
    prompt pack, empty for the parent's. ``say`` is a person's remark, added to the constraints; ``reply`` replaces the
    answer that waits for a decision; ``tags`` are added to the parent's. ``server`` is the model's address, where that
    changes.
    """

    role = "input"
    parent: str
    seq: Count
    hash: Hash
    model: str = ""
    server: str | None = None
    config: Ref
    pack: dict[str, Ref] = {}
    say: Ref | None = None
    reply: Ref | None = None
    tags: tuple[str, ...] = ()
    versions: Versions


class AnchorsExtracted(Payload):
    """Examples found in the prompt by rule, as a test file that no ask may change.

    ``left_out`` is a JSON list of the examples that are no tests, each with the reason; None where there are none.
    """

    count: Count
    anchors: Ref
    left_out: Ref | None = None


class Requested(Payload):
    """One call is about to be made. ``messages`` are (role, blob); ``detail`` is the rest of the request."""

    call: str
    effect: Effect
    purpose: CallPurpose
    fingerprint: Hash
    messages: tuple[tuple[str, Ref], ...] = ()
    detail: Ref
    input_estimate: Count = 0
    max_output_tokens: Count = 0


BatchKey = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
BatchId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,128}$")]


class CallBatched(Payload):
    """The open call waits in a batch: it is sent together with those of other sessions, and answered later.

    ``batch`` is the key that the batch is found by, written before it is sent; ``batch_id`` is the provider's name of
    it, empty where that is not known. A call whose batch gave it no answer is put into another one.
    """

    role = "input"
    call: str
    batch: BatchKey
    batch_id: BatchId = ""


class CallClosed(Payload):
    """An event that closes the open call."""

    role = "input"
    call: str


_AMOUNT = r"\d{1,6}(\.\d{1,24})?"
Amount = Annotated[str, Field(pattern=f"^(?:{_AMOUNT})$")]
"""Dollars, as a decimal text."""


class Price(FrozenModel):
    """What a call cost, in dollars. ``source`` is who says so: provider, settings or genai-prices, of a ``version``.

    ``computed`` is our own figure beside a provider's; ``per_mtok`` are its unit prices for a million tokens, of which
    ``share`` is paid: all, or less in a batch.
    """

    cost: Amount
    source: Literal["provider", "settings", "genai-prices"]
    computed: Annotated[str, Field(pattern=f"^(?:{_AMOUNT})?$")] = ""
    version: str = ""
    model: str = ""
    per_mtok: dict[str, Amount] = {}
    share: Amount = "1"


class Answered(CallClosed):
    """A model's reply (after redaction), its thoughts apart.

    ``text`` is the answer, ``reasoning`` what the model thought before it, as its server or its own marks tell.
    ``matched_by`` says how it was matched where it came from a recording: it cost nothing, and has no price.
    ``unanswered`` is how many of the failed ``tries`` may have been billed. ``prompt_cut`` says that the server read far
    fewer tokens than the prompt has.
    """

    text: Ref | None = None
    reasoning: Ref | None = None
    refusal: Ref | None = None
    finish_reason: str = "stop"
    model: str = ""
    fingerprint: str = ""
    usage: Usage
    usage_raw: Ref | None = None
    matched_by: Literal["", "fingerprint", "order"] = ""
    price: Price | None = None
    tries: tuple[Ref, ...] = ()
    unanswered: Annotated[int, Field(strict=True, ge=0, le=1000)] = 0
    prompt_cut: bool = False
    duration_ms: Count = 0


Tokens = Count


class CallRefused(CallClosed):
    """The server refuses the form of the request: asked again in another, shorter, or for a shorter answer.

    ``cap``, ``window`` and ``prompt`` are the tokens that it named as the longest output, as prompt and output
    together, and as this prompt; 0 where it named none.
    """

    what: Literal["schema", "parameter", "context", "output"]
    parameter: str = ""
    message: Ref
    cap: Tokens = 0
    window: Tokens = 0
    prompt: Tokens = 0


class BuildFinished(CallClosed):
    """An environment is ready; ``lock`` holds names, versions and hashes, never a registry's address."""

    image: str
    lock: Ref
    cached: bool
    duration_ms: Count = 0


class BuildRefused(CallClosed):
    """An environment cannot be as asked: a package does not exist, has no wheel, or conflicts."""

    reason: Literal["not_found", "no_wheel", "conflict", "needs_system_packages", "needs_commands", "unknown"]
    packages: tuple[str, ...] = ()
    message: Ref
    duration_ms: Count = 0


class TestsFinished(CallClosed):
    """An execution's outcome; ``report`` is the whole Report as canonical JSON."""

    __test__: ClassVar[bool] = False

    purpose: JobPurpose
    exit: str
    whole: bool
    passed: Count
    failed: Count
    errors: Count
    skipped: Count
    report: Ref
    duration_ms: Count = 0


class CallLost(CallClosed):
    """The call's outcome will never be known: interrupted, or the process died. Possibly billed."""

    input_estimate: Count = 0
    duration_ms: Count = 0


class GaveUp(CallClosed):
    """The provider or daemon is down; the session is suspended next. It costs no iteration.

    ``maybe_billed`` says that the provider had begun to work on a try, and gave no answer; ``unanswered`` on how many.
    """

    message: Ref
    tries: tuple[Ref, ...] = ()
    maybe_billed: bool = False
    unanswered: Annotated[int, Field(strict=True, ge=0, le=1000)] = 0


def unanswered(payload: CallClosed) -> int:
    """Return how many tries of a call had no answer and may have been billed all the same."""
    if isinstance(payload, GaveUp):
        return payload.unanswered or int(payload.maybe_billed)
    return payload.unanswered if isinstance(payload, Answered) else int(isinstance(payload, CallLost))


class Decided(Transition):
    """What the rules made of an outcome. ``ledger`` holds the new plain values, ``changes`` the new blobs.

    ``source == target`` without a trigger: the state is kept (a repair call follows, say).
    """

    about: str
    usable: bool = True
    reason: str = ""
    ledger: dict[str, Any]
    changes: dict[str, Ref | None]


class Suspended(Decided):
    """The session waits; always resumable. ``question`` names what a person must answer."""

    cause: Literal["person", "budget", "outage", "question", "need"]
    message: Ref | None = None


class Succeeded(Decided):
    """Terminal state: success, and how far it can be trusted."""

    confidence: Literal["oracle", "anchored", "self_tested", "disputed", "untested"]


class Failed(Decided):
    """The other end: unusable, iterations, stalled, no_tests, user_tests, oracle."""

    message: Ref


class FailureReclassified(Payload):
    """A failure outlived the fixes of one kind: the other side is to blame."""

    test: str
    before: str
    after: str
    times: Count
    root_cause: Ref


class TestQuarantined(Payload):
    """A test runs no more: nothing in the specification settles it, or the specification refutes it."""

    __test__: ClassVar[bool] = False

    test: str
    reason: str
    words: Ref


class CodeReverted(Payload):
    """A change broke what had passed and cured nothing: the code before it stands again."""

    broken: tuple[str, ...]
    attempt: Ref


class ConfigChanged(Payload):
    """A person changed the configuration of a suspended session; ``changes`` is a JSON object of its fields.

    ``server`` is the model's new address; None where it stays.
    """

    role = "input"
    changes: Ref
    server: str | None = None


class ContentForgotten(Payload):
    """The session's texts were erased; hashes and figures stay. Blobs that other sessions need are kept."""

    role = "input"
    texts: Count


class PersonAnswered(Payload):
    """The answer to a question."""

    role = "input"
    subject: str
    answer: Literal["allow", "deny"]


class Resumed(Transition):
    """A suspended (or iteration-bound failed) session continues, under these versions."""

    role = "input"
    versions: Versions


KINDS: dict[str, type[Payload]] = {
    kind.__name__: kind
    for kind in (
        SessionStarted,
        SessionForked,
        AnchorsExtracted,
        Requested,
        CallBatched,
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
        ContentForgotten,
        PersonAnswered,
        Resumed,
    )
}


@dataclass(frozen=True)
class NewEvent:
    """An event that is not yet in the log: its payload and the blobs that it refers to."""

    payload: Payload
    texts: Mapping[str, str] = field(default_factory=dict)


class Blobs(dict[str, str]):
    """Blobs by hash, gathered while a payload is made."""

    def put(self, text: str) -> str:
        """Keep the text; return its hash."""
        key = sha256(text)
        self[key] = text
        return key


def refs(payload: Payload) -> Iterator[str]:
    """Yield the names of the blobs that an event refers to, in the order of its fields."""
    for name in _ref_fields(type(payload)):
        value = getattr(payload, name)
        items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for item in items:
            ref = item[1] if isinstance(item, tuple) else item
            if ref is not None:
                yield ref


@cache
def _ref_fields(kind: type[Payload]) -> tuple[str, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(name for name in kind.model_fields if _mentions_ref(hints[name]))


def _mentions_ref(hint: Any) -> bool:
    return _IS_REF in getattr(hint, "__metadata__", ()) or any(map(_mentions_ref, get_args(hint)))
