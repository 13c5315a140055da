"""Models that answer from recordings: from a whole tape, or from a recording first and then a live model."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from codetape.domain.model_request import ModelRequest
from codetape.errors import ModelUnavailable
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import Answered, Requested
from codetape.playback import tape_file
from codetape.ports import BatchEndpoint, Billing, Model, Reply, RequestRefused, Stream, complete

Key = tuple[str, int]
"""A request's fingerprint, and how often the session was answered it before."""


def answers(stream: Stream) -> dict[Key, Reply]:
    """Return a stream's recorded replies, each by its request's fingerprint and occurrence."""
    replies: dict[Key, Reply] = {}
    for fingerprint, number, answer in answered(stream):
        replies[fingerprint, number] = reply_of(answer, stream.texts)
    return replies


def answered(stream: Stream) -> list[tuple[str, int, Answered]]:
    """Return a stream's answers in order: the request's fingerprint, how often it was answered before, the answer."""
    fingerprints: dict[str, str] = {}
    counts: Counter[str] = Counter()
    rows = []
    for event in stream.events:
        payload = event.payload
        if isinstance(payload, Requested):
            fingerprints[payload.call] = payload.fingerprint
        elif isinstance(payload, Answered):
            fingerprint = fingerprints[payload.call]
            rows.append((fingerprint, counts[fingerprint], payload))
            counts[fingerprint] += 1
    return rows


def reply_of(
    answer: Answered, texts: Mapping[str, str], matched_by: Literal["fingerprint", "order"] = "fingerprint"
) -> Reply:
    """Return a recorded answer as a reply that is marked as reused."""
    return Reply(
        text=texts[answer.text] if answer.text is not None else None,
        reasoning=texts[answer.reasoning] if answer.reasoning is not None else "",
        refusal=texts[answer.refusal] if answer.refusal is not None else "",
        finish_reason=answer.finish_reason,
        model=answer.model,
        fingerprint=answer.fingerprint,
        usage=answer.usage,
        usage_raw=texts[answer.usage_raw] if answer.usage_raw else "",
        matched_by=matched_by,
    )


class RecordedThenLive(Model):
    """Answers from a recording by fingerprint and occurrence, else from a live model, made when it is first needed.

    A request's occurrence is how often the session was answered it, as its events tell: those that it has ``before``,
    and those that `saw` is told of. Use one object per session.
    """

    def __init__(
        self, name: str, live: Callable[[], Model], known: Mapping[Key, Reply], before: Iterable[Event]
    ) -> None:
        self.name = name
        self._make = live
        self._live: Model | None = None
        self._replies = known
        self._counts: Counter[str] = Counter()
        self._asked: dict[str, str] = {}
        for event in before:
            self.saw(event)

    def saw(self, event: Event) -> None:
        """Take note of an event of the session: only answers count as occurrences, as in `answered`."""
        if isinstance(event.payload, Requested):
            self._asked = {event.payload.call: event.payload.fingerprint}
        elif isinstance(event.payload, Answered) and event.payload.call in self._asked:
            self._counts[self._asked[event.payload.call]] += 1

    def free(self, request: ModelRequest) -> bool:
        """Whether a request's answer is recorded, so that it needs no budget."""
        return (request.fingerprint, self._counts[request.fingerprint]) in self._replies

    @property
    def billing(self) -> Billing:  # type: ignore[override]  # read only, and known when the live model is made
        """Who bills the live model's calls."""
        return self._model().billing

    @property
    def server(self) -> str | None:  # type: ignore[override]  # likewise
        """Where the live model is reached."""
        return self._model().server

    @property
    def batches(self) -> BatchEndpoint | None:  # type: ignore[override]  # likewise
        """Where the live model answers many requests together."""
        return self._model().batches

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Answer one request."""
        key = (request.fingerprint, self._counts[request.fingerprint])
        return self._replies.get(key) or await self._model().ask(request)

    def _model(self) -> Model:
        if self._live is None:
            self._live = complete(self._make())
        return self._live


class TapeModel(Model):
    """Answers from a recorded session: a request by its fingerprint, else with the purpose's next recorded reply.

    The reply records which of the two it was. Each recorded reply is given once: use one object per session.
    """

    def __init__(self, name: str, stream: Stream) -> None:
        self.name = f"tape:{name}"
        self._texts = stream.texts
        self._answers: dict[str, list[tuple[str, Answered]]] = defaultdict(list)
        for call in tape_file.recorded_calls(stream):
            if isinstance(call.outcome, Answered):
                self._answers[call.request.purpose].append((call.request.fingerprint, call.outcome))

    def free(self, request: ModelRequest) -> bool:
        """Every answer is recorded, so no request needs a budget."""
        return True

    async def ask(self, request: ModelRequest) -> Reply:
        """Give the recorded reply. Raises ModelUnavailable where the tape has none left for the purpose."""
        remaining = self._answers[request.purpose]
        if not remaining:
            raise ModelUnavailable(
                f"{self.name} has no further answer for {request.purpose}.",
                remedy="The run diverged from its recording: use a live model from here.",
            )
        exact = next((i for i, (print_, _) in enumerate(remaining) if print_ == request.fingerprint), None)
        _, answer = remaining.pop(exact or 0)
        return reply_of(answer, self._texts, "order" if exact is None else "fingerprint")


def create(name: str, **_options: Any) -> TapeModel:
    """Make a model of the tape at a path."""
    return TapeModel(name, tape_file.load(name).stream)
