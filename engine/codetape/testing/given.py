"""Given a history, when a call ends so, then that is decided: a session without a driver, a store or a clock.

    story = Given("Add two numbers.").replies(plan_json).replies(code_block)
    assert story.purpose == "tests"

Every outcome becomes an event, and every decision that follows from it is recorded at once, as a session would do it.
A step takes well under a millisecond.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Self

from codetape.decider import decide
from codetape.decider.commands import Build, CallModel, Command, Execute, Record
from codetape.decider.request_events import requested
from codetape.domain.canonical import canonical
from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.domain.task import TEST_FILE, Config, SandboxFacts, Task
from codetape.domain.usage import Usage
from codetape.eventlog import machine
from codetape.eventlog.envelope import Event, encode
from codetape.eventlog.events import (
    Answered,
    Blobs,
    BuildFinished,
    BuildRefused,
    CallLost,
    CallRefused,
    Decided,
    NewEvent,
    Payload,
    TestsFinished,
)
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.rules.rule_versions import RULES_VERSION
from codetape.runtime.prompt_pack_files import load_pack
from codetape.runtime.session import started
from codetape.runtime.versions import versions as versions_of_this_process
from codetape.testing.fakes import passing_report

RefusedForm = Literal["schema", "parameter", "context", "output"]


@cache
def _pack() -> dict[str, str]:
    return load_pack()


@dataclass
class Given:
    """A session of a prompt; ``settings`` are fields of its configuration, ``task`` further fields of the task.

    ``rules`` is the version of the rules that decides; the present one by default.
    """

    prompt: str = "Write add(a, b): the sum of two numbers."
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    rules: int = RULES_VERSION

    def __post_init__(self) -> None:
        self.events: list[Event] = []
        self.blobs: dict[str, str] = {}
        self.state = SessionState(session="s")
        self._decided: tuple[SessionState | None, Command | None] = (None, None)
        facts = SandboxFacts(name="fake", python="3.11", system_packages=True, commands=True)
        config = Config.model_validate({"model": "any", "sandbox": facts, **self.settings})
        task = Task.model_validate({"id": "t", "prompt": self.prompt, **self.task})
        new = started(task, config, _pack())
        recorded = {"rules": self.rules, "machine": machine.VERSION if self.rules > 2 else 1}
        versions = {"versions": versions_of_this_process().model_copy(update=recorded)}
        self._append(NewEvent(new.payload.model_copy(update=versions), new.texts))
        self._settle()

    # ---- when

    def replies(self, *texts: str, finish_reason: str = "stop") -> Self:
        """The model replies to the pending call, and to those that follow."""
        for text in texts:
            self._expect(CallModel)
            blobs = Blobs()
            answered = Answered(call=self._call, text=blobs.put(text), usage=Usage(), finish_reason=finish_reason)
            self._close(answered, blobs)
        return self

    def is_refused(
        self, what: RefusedForm, message: str = "no", *, cap: int = 0, window: int = 0, prompt: int = 0
    ) -> Self:
        """The server refuses the pending call's form, and may name limits: ``cap``, ``window``, ``prompt``."""
        self._expect(CallModel)
        blobs = Blobs()
        refused = CallRefused(
            call=self._call, what=what, message=blobs.put(message), cap=cap, window=window, prompt=prompt
        )
        self._close(refused, blobs)
        return self

    def builds(self) -> Self:
        """The environment is ready."""
        command = self._expect(Build)
        blobs = Blobs()
        self._close(BuildFinished(call=self._call, image=command.spec.name, lock=blobs.put(""), cached=True), blobs)
        return self

    def refuses(
        self, *packages: str, reason: Literal["not_found", "no_wheel", "conflict", "unknown"] = "not_found"
    ) -> Self:
        """The environment cannot be built, for these packages."""
        self._expect(Build)
        blobs = Blobs()
        message = blobs.put(f"{', '.join(packages)}: {reason}")
        self._close(BuildRefused(call=self._call, reason=reason, packages=packages, message=message), blobs)
        return self

    def reports(self, failed: Mapping[str, TestResult] | None = None, report: Report | None = None) -> Self:
        """The job is executed: every test passes but those in ``failed`` (by name); on a stub every test fails."""
        job = self._expect(Execute).job
        result = report or passing_report(job)
        if failed:
            tests = tuple(failed.get(t.id.partition("::")[2], t) for t in result.tests)
            tests = tuple(t.model_copy(update={"id": old.id}) for t, old in zip(tests, result.tests, strict=True))
            ended = {} if report else {"exit": "tests_failed", "exit_code": 1}
            result = result.model_copy(update={"tests": tests, **ended})
        blobs = Blobs()
        outcomes = [t.outcome for t in result.tests]
        finished = TestsFinished(
            call=self._call,
            purpose=job.purpose,
            exit=result.exit,
            whole=result.whole,
            passed=outcomes.count("passed"),
            failed=outcomes.count("failed"),
            errors=outcomes.count("error") + outcomes.count("unfinished"),
            skipped=outcomes.count("skipped"),
            report=blobs.put(canonical(result.model_dump(mode="json"))),
        )
        self._close(finished, blobs)
        return self

    def loses_the_call(self) -> Self:
        """The outcome of the pending call will never be known."""
        self._close(CallLost(call=self._call), Blobs())
        return self

    # ---- then

    @property
    def command(self) -> Command | None:
        """The session's next command; None where it ended or waits."""
        if self._decided[0] is not self.state:
            self._decided = (self.state, decide(self.state))
        return self._decided[1]

    @property
    def purpose(self) -> str:
        """The purpose of the next model call or job, or ``build``; the state's name where there is no command."""
        command = self.command
        if isinstance(command, CallModel):
            return str(command.request.purpose)
        if isinstance(command, Execute):
            return str(command.job.purpose)
        return "build" if command else self.state.state

    @property
    def decision(self) -> Decided:
        """The last decision."""
        return next(e.payload for e in reversed(self.events) if isinstance(e.payload, Decided))

    def said(self, kind: type[Payload]) -> list[Payload]:
        """Return the events of a kind."""
        return [event.payload for event in self.events if type(event.payload) is kind]

    @property
    def prompt_text(self) -> str:
        """The last message of the pending model call."""
        return str(self._expect(CallModel).request.messages[-1].content)

    # ---- how

    def _expect(self, kind: Any) -> Any:
        command = self.command
        assert isinstance(command, kind), f"the session wants {self.purpose}, not {kind.__name__}"
        return command

    @property
    def _call(self) -> str:
        """The id of the open call, else of the next one."""
        return self.state.call.call if self.state.call else f"{self.state.session}:{self.state.seq}"

    def _close(self, payload: Payload, blobs: Blobs) -> None:
        command = self.command
        if isinstance(command, CallModel | Build | Execute):
            self._append(requested(self.state, command))
        self._append(NewEvent(payload, blobs))
        self._settle()

    def _settle(self) -> None:
        while isinstance(command := self.command, Record):
            self._append(command.draft)

    def _append(self, new: NewEvent) -> None:
        self.blobs.update(new.texts)
        event = encode("s", self.state.seq, "2026-01-01T00:00:00.000Z", new.payload, self.state.head)
        self.state = apply(self.state, event, self.blobs)
        self.events.append(event)


def failed_test(
    message: str = "assert 1 == 2", *, left: str = "1", right: str = "2", line: int = 5, file: str = TEST_FILE
) -> TestResult:
    """Return a failing comparison in a test's own assertion; `Given.reports` gives it its id."""
    return TestResult(
        id="",
        outcome="failed",
        exception="AssertionError",
        message=message,
        frames=(Frame(file=file, line=line),),
        comparison=Comparison(op="==", left=left, right=right),
    )


def raised(exception: str, message: str = "", *, file: str = "solution.py", line: int = 2) -> TestResult:
    """Return a test that ended with an exception of a file."""
    frames = (Frame(file=TEST_FILE, line=5), Frame(file=file, line=line))
    return TestResult(id="", outcome="failed", exception=exception, message=message, frames=frames)
