"""A fake of each port: short, deterministic, and tested by the same contract suite as the real ones."""

from collections.abc import Callable, Iterable, Mapping

from codetape.domain.job import BuildSpec, Job
from codetape.domain.model_request import ModelRequest
from codetape.domain.report import Report, TestResult
from codetape.domain.task import SandboxFacts
from codetape.domain.usage import Usage
from codetape.errors import ModelUnavailable
from codetape.ports import BuildRejected, Built, Execution, Model, Reply, RequestRefused, Sandbox
from codetape.rules.classify import expected_names
from codetape.testing.memory_store import MemoryStore

__all__ = ["FakeClock", "FakeSandbox", "MemoryStore", "ScriptedModel", "passing_report"]

Answer = str | Reply | RequestRefused | Exception


class ScriptedModel(Model):
    """Answers from a script: by purpose in order (the last one repeats), or by a function of the request."""

    def __init__(
        self, answers: Mapping[str, Iterable[Answer]] | Callable[[ModelRequest], Answer], *, name: str = "scripted"
    ) -> None:
        self.name = name
        self.requests: list[ModelRequest] = []
        self._function = answers if callable(answers) else None
        self._answers = {} if callable(answers) else {purpose: list(replies) for purpose, replies in answers.items()}

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Give the next answer; an Exception in the script is raised."""
        self.requests.append(request)
        answer = self._function(request) if self._function else self._next(request.purpose)
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, str):
            return answer
        usage = Usage(input=request.input_estimate, output=len(answer) // 4 + 1, source="estimated")
        return Reply(text=answer, model=self.name, usage=usage)

    def _next(self, purpose: str) -> Answer:
        remaining = self._answers.get(purpose)
        if not remaining:
            raise ModelUnavailable(f"The script has no answer for {purpose}.")
        return remaining.pop(0) if len(remaining) > 1 else remaining[0]


class FakeSandbox(Sandbox):
    """Runs nothing: a function returns a job's report. By default every expected test passes, but fails in vetting."""

    def __init__(
        self,
        execute: Callable[[Job], Report] | None = None,
        build: Callable[[BuildSpec], Built | BuildRejected] | None = None,
        *,
        facts: SandboxFacts | None = None,
    ) -> None:
        self._execute, self._build = execute or passing_report, build
        self._facts = facts or SandboxFacts(name="fake", python="3.11")
        self.jobs: list[Job] = []
        self.specs: list[BuildSpec] = []

    def facts(self) -> SandboxFacts:
        """Say what this sandbox is."""
        return self._facts

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Return the function's outcome; without one every build succeeds."""
        self.specs.append(spec)
        lock = "".join(f"{name}==1.0\n" for name in spec.all_packages)
        return self._build(spec) if self._build else Built(image=spec.name, lock=lock, cached=False)

    async def execute(self, job: Job) -> Execution:
        """Return the function's report."""
        self.jobs.append(job)
        return Execution(self._execute(job), {})


def passing_report(job: Job) -> Report:
    """Return a whole report in which every expected test passes; under vetting, every one fails."""
    targets = {name: job.files[name] for name in job.targets}
    names = [n for n in expected_names(targets) if n not in job.deselect]
    vetting = job.purpose == "vet"  # vetting runs the tests on a stub, which a sound test must fail
    results = tuple(
        TestResult(id=n, outcome="failed" if vetting else "passed", exception="AssertionError" if vetting else "")
        for n in names
    )
    return Report(
        exit="tests_failed" if vetting and names else "ok",
        whole=True,
        exit_code=int(vetting),
        collected=tuple(names),
        tests=results,
    )


class FakeClock:
    """A clock that advances one second each time `now` is read."""

    def __init__(self) -> None:
        self._seconds = 0

    def now(self) -> str:
        """Return the next second of 2026."""
        self._seconds += 1
        minutes, seconds = divmod(self._seconds, 60)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        return f"2026-01-{days + 1:02d}T{hours:02d}:{minutes:02d}:{seconds:02d}.000Z"

    def monotonic_ms(self) -> int:
        """Return the time that has passed, in milliseconds; reading it advances nothing."""
        return self._seconds * 1000
