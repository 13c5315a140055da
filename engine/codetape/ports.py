"""What the engine needs from outside, each as a Protocol: a model, a sandbox, a log, a clock.

What ran and failed is a value; a provider or sandbox that could not do its work raises one of our errors.
Each port has a contract suite in `codetape.testing`, for fakes and real adapters alike.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from codetape.domain.budget import Reservation
from codetape.domain.job import BuildSpec, Job
from codetape.domain.model_request import ModelRequest
from codetape.domain.report import Report
from codetape.domain.task import SandboxFacts
from codetape.domain.usage import Usage
from codetape.errors import UsageError
from codetape.eventlog.envelope import Event

__all__ = [
    "BuildRejected",
    "BuildSpec",
    "Built",
    "Clock",
    "EventStore",
    "Execution",
    "ImageKeeper",
    "Job",
    "Lease",
    "Model",
    "ModelRequest",
    "Reply",
    "RequestRefused",
    "Reservation",
    "Sandbox",
    "StoredImage",
    "Stream",
]


@dataclass(frozen=True)
class Reply:
    """A model's answer exactly as it came. ``usage_raw`` is the provider's own JSON; ``tries`` are failed tries."""

    text: str | None
    refusal: str = ""
    finish_reason: str = "stop"
    model: str = ""
    fingerprint: str = ""
    usage: Usage = Usage()
    usage_raw: str = ""
    matched_by: Literal["", "fingerprint", "order"] = ""
    tries: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestRefused:
    """The server refuses the form of a request: its schema, one parameter, or its length."""

    what: Literal["schema", "parameter", "context"]
    message: str
    parameter: str = ""


class Model(Protocol):
    """Answers requests. Keeps no state between calls. Raises ModelUnavailable when it gives up.

    Where it is reached over a network its ``server`` is the address, empty for its provider's own: see `server_of`.
    """

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Answer one request."""


def server_of(model: Model) -> str | None:
    """Return the address that a model is reached at; None for one that names none."""
    found = getattr(model, "server", None)
    return found if isinstance(found, str) else None


def same_server(recorded: str | None, model: Model, *, named: bool) -> str | None:
    """Return the server that a recorded session goes on at. Raises UsageError where it is another one, and nobody named it.

    A recording does not decide where prompts and a key go: its user does, once more.
    """
    here = server_of(model)
    if recorded is None or here is None or here == recorded or named:
        return here
    there = f"with --base-url {shlex.quote(recorded)}" if recorded else "with OPENAI_BASE_URL unset"
    raise UsageError(
        f"The session was made at {recorded or 'the provider'}, and would go on at {here or 'the provider'}.",
        remedy=f"Name the server: {there} it goes on where it was made.",
    )


@dataclass(frozen=True)
class Built:
    """An environment is ready. ``lock`` is what was installed: ``name==version`` lines with hashes."""

    image: str
    lock: str
    cached: bool


@dataclass(frozen=True)
class BuildRejected:
    """An environment cannot be as asked; ``packages`` are the requested ones at fault, where known."""

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


class ImageKeeper(Protocol):
    """What a sandbox that keeps images can say of them, and remove. For `codetape images`; no session needs it."""

    def images(self) -> list[StoredImage]:
        """Return the images that are kept."""

    def remove_image(self, key: str) -> bool:
        """Remove one; False where something still uses it."""


class Sandbox(Protocol):
    """Builds environments and runs untrusted code in them. Raises SandboxUnavailable; never runs unconfined."""

    def facts(self) -> SandboxFacts:
        """Say what this sandbox is and can do."""

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Have the environment built, or find it."""

    async def execute(self, job: Job) -> Execution:
        """Run a job. Everything that it started is dead and gone when this returns."""


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
    """A session's events in order, and the texts that they refer to, by hash."""

    events: tuple[Event, ...]
    texts: Mapping[str, str]

    def __repr__(self) -> str:
        """Say how much there is: `asyncio.run` makes the repr of every result, and this one's may have megabytes."""
        return f"Stream({len(self.events)} events, {len(self.texts)} texts)"


CALL_EVENT_KINDS = (
    "SessionStarted", "SessionForked", "Requested", "Answered", "CallRefused", "CallLost", "GaveUp", "Decided",
    "Suspended", "Succeeded", "Failed", "CodeReverted", "Resumed",
)  # fmt: skip
"""Kinds of events that say something of calls: a store may leave out the others."""


class CallEvent(NamedTuple):
    """One stored event, its payload as the JSON text that its hash covers."""

    session: str
    seq: int
    kind: str
    at: str
    payload: str


class EventStore(Protocol):
    """An append-only log of events. Raises StoreError, LeaseHeld, StaleLease, CorruptTape."""

    async def acquire(self, session: str) -> Lease:
        """Take the session's lease, or raise LeaseHeld."""

    async def append(
        self, event: Event, texts: Mapping[str, str], lease: Lease, reserve: Reservation | None = None
    ) -> None:
        """Append one event with its texts in one durable transaction, the lease checked in it.

        ``reserve`` is what the call that the event announces may come to: raises BudgetSpent, and appends nothing, where it
        does not fit into what one of its limits leaves. The next event of the session settles it; a lost call keeps it.
        """

    async def read(self, session: str) -> Stream:
        """Return a session's stream; its hashes and chain are checked."""


class Clock(Protocol):
    """Tells the time. ``now`` is UTC, ISO 8601 with milliseconds; ``monotonic_ms`` measures durations."""

    def now(self) -> str:
        """Return the time of day."""

    def monotonic_ms(self) -> int:
        """Return milliseconds since some fixed point."""
