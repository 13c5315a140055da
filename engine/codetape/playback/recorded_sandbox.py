"""A tape as a sandbox: builds and executions end as they were recorded. Nothing is executed.

An outcome is found by its request's fingerprint: what was not executed then has no outcome now. Recorded reports come
without the contents of outputs: a tape holds only their hashes.
"""

from collections import defaultdict
from typing import Any

from codetape.domain.job import BuildSpec, Job
from codetape.domain.report import Report
from codetape.domain.task import SandboxFacts
from codetape.errors import SandboxUnavailable
from codetape.eventlog.events import Answered, BuildFinished, BuildRefused, TestsFinished
from codetape.playback import tape_file
from codetape.ports import BuildRejected, Built, Execution, Sandbox


class TapeSandbox(Sandbox):
    """Answers builds and executions with recorded outcomes."""

    def __init__(self, recorded: tape_file.Tape) -> None:
        self._texts = recorded.stream.texts
        self._outcomes: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for call in tape_file.recorded_calls(recorded.stream):
            if not isinstance(call.outcome, Answered):
                self._outcomes[call.request.purpose].append((call.request.fingerprint, call.outcome))
        update = {"name": "tape", "confirms": recorded.run.rules > 2}  # before that, no run was made twice
        self._facts = recorded.run.the_config.sandbox.model_copy(update=update)

    def facts(self) -> SandboxFacts:
        """Say what the recorded sandbox was."""
        return self._facts

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Give the recorded build."""
        event = self._next("build", spec.fingerprint)
        if isinstance(event, BuildFinished):
            return Built(image=spec.name, lock=self._texts[event.lock], cached=True)
        if isinstance(event, BuildRefused):
            return BuildRejected(event.reason, self._texts[event.message], event.packages)
        raise SandboxUnavailable("The tape's next build did not end.", step="tape")

    async def execute(self, job: Job) -> Execution:
        """Give the recorded report."""
        event = self._next(job.purpose, job.fingerprint)
        if not isinstance(event, TestsFinished):
            raise SandboxUnavailable("The tape's next execution did not end.", step="tape")
        return Execution(Report.model_validate_json(self._texts[event.report]), {})

    def _next(self, purpose: str, fingerprint: str) -> Any:
        outcomes = self._outcomes[purpose]
        exact = next((event for print_, event in outcomes if print_ == fingerprint), None)
        if exact is None:
            raise SandboxUnavailable(
                f"The tape holds no outcome of this {purpose}: nothing of the kind was executed then.",
                remedy="The run diverged from its recording: use a real sandbox from here.",
                step="tape",
            )
        return exact


def create(place: str = "") -> TapeSandbox:
    """Make a sandbox of the tape at a path."""
    return TapeSandbox(tape_file.load(place))
