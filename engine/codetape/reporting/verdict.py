"""What a session came to, in the words that every command, report and page says first."""

from dataclasses import dataclass
from typing import Literal

from codetape.eventlog.session_state import SessionState
from codetape.rules.failing_tests import FailingTest
from codetape.runtime.result import GenerateResult
from codetape.text.escape import first_line

Tone = Literal["good", "bad", "waiting"]
SHOWN = 5  # failing tests that are told one by one
CONFIDENCE = {
    "oracle": "your oracle passed",
    "anchored": "your examples or tests passed",
    "self_tested": "only tests that it wrote itself passed",
    "disputed": "what passed outweighs a test or an example that speaks against it, and was set aside",
    "untested": "nothing was tested",
}


@dataclass(frozen=True)
class Verdict:
    """A verdict in a sentence; for a session without success its failing tests, and what was said of their causes last.

    ``tone`` is good, bad, or waiting for a session without an end. ``causes`` are pairs of a test and its root cause, and
    ``of_run`` says which run of ``runs`` they are of: the last may have none.
    """

    tone: Tone
    sentence: str
    failing: tuple[FailingTest, ...] = ()
    causes: tuple[tuple[str, str], ...] = ()
    of_run: int = 0
    runs: int = 0

    @property
    def diagnosed(self) -> str:
        """Which run the last diagnosis is of, in words; empty where there is none."""
        if not self.causes:
            return ""
        later = f"; those of run {self.runs} were not diagnosed" if self.of_run < self.runs else ""
        return f"of the failures of run {self.of_run}{later}"

    def lines(self) -> list[tuple[str, str]]:
        """Return what is failing, and why, as names and lines."""
        said = []
        for failure in self.failing[:SHOWN]:
            said.append(("failing", first_line(failure.test, 200)))
            said += [(name, first_line(text, 300)) for name, text in failure.details]
        if len(self.failing) > SHOWN:
            said.append(("failing", f"and {len(self.failing) - SHOWN} more; --json has them all"))
        if self.causes:
            said.append(("diagnosis", self.diagnosed))
        return said + [("", first_line(f"{test}: {cause}", 300)) for test, cause in self.causes[:SHOWN]]


def verdict_of(result: GenerateResult, session: SessionState) -> Verdict:
    """Return a session's verdict."""
    if result.succeeded:
        return Verdict("good", f"succeeded, {result.confidence}: {CONFIDENCE[result.confidence]}")
    tone: Tone = "bad" if result.status == "failed" else "waiting"
    return Verdict(
        tone,
        f"{result.status}: {result.reason or without_end(session)}",
        result.failing,
        result.diagnosis,
        result.diagnosed_run,
        result.iterations,
    )


def without_end(session: SessionState) -> str:
    """Say of a session that has no end what it waits for."""
    if session.call is not None and session.call.batch:
        return f"its call waits in batch {session.call.batch_id or session.call.batch}"
    return "it has no end yet"
