"""A model that answers what a recording still answers, and asks a live one for the rest."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from codetape.commands import Request
from codetape.events import Answered, Requested
from codetape.ports import Model, Reply, RequestRefused, Stream, server_of

Key = tuple[str, int]
"""A request's fingerprint, and how often it was answered before."""


def answers(stream: Stream) -> dict[Key, Reply]:
    """Return a stream's recorded answers, each by its request's fingerprint and occurrence."""
    found: dict[Key, Reply] = {}
    for fingerprint, number, answer in answered(stream):
        found[fingerprint, number] = reply_of(answer, stream.texts)
    return found


def answered(stream: Stream) -> list[tuple[str, int, Answered]]:
    """Return a stream's answers in order: the request's fingerprint, how often it was answered before, the answer."""
    asked: dict[str, str] = {}
    counts: Counter[str] = Counter()
    found = []
    for event in stream.events:
        payload = event.payload
        if isinstance(payload, Requested):
            asked[payload.call] = payload.fingerprint
        elif isinstance(payload, Answered):
            fingerprint = asked[payload.call]
            found.append((fingerprint, counts[fingerprint], payload))
            counts[fingerprint] += 1
    return found


def reply_of(
    answer: Answered, texts: Mapping[str, str], matched_by: Literal["fingerprint", "order"] = "fingerprint"
) -> Reply:
    """Return a recorded answer as a reply that is marked as such."""
    return Reply(
        text=texts[answer.text] if answer.text is not None else None,
        refusal=texts[answer.refusal] if answer.refusal is not None else "",
        finish_reason=answer.finish_reason,
        model=answer.model,
        fingerprint=answer.fingerprint,
        usage=answer.usage,
        usage_raw=texts[answer.usage_raw] if answer.usage_raw else "",
        matched_by=matched_by,
    )


class Reusing:
    """Answers from a recording by fingerprint and occurrence, else from a live model, made when it is first needed.

    It counts what the session asked: one object, one session. ``before`` is what the session was answered already.
    """

    def __init__(
        self, name: str, live: Callable[[], Model], known: Mapping[Key, Reply], before: Mapping[str, int]
    ) -> None:
        self.name = name
        self._make = live
        self._live: Model | None = None
        self._known = known
        self._counts = Counter(before)

    def free(self, request: Request) -> bool:
        """Whether a request's answer is recorded: it needs no budget."""
        return (request.fingerprint, self._counts[request.fingerprint]) in self._known

    @property
    def billing(self) -> tuple[str, str]:
        """Who bills the live model's calls."""
        found: tuple[str, str] = getattr(self._model(), "billing", ("", ""))
        return found

    @property
    def server(self) -> str | None:
        """Where the live model is reached."""
        return server_of(self._model())

    async def ask(self, request: Request) -> Reply | RequestRefused:
        """Answer one request."""
        key = (request.fingerprint, self._counts[request.fingerprint])
        reply = self._known.get(key) or await self._model().ask(request)
        if isinstance(reply, Reply):
            self._counts[request.fingerprint] += 1
        return reply

    def _model(self) -> Model:
        if self._live is None:
            self._live = self._make()
        return self._live
