"""What the engine needs from outside, each as a Protocol: a model, a sandbox, a store, a clock.

What ran and failed is a value; a provider or sandbox that could not do its work raises one of `codetape.errors`.
Each port has a contract suite in `codetape.testing.contracts`, for fakes and real adapters alike. An adapter may
subclass its port: what a Protocol's body gives is then its default. Values that ports exchange are in
`codetape.domain` and `codetape.eventlog`; they are named here for annotations alone, so that importing a port loads
nothing else.
"""

from __future__ import annotations

import shlex
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable

from codetape.domain.defaults import DEFAULT_STORE
from codetape.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from codetape.domain.budget import Reservation
    from codetape.domain.job import BuildSpec, Job
    from codetape.domain.model_request import ModelRequest
    from codetape.domain.report import Report
    from codetape.domain.task import SandboxFacts
    from codetape.domain.usage import Usage
    from codetape.eventlog.envelope import Event
    from codetape.eventlog.kept_call import CallLabels, KeptCall
    from codetape.eventlog.stored_event import StoredEvent

__all__ = [
    "CALL_EVENT_KINDS",
    "DEFAULT_STORE",
    "RECEIVING",
    "BatchEndpoint",
    "BatchState",
    "Billing",
    "BuildRejected",
    "Built",
    "Clock",
    "DoctorFinding",
    "EventStore",
    "Execution",
    "ItemFailed",
    "Lease",
    "Maintenance",
    "Model",
    "RecoveredSession",
    "Reply",
    "RequestRefused",
    "Sandbox",
    "SessionCatalog",
    "SessionList",
    "SessionRow",
    "Store",
    "StoredImage",
    "Stream",
    "complete",
    "same_server",
]


RECEIVING: ContextVar[Callable[[int], object]] = ContextVar("receiving", default=lambda _bytes: None)
"""Called by an adapter while a reply comes, with how many bytes of it are there: for who watches, and nothing else."""


# ---- a model


def _no_usage() -> Usage:
    from codetape.domain.usage import Usage

    return Usage()


@dataclass(frozen=True)
class Reply:
    """A model's reply exactly as it came. ``usage_raw`` is the provider's own JSON; ``tries`` are failed tries.

    ``reasoning`` is what the server says the model thought before it answered. ``unanswered`` is how many failed tries
    the provider may have worked on, and bill.
    """

    text: str | None
    reasoning: str = ""
    refusal: str = ""
    finish_reason: str = "stop"
    model: str = ""
    fingerprint: str = ""
    usage: Usage = field(default_factory=_no_usage)
    usage_raw: str = ""
    matched_by: Literal["", "fingerprint", "order"] = ""
    tries: tuple[str, ...] = ()
    unanswered: int = 0


@dataclass(frozen=True)
class RequestRefused:
    """The server refuses the form of a request: its schema, one parameter, its length, or the length of its answer.

    Numbers are those that the server named, in tokens, 0 where it named none: ``cap`` is the longest output that it
    allows, ``window`` what prompt and output may have together, ``prompt`` what this prompt has.
    """

    what: Literal["schema", "parameter", "context", "output"]
    message: str
    parameter: str = ""
    cap: int = 0
    window: int = 0
    prompt: int = 0


class Billing(NamedTuple):
    """Who bills a model's calls, as price lists know them: a provider's id, or a server's address. Empty: unknown, or
    nobody."""

    provider: str = ""
    address: str = ""


# ---- many requests together


@dataclass(frozen=True)
class BatchState:
    """How far a provider is with a batch. ``failed`` says, in the provider's words, that it will answer nothing."""

    ended: bool
    answered: int = 0
    total: int = 0
    failed: str = ""


@dataclass(frozen=True)
class ItemFailed:
    """A request of a batch that has no answer. ``again``: another batch may answer it, as where its time ran out."""

    message: str
    again: bool = False
    maybe_billed: bool = False


class BatchEndpoint(Protocol):
    """Answers many requests of a model together, some time later, at a part of the price.

    A batch bears a ``key`` that its sender chose, of 16 hex digits, so that it can be found by who never read its id.
    Every method raises ModelUnavailable; `send` says with ``maybe_billed`` that the batch may exist all the same.
    """

    price_share: str
    """The part of the price that is paid, as a decimal text: "0.5"."""

    async def send(self, key: str, requests: Mapping[str, ModelRequest]) -> str:
        """Send requests by name (64 characters at most, the key among them); return the batch's id at the provider."""
        raise NotImplementedError

    async def find(self, key: str, since: str) -> str | None:
        """Return the id of the batch of that key, sent at ``since`` (UTC, ISO 8601) or later; empty where there is none.

        None says that it cannot be told yet: ask again later.
        """
        raise NotImplementedError

    async def state(self, batch_id: str) -> BatchState:
        """Say how far a batch is."""
        raise NotImplementedError

    async def replies(
        self, batch_id: str, requests: Mapping[str, ModelRequest]
    ) -> Mapping[str, Reply | RequestRefused | ItemFailed]:
        """Return what came of an ended batch's requests, by name, of those that are asked for and are in it."""
        raise NotImplementedError


@runtime_checkable
class Model(Protocol):
    """Answers requests. Keeps no state between calls. Raises ModelUnavailable when it gives up, and says whether it may
    be billed.

    ``name`` is ADAPTER:NAME. ``api`` is the API that it speaks, and ``adapter`` what speaks it, with versions, both for
    people who read a tape; an adapter that names an API takes one as its option ``api``. ``server`` is the address that it is reached at, without name and password: empty for the
    provider's own, None where there is none. ``billing`` says whose prices hold, ``batches`` where many requests are
    answered together, if anywhere.
    """

    name: str
    server: str | None = None
    api: str = ""
    adapter: str = ""
    billing: Billing = Billing()
    batches: BatchEndpoint | None = None

    def free(self, request: ModelRequest) -> bool:
        """Whether a request is answered from a recording: it needs no budget."""
        return False

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Answer one request."""
        raise NotImplementedError


class _Completed(Model):
    """A model of which only `ask` is given."""

    def __init__(self, model: Any) -> None:
        self.name = str(getattr(model, "name", type(model).__name__))
        self._model = model

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        reply: Reply | RequestRefused = await self._model.ask(request)
        return reply


def complete(model: Any) -> Model:
    """Return a caller's object as a `Model`: one that has `ask` alone is billed by nobody known, and never free."""
    full = Model in type(model).__mro__ or isinstance(model, Model)  # the first asks no property
    return model if full else _Completed(model)


def same_server(recorded: str | None, model: Model, *, named: bool) -> str | None:
    """Return the server that a recorded session is resumed at. Raises UsageError where it is another one, and nobody
    named it.

    A recording does not decide where prompts and a key go: its user does, once more.
    """
    here = model.server
    if recorded is None or here is None or here == recorded or named:
        return here
    there = f"with --base-url {shlex.quote(recorded)}" if recorded else "with OPENAI_BASE_URL unset"
    raise UsageError(
        f"The session was made at {recorded or 'the provider'}, and would continue at {here or 'the provider'}.",
        remedy=f"Name the server: {there} it continues where it was made.",
    )


# ---- a sandbox


@dataclass(frozen=True)
class Built:
    """An environment is ready. ``lock`` is what was installed: ``name==version`` lines with hashes."""

    image: str
    lock: str
    cached: bool


@dataclass(frozen=True)
class BuildRejected:
    """An environment cannot be built as specified; ``packages`` are the requested ones at fault, where known."""

    reason: Literal["not_found", "no_wheel", "conflict", "needs_system_packages", "needs_commands", "unknown"]
    message: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Execution:
    """An execution's report, and the contents of the outputs that it lists, by path."""

    report: Report
    outputs: Mapping[str, bytes]


@dataclass(frozen=True)
class StoredImage:
    """An environment that a sandbox keeps. ``key`` names it to its sandbox; ``last_used`` is in seconds since 1970."""

    name: str
    key: str
    sandbox: str
    size: int
    packages: tuple[str, ...]
    last_used: float
    base: str = ""


@dataclass(frozen=True)
class DoctorFinding:
    """What one check of `codetape doctor` found. ``needed`` ones keep the demo from executing when they are bad."""

    name: str
    status: Literal["well", "note", "bad"]
    says: str
    remedy: str = ""
    needed: bool = False


class Sandbox(Protocol):
    """Builds environments and runs untrusted code in them. Raises SandboxUnavailable; never runs unconfined.

    A session needs the first three methods; `codetape images` and `codetape doctor` need the others.
    """

    def facts(self) -> SandboxFacts:
        """Say what this sandbox is and can do."""
        raise NotImplementedError

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Have the environment built, or find it."""
        raise NotImplementedError

    async def execute(self, job: Job) -> Execution:
        """Run a job. Everything that it started is dead and gone when this returns."""
        raise NotImplementedError

    def images(self) -> list[StoredImage]:
        """Return the environments that are kept."""
        return []

    def remove_image(self, key: str) -> bool:
        """Remove one; False where something still uses it."""
        return False

    def doctor(self) -> Iterable[DoctorFinding]:
        """Check what this sandbox needs of the machine."""
        return ()


# ---- a store


class Lease(Protocol):
    """The right to append to one session. ``token`` fences off a holder that lost it."""

    session: str
    token: int

    def renew(self) -> None:
        """Say that the holder is alive."""

    def release(self) -> None:
        """Give the right back."""


@dataclass(frozen=True)
class Stream:
    """A session's events in order, and the blobs that they refer to, by hash."""

    events: tuple[Event, ...]
    texts: Mapping[str, str]

    def __repr__(self) -> str:
        """Say how much there is: `asyncio.run` makes the repr of every result, and this one's may have megabytes."""
        return f"Stream({len(self.events)} events, {len(self.texts)} texts)"


class EventStore(Protocol):
    """An append-only log of events. Raises StoreError, LeaseHeld, StaleLease, CorruptTape."""

    async def acquire(self, session: str) -> Lease:
        """Take the session's lease, or raise LeaseHeld."""

    async def append(
        self, event: Event, texts: Mapping[str, str], lease: Any, reserve: Reservation | None = None
    ) -> None:
        """Append one event with its texts in one durable transaction, the lease checked in it. ``lease`` is one of this
        store's.

        ``reserve`` is what the call that the event announces may come to: raises BudgetSpent, and appends nothing,
        where it
        does not fit into what one of its limits leaves. The next event of the session settles it; what may have been
        billed keeps it.
        """

    async def append_all(
        self, entries: Sequence[tuple[Event, Mapping[str, str]]], lease: Any, reserve: Reservation | None = None
    ) -> None:
        """Append events of one session in order, each with its texts; all are durable when this returns.

        ``reserve`` is the last one's; where it does not fit, all but that one are appended. A store that can makes it
        one transaction, which is not broken off where the caller is cancelled: it ends, and then the caller learns of it.
        """
        for event, texts in entries:
            await self.append(event, texts, lease, reserve if event is entries[-1][0] else None)

    async def read(self, session: str) -> Stream:
        """Return a session's stream; its hashes and chain are checked. Raises SessionNotFound, ContentGone,
        CorruptTape."""


CALL_EVENT_KINDS = (
    "SessionStarted", "SessionForked", "Requested", "Answered", "CallRefused", "CallLost", "GaveUp", "Decided",
    "Suspended", "Succeeded", "Failed", "CodeReverted", "Resumed",
)  # fmt: skip
"""Kinds of events that say something of calls to models."""


MAX_ASKED = 200
"""Characters of a prompt that a list shows."""


class SessionRow(TypedDict):
    """What a store lists of a session. Token counts are the session's own; costs are in picodollars."""

    session: str
    task: str
    model: str
    tags: str
    state: str
    reason: str
    iteration: int
    events: int
    input_tokens: int
    output_tokens: int
    started_at: str
    updated_at: str
    head: str
    parent: str
    forked_at: int
    cost: int
    unpriced: int
    reused_tokens: int
    reserved_tokens: int
    reserved_cost: int
    server: str
    confidence: str


class SessionList(NamedTuple):
    """The sessions of a store, newest first, as far as they can be read; and what could not be, a line each."""

    rows: list[SessionRow]
    problems: list[str]


class SessionCatalog(Protocol):
    """Which sessions a store has."""

    def sessions(self) -> SessionList:
        """List the sessions."""

    def find(self, name: str) -> str:
        """Return the id that an id, a unique prefix of one, or ``last`` names. Raises SessionNotFound."""

    def asked(self, sessions: Collection[str]) -> dict[str, str]:
        """Return the first MAX_ASKED characters of what each session was asked, of those where it can be read."""
        return {}

    def position(self) -> int:
        """Return a number that changes whenever an event is added: for who watches. A store that cannot tell says 0."""
        return 0

    def call_events(self, sessions: Collection[str] | None = None) -> Iterator[StoredEvent]:
        """Yield stored events of CALL_EVENT_KINDS, parents before their forks: of these sessions and their parents, or
        of all."""

    def kept_calls(self, sessions: Collection[str] | None = None) -> Iterator[tuple[CallLabels, Sequence[KeptCall]]]:
        """Yield the calls of these sessions, or of all, a session at a time. A store may keep them as events are added;
        by default they are read from the events."""
        from codetape.eventlog.call_history import CallHistory

        for labels, calls in CallHistory().sessions(self.call_events(sessions)):
            if sessions is None or labels.session in sessions:
                yield labels, calls

    def images_needed(self) -> dict[str, list[tuple[str, str]]]:
        """Return, for each image, the sessions that built it last, each with its state."""


@dataclass(frozen=True)
class RecoveredSession:
    """What could be read of a session, and what could not, a line each. Nothing is checked but the texts' hashes."""

    rows: list[StoredEvent]
    texts: dict[str, str]
    problems: list[str]


class Maintenance(Protocol):
    """Keeping a store: adding tapes, erasing content, reading what is damaged."""

    def put(self, *streams: Stream) -> list[int]:
        """Add streams, all of them or none; return how many events of each were new. Raises StoreError where chains
        differ."""

    async def forget(self, session: str) -> int:
        """Erase a session's content for good and record it; return how many texts were erased. Raises LeaseHeld,
        StoreError."""

    def recover(self, session: str) -> RecoveredSession:
        """Read a session as far as it can be read."""

    def stored_sessions(self) -> list[str]:
        """Return the ids of all sessions that can be found, listed or not."""

    def unsound(self) -> list[str]:
        """Return what is wrong with the store as a whole, and listed figures that differ from the events, a line
        each."""

    def disagreeing(self, session: str, events: Sequence[Event], texts: Mapping[str, str]) -> list[str]:
        """Return what the store keeps of a session beside its events and is not what they say, a line each. ``events``
        are its whole chain."""
        return []

    def rebuild(self) -> None:
        """Make what the store keeps beside the events again from them. A store that keeps nothing does nothing."""
        return


class Store(EventStore, SessionCatalog, Maintenance, Protocol):
    """A whole store: what `--db` names.

    ``address`` names it to another process of this machine; empty where only this process has it.
    """

    address: str

    def for_reading(self) -> Store:
        """Return the store for commands that change nothing. Raises UsageError where there is none."""

    def close(self) -> None:
        """Let go of what this thread holds open."""


# ---- a clock


class Clock(Protocol):
    """Tells the time. ``now`` is UTC, ISO 8601 with milliseconds; ``monotonic_ms`` measures durations."""

    def now(self) -> str:
        """Return the time of day."""

    def monotonic_ms(self) -> int:
        """Return milliseconds since some fixed point."""
