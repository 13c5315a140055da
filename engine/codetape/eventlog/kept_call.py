"""What is kept of a call to a model: the facts that spend and audits are made of, without decoding an event."""

from typing import NamedTuple


class CallLabels(NamedTuple):
    """What all calls of a session share: its task, tags and model, the session at the root of its forks, and the first
    digits of its prompt pack's hash."""

    session: str
    task: str
    tags: tuple[str, ...]
    lineage: str
    model: str
    prompts: str


class KeptCall(NamedTuple):
    """One call, and what its session's later events said of it. Truth values are 0 or 1, as a database has them.

    ``state`` and ``iteration`` are those in which it was made. ``outcome`` is the kind of the event that closed it, empty
    for an open call. ``usable`` says what was decided on its reply, None where nothing was; ``code`` and ``tests`` whether
    that changed them, ``reverted`` whether the change was taken back. Token buckets are disjoint; ``cost`` is in
    picodollars, None without a price or a reply, 0 where a recording answered. ``reserved`` tokens may have been billed.
    """

    session: str
    seq: int
    at: str
    purpose: str
    fingerprint: str
    state: str
    iteration: int
    reserved: int
    outcome: str = ""
    usable: int | None = None
    repaired: int = 0
    code: int = 0
    tests: int = 0
    reverted: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: int = 0
    cost: int | None = None
    source: str = ""
    price_model: str = ""
    replayed: int = 0
    tries: int = 0
    duration_ms: int = 0

    @property
    def name(self) -> str:
        """The call's name: session and seq."""
        return f"{self.session}:{self.seq}"
