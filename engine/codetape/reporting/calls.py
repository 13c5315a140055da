"""Every call to a model, with its cost and what became of its output.

It is made of what stores keep of calls, so that ten thousand sessions take about a second; whether that is what their
events say, `verify` tells. Where nothing is kept, as of a tape, it is read from the events.

Dispositions: *accepted*, its output is part of the result, or led to it; *superseded*, later output replaced it;
*rejected*, the change was reverted, or the server refused the request's form; *repair*, it could not be used and was
requested again; *unusable*, it could not be used and nothing came of it; *transport retry*, it was lost or given up,
and made again; *abandoned*, it was lost, given up, or never decided on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from codetape.domain.money import dollars
from codetape.eventlog.kept_call import CallLabels, KeptCall

if TYPE_CHECKING:
    from codetape.eventlog.stored_event import StoredEvent
    from codetape.ports import Stream

Disposition = Literal["accepted", "superseded", "rejected", "repair", "unusable", "transport retry", "abandoned"]
DISPOSITIONS: tuple[Disposition, ...] = (
    "accepted",
    "superseded",
    "rejected",
    "repair",
    "unusable",
    "transport retry",
    "abandoned",
)


class CallRecord(NamedTuple):
    """One call. Token buckets are disjoint. ``cost`` is in picodollars: None without a price or a reply, 0 if replayed.

    ``lineage`` is the session at the root of the forks, ``prompts`` the first digits of the prompt pack's hash.
    ``reserved`` tokens, of a lost call or of tries without an answer, may have been billed. ``tries`` failed in
    transport before the reply came.
    """

    session: str
    seq: int
    task: str
    tags: tuple[str, ...]
    lineage: str
    model: str
    provider: str
    prompts: str
    purpose: str
    state: str
    iteration: int
    at: str
    disposition: Disposition
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False
    cost: int | None = None
    source: str = ""
    price_model: str = ""
    replayed: bool = False
    reserved: int = 0
    tries: int = 0
    duration_ms: int = 0

    @property
    def name(self) -> str:
        """The call's name: session and seq."""
        return f"{self.session}:{self.seq}"

    @property
    def paid(self) -> str:
        """What it cost, in a word for a table."""
        if self.replayed:
            return "replayed"
        return f"${dollars(self.cost)}" if self.cost is not None else self.source or "no answer"

    @property
    def total_input(self) -> int:
        """All input tokens."""
        return self.input + self.cache_read + self.cache_write

    @property
    def total_output(self) -> int:
        """All output tokens."""
        return self.output + self.reasoning


_SAME = KeptCall._fields.index("input"), KeptCall._fields.index("estimated")
"""Where the buckets stand in a kept call: their order is that of a record's."""


def _record(labels: CallLabels, provider: str, call: KeptCall, disposition: Disposition) -> CallRecord:
    """Return a call's record from what is kept of it. By place, for there may be a hundred thousand of them."""
    _, task, tags, lineage, model, prompts = labels
    made: CallRecord = tuple.__new__(
        CallRecord,
        (
            call.session,
            call.seq,
            task,
            tags,
            lineage,
            model,
            provider,
            prompts,
            call.purpose,
            call.state,
            call.iteration,
            call.at,
            disposition,
            *call[_SAME[0] : _SAME[1]],
            bool(call.estimated),
            call.cost,
            call.source,
            call.price_model,
            bool(call.replayed),
            call.reserved,
            call.tries,
            call.duration_ms,
        ),
    )
    return made


def records(kept: Iterable[tuple[CallLabels, Sequence[KeptCall]]]) -> Iterator[CallRecord]:
    """Yield the records of sessions' calls."""
    for labels, calls in kept:
        provider, sign, _ = labels.model.partition(":")
        provider = provider if sign else ""
        for call, disposition in zip(calls, dispositions(calls), strict=True):
            yield _record(labels, provider, call, disposition)


def records_of(events: "Iterable[StoredEvent]") -> Iterator[CallRecord]:
    """Yield the calls of sessions whose events come in the order of session and seq, parents before their forks.

    Raises CorruptTape for an invalid event.
    """
    from codetape.eventlog.call_history import CallHistory

    return records(CallHistory().sessions(events))


def dispositions(calls: Sequence[KeptCall]) -> list[Disposition]:
    """Return what became of the output of each of a session's calls."""
    # calls with output of their own come first: what a diagnosis or a check led to decides on its disposition
    last_code = max((i for i, call in enumerate(calls) if call.code and not call.reverted), default=-1)
    last_tests = max((i for i, call in enumerate(calls) if call.purpose == "tests" and call.tests), default=-1)
    found: dict[int, Disposition] = {}
    for i, call in enumerate(calls):
        if (disposition := _unusual(call, calls[i + 1 : i + 2])) is not None:
            found[i] = disposition
        elif call.purpose == "code":
            found[i] = "rejected" if call.reverted else "accepted" if i == last_code else "superseded"
        elif call.purpose in ("tests", "fix_tests"):
            found[i] = "accepted" if i >= last_tests and call.tests else "superseded"
        elif call.purpose in ("plan", "second_opinion", "packages", "replace_package"):
            found[i] = "accepted"
    for i, call in enumerate(calls):
        if i not in found:
            found[i] = _served(i, call, calls, found)
    return [found[i] for i in range(len(calls))]


def _unusual(call: KeptCall, following: Sequence[KeptCall]) -> Disposition | None:
    """Return the disposition of a call without usable output; None for the others."""
    if call.outcome == "CallRefused":
        return "rejected"
    if call.outcome != "Answered":
        return "transport retry" if following and following[0].fingerprint == call.fingerprint else "abandoned"
    if call.usable is None:
        return "abandoned"
    if not call.usable:
        return "repair" if call.repaired else "unusable"
    return None


def _served(i: int, call: KeptCall, calls: Sequence[KeptCall], found: Mapping[int, Disposition]) -> Disposition:
    """Return the disposition of a call without output of its own: a diagnosis shares that of what it led to, a check
    that of what it checked."""
    outputs = ("code", "tests", "fix_tests")
    if call.purpose == "diagnose":
        next_diagnosis = next((j for j in range(i + 1, len(calls)) if calls[j].purpose == "diagnose"), len(calls))
        served = [found[j] for j in range(i + 1, next_diagnosis) if j in found and calls[j].purpose in outputs]
    else:
        served = [found[j] for j in range(i - 1, -1, -1) if j in found and calls[j].purpose in outputs][:1]
    return "accepted" if "accepted" in served else "superseded"


def call_row(call: CallRecord) -> dict[str, Any]:
    """Return a call as a flat record, for tables; money in dollars, empty without a price."""
    cost = "" if call.cost is None else dollars(call.cost)
    return {
        **call._asdict(),
        "tags": ",".join(call.tags),
        "cost": cost,
        "total_input": call.total_input,
        "total_output": call.total_output,
    }


def stream_calls(stream: "Stream") -> Iterator[CallRecord]:
    """Yield the calls of a stream, those that it inherits among them."""
    from codetape.eventlog.envelope import stored
    from codetape.ports import CALL_EVENT_KINDS

    return records_of(stored(event) for event in stream.events if event.kind in CALL_EVENT_KINDS)
