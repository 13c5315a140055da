"""Which version of the rules reads a session's reports: the recorded one."""

from typing import Protocol

from codetape.artefacts import Attempts, Finding, Report
from codetape.decide import reports, v1
from codetape.decide.step import Step
from codetape.run import Run


class Laws(Protocol):
    """What a version of the rules makes of reports."""

    def executed(self, run: Run) -> Step:
        """Return the step after a run."""

    def standing(self, run: Run) -> Step | None:
        """Return the step where no run is needed."""

    def weighed(
        self, run: Run, report: Report, findings: tuple[Finding, ...], attempts: tuple[Attempts, ...], base: Step
    ) -> Step:
        """Return what findings owe."""


def laws(run: Run) -> Laws:
    """Return the version that the run's decisions are made by."""
    return v1 if run.rules == 1 else reports
