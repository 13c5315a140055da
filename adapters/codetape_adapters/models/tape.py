"""A tape as a model: answers a request by its fingerprint, else with the purpose's next recorded answer.

Which of the two it was is recorded with the reply. It keeps count of the answers it gave: one object, one session.
"""

from collections import defaultdict
from typing import Any

from codetape import tape
from codetape.commands import Request
from codetape.errors import ModelUnavailable
from codetape.events import Answered
from codetape.ports import Reply, Stream
from codetape.reuse import reply_of


class TapeModel:
    """Answers from a recorded session."""

    free = True  # no call of it is paid for, so none needs a budget

    def __init__(self, name: str, stream: Stream) -> None:
        self.name = f"tape:{name}"
        self._texts = stream.texts
        self._answers: dict[str, list[tuple[str, Answered]]] = defaultdict(list)
        for call in tape.recorded_calls(stream):
            if isinstance(call.outcome, Answered):
                self._answers[call.request.purpose].append((call.request.fingerprint, call.outcome))

    async def ask(self, request: Request) -> Reply:
        """Give the recorded answer. Raises ModelUnavailable where the tape has none left for the purpose."""
        left = self._answers[request.purpose]
        if not left:
            raise ModelUnavailable(
                f"{self.name} has no further answer for {request.purpose}.",
                remedy="The run parted from its recording: use a live model from here.",
            )
        exact = next((i for i, (print_, _) in enumerate(left) if print_ == request.fingerprint), None)
        _, answer = left.pop(exact or 0)
        return reply_of(answer, self._texts, "order" if exact is None else "fingerprint")


def create(name: str, **_options: Any) -> TapeModel:
    """Make a model of the tape at a path."""
    return TapeModel(name, tape.load(name).stream)
