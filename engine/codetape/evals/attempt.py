"""One attempt at a task, in figures: a flat record for tables, reports and statistics."""

from dataclasses import dataclass

from codetape.domain.money import dollars
from codetape.domain.task import Grade
from codetape.eventlog.session_state import SessionState


@dataclass(frozen=True)
class Attempt:
    """The outcome of one session. ``solved`` is None where it did not end: that says nothing about model or prompts.

    ``graded`` says who judged: the task's oracle, or tests that the session wrote or found itself. Tokens and calls are
    the session's own; ``reused`` of the calls were answered from a recording and cost nothing. ``cost`` is in dollars
    and covers the calls that have a price; ``unpriced`` calls have none. ``cause`` says in a word why the session did
    not succeed.
    """

    task: str
    attempt: int
    session: str
    status: str
    solved: bool | None
    graded: Grade
    confidence: str = ""
    cause: str = ""
    reason: str = ""
    iterations: int = 0
    calls: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: str = ""
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    @classmethod
    def of(cls, session: SessionState, attempt: int = 1) -> "Attempt":
        """Make the record from a session's state."""
        ended = session.state in ("succeeded", "failed")
        return cls(
            task=session.the_task.id,
            attempt=attempt,
            session=session.session,
            status=session.state,
            solved=session.state == "succeeded" if ended else None,
            graded="oracle" if session.the_task.oracle else "self",
            confidence=session.confidence,
            cause=session.cause,
            reason=session.reason,
            iterations=session.ledger.iteration,
            # a fork's figures include its parent's up to the fork: those were paid for once already
            calls=session.calls - session.inherited_calls,
            reused=session.spent.reused,
            input_tokens=session.usage.total_input - session.inherited.total_input,
            output_tokens=session.usage.total_output - session.inherited.total_output,
            cost=dollars(session.spent.cost),
            unpriced=session.spent.unpriced,
        )
