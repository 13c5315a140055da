"""Which version of the rules reads a session's reports: the recorded one."""

from typing import Protocol

from codetape.decider import rules_v1, weighing
from codetape.decider.step import Step
from codetape.domain.findings import Finding, FixCounts
from codetape.domain.report import Report
from codetape.eventlog.session_state import SessionState


class RuleSet(Protocol):
    """What a version of the rules makes of reports."""

    def executed(self, session: SessionState) -> Step:
        """Return the step after a run."""

    def standing(self, session: SessionState) -> Step | None:
        """Return the step where no run is needed."""

    def weighed(
        self,
        session: SessionState,
        report: Report,
        findings: tuple[Finding, ...],
        attempts: tuple[FixCounts, ...],
        base: Step,
    ) -> Step:
        """Return what findings owe."""


def rule_set(session: SessionState) -> RuleSet:
    """Return the version that the run's decisions are made by."""
    return rules_v1 if session.rules == 1 else weighing
