"""What a session gave: the same record for succeeded, failed and suspended, loadable from the log by its id."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import PrivateAttr

from codetape.domain.findings import Quarantined
from codetape.domain.frozen_model import FrozenModel
from codetape.domain.job import BuildSpec, Job
from codetape.domain.money import dollars, money, pico
from codetape.domain.reply_shapes import CodePlan, CodeSolution, ErrorDiagnosis
from codetape.domain.report import Report
from codetape.domain.task import SOLUTION_FILE, Config, Input, Output
from codetape.domain.usage import Usage
from codetape.errors import ScriptFailed, SessionNotSucceeded, UsageError
from codetape.eventlog.events import Answered, Decided, Requested, TestsFinished
from codetape.eventlog.fold import fold
from codetape.eventlog.session_state import SessionState
from codetape.ports import EventStore, Sandbox, Stream
from codetape.rules.build_approval import Approval, Approve
from codetape.rules.evidence import Evidence, evidence_of
from codetape.rules.failing_tests import FailingTest, failing
from codetape.rules.packages import spec_of
from codetape.rules.session_view import all_files
from codetape.runtime.script_io import collect, with_value
from codetape.runtime.sync import run_sync
from codetape.text.escape import first_line
from codetape.text.notebook_card import card


class TestCounts(FrozenModel):
    """The last report in numbers."""

    __test__ = False

    passed: int = 0
    failed: int = 0
    errors: int = 0
    quarantined: int = 0


class Exchange(FrozenModel):
    """One call to the model: what was asked, and what came back."""

    call: str
    purpose: str
    messages: tuple[tuple[str, str], ...]
    reply: str | None
    usage: Usage


@dataclass(frozen=True)
class ScriptRun:
    """What a verified script gave: its typed outputs by name, and what it printed, as far as it was kept."""

    outputs: dict[str, Any]
    stdout: str
    stderr: str


class GenerateResult(FrozenModel):
    """A session's outcome. ``status`` is succeeded, failed, suspended, or the state it is in while it runs.

    ``reason`` says why it did not succeed, ``diagnosis`` has the last root causes by test, of run ``diagnosed_run``; ``confidence`` says how far a
    success can be trusted, and ``evidence`` on what that rests. ``cost`` is in dollars, of the session's own calls that
    have a price, None where none has; ``unpriced`` of them have none, ``replayed`` came from a recording.
    """

    session: str
    status: str
    confidence: str = ""
    reason: str = ""
    task: str
    prompt: str
    iterations: int
    plan: CodePlan | None = None
    solution: CodeSolution | None = None
    tests: str = ""
    anchors: str = ""
    given_tests: str = ""
    duration_s: float = 0.0
    counts: TestCounts = TestCounts()
    report: Report | None = None
    failing: tuple[FailingTest, ...] = ()
    diagnosis: tuple[tuple[str, str], ...] = ()
    diagnosed_run: int = 0
    examples: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    evidence: Evidence = Evidence()
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    image: str = ""
    lock: str = ""
    question: str = ""
    conversation: tuple[Exchange, ...] = ()
    usage: Usage = Usage()
    usage_estimated: bool = False
    calls: int = 0
    parent: str = ""
    forked_at: int = 0
    inherited: Usage = Usage()
    inherited_calls: int = 0
    cost: str | None = "0.00"
    unpriced: int = 0
    replayed: int = 0
    head: str = ""
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    config: Config
    spec: BuildSpec

    _sandbox: Sandbox | None = PrivateAttr(default=None)
    _secrets: Callable[[], dict[str, str]] = PrivateAttr(default=dict)
    _recorded: bool = PrivateAttr(default=False)
    _allowed: bool | Approve = PrivateAttr(default=False)

    def __repr__(self) -> str:
        """Say which session and how it ended; `model_dump_json` gives everything."""
        return f"GenerateResult({self.session!r}, {self.status}, {self.confidence or self.reason!r})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        tone = {"succeeded": "good", "failed": "bad"}.get(self.status, "waiting")
        failing = [(f.test, "; ".join(f"{name} {text}" for name, text in f.details)) for f in self.failing[:5]]
        tokens = f"{self.usage.total_input:,} in, {self.usage.total_output:,} out, {self.calls} calls"
        tests = f"{self.counts.passed} passed, {self.counts.failed} failed, {self.counts.errors} errors"
        facts = [
            ("asked", first_line(self.prompt, 160)),
            *failing,
            *(("diagnosis", f"{test}: {cause}") for test, cause in self.diagnosis[:3]),
            ("tests", tests),
            ("runs", self.iterations),
            ("tokens", tokens),
            ("money", self.paid),
            ("session", self.session),
        ]
        code = self.solution.code if self.solution else ""
        return card(f"{self.status}{f': {self.reason}' if self.reason else f', {self.confidence}'}", tone, facts, code)

    @property
    def paid(self) -> str:
        """What the session paid, in words: what nobody bills is never $0."""
        replayed = f"{self.replayed} answers from a recording" if self.replayed else ""
        if self.calls - self.inherited_calls == self.replayed:  # so nothing was asked of a model that bills
            return f"none: {replayed or 'no call was answered'}"
        words = money(pico(self.cost or "0"), self.unpriced)
        return f"{words}; {replayed}, at $0" if replayed else words

    @property
    def succeeded(self) -> bool:
        """Whether the session ended with a verified script."""
        return self.status == "succeeded"

    @property
    def total_input_tokens(self) -> int:
        """Input tokens of all calls, cached, repaired and failed ones included."""
        return self.usage.total_input

    @property
    def total_output_tokens(self) -> int:
        """Output tokens of all calls, reasoning included."""
        return self.usage.total_output

    def raise_for_status(self) -> "GenerateResult":
        """Return self where the session succeeded; raise SessionNotSucceeded otherwise."""
        if not self.succeeded:
            raise SessionNotSucceeded(f"Session {self.session} is {self.status}: {self.reason}")
        return self

    @classmethod
    def of(cls, session: SessionState, stream: Stream | None = None) -> "GenerateResult":
        """Make the record from a session's state, and its conversation from the stream, where that is given."""
        work, task, spec = session.work, session.the_task, spec_of(session)
        diagnosis, of_run = _diagnosis(stream) if stream and session.state != "succeeded" else ((), 0)
        report = _oracles(stream) if stream and session.cause == "oracle" else work.report
        solution = CodeSolution(code=work.code, packages=session.ledger.packages) if work.code else None
        return cls(
            session=session.session,
            status=session.state,
            confidence=session.confidence,
            reason=session.reason,
            task=task.id,
            prompt=task.prompt,
            iterations=session.ledger.iteration,
            plan=work.plan,
            solution=solution,
            tests=work.tests,
            anchors=session.anchors or "",
            failing=failing(report, all_files(session), {q.test for q in work.quarantined}),
            diagnosis=diagnosis,
            diagnosed_run=of_run,
            examples=session.anchor_count,
            left_out=session.left_out,
            given_tests=task.tests,
            duration_s=_seconds(session),
            counts=_counts(session),
            report=work.report,
            quarantined=work.quarantined,
            evidence=evidence_of(session),
            packages=spec.packages,
            system_packages=spec.system_packages,
            image=work.environment.name if work.environment else "",
            lock=work.environment.lock if work.environment else "",
            question=work.question.subject if work.question and session.state == "suspended" else "",
            conversation=_conversation(stream) if stream else (),
            usage=session.usage,
            usage_estimated=session.usage_estimated,
            calls=session.calls,
            parent=session.parent,
            forked_at=session.forked_at,
            inherited=session.inherited,
            inherited_calls=session.inherited_calls,
            cost=dollars(session.spent.cost) if session.spent.cost or not session.spent.unpriced else None,
            unpriced=session.spent.unpriced,
            replayed=session.spent.reused,
            head=session.head,
            inputs=task.inputs,
            outputs=task.outputs,
            config=session.the_config,
            spec=spec,
        )

    @classmethod
    async def load(
        cls, store: EventStore, session: str, *, sandbox: Sandbox | None = None, allow_build: bool | Approve = False
    ) -> "GenerateResult":
        """Read a session's result from the log; with a sandbox, its script can be run.

        ``allow_build`` lets its environment be made as recorded, with commands, an image, packages that are not known,
        or limits above the usual; a function is asked whether it may, with what is wanted in words.
        """
        stream = await store.read(session)
        result = cls.of(fold(stream.events, stream.texts), stream)
        result._recorded, result._allowed = True, allow_build  # noqa: SLF001 - its own
        return result.bound(sandbox, dict) if sandbox else result

    def bound(self, sandbox: Sandbox, secrets: Callable[[], dict[str, str]]) -> "GenerateResult":
        """Return the result with the sandbox that `run` uses, and what gives its secrets (never recorded)."""
        self._sandbox, self._secrets = sandbox, secrets
        return self

    async def arun(self, **inputs: Any) -> dict[str, Any]:
        """Execute the verified script in its environment and return the typed outputs by name.

        Inputs that are not given take their samples. Raises ScriptFailed, with the end of the script's own
        traceback; UsageError for an unknown or missing input; SessionNotSucceeded where there is no verified script.
        """
        return (await self.aexecute(inputs)).outputs

    async def aexecute(self, inputs: Mapping[str, Any], *, stdin: bytes = b"") -> "ScriptRun":
        """As `arun`, with what the script reads as its standard input; returns what it printed too."""
        self.raise_for_status()
        if self._sandbox is None or self.solution is None:
            raise UsageError(
                "This result has no sandbox.", remedy="Load it with one: GenerateResult.load(..., sandbox=...)."
            )
        if self._recorded:
            Approval(self._allowed).check(self.spec, self._sandbox.facts(), self.config.resources)
        job = Job(
            purpose="script",
            spec=self.spec,
            files={SOLUTION_FILE: self.solution.code},
            inputs=self._given(inputs),
            outputs=self.outputs,
            resources=self.config.resources,
            env={**self.config.env_vars, **self._secrets()},
            stdin=stdin,
        )
        execution = await self._sandbox.execute(job)
        report = execution.report
        if report.exit != "ok":
            tail = (report.stderr or report.stdout).strip()[-2000:]
            how = f"exit code {report.exit_code}" if report.exit == "tests_failed" else report.exit
            raise ScriptFailed(f"The script failed ({how}):\n{tail}")
        return ScriptRun(collect(self.outputs, execution.outputs), report.stdout, report.stderr)

    def run(self, **inputs: Any) -> dict[str, Any]:
        """As `arun`, for code that is not async; works where a loop runs already, as in a notebook."""
        return run_sync(self.arun(**inputs))

    def as_task(self) -> Callable[..., dict[str, Any]]:
        """Return the script as a function of its inputs, the samples being the defaults."""
        self.raise_for_status()
        return self.run

    def _given(self, inputs: Mapping[str, Any]) -> tuple[Input, ...]:
        declared = {i.name.replace("-", "_"): i for i in self.inputs}
        if unknown := sorted(set(inputs) - set(declared)):
            raise UsageError(
                f"The script has no input {', '.join(unknown)}.", remedy=f"It has: {', '.join(declared) or 'none'}."
            )
        given = {n: with_value(i, inputs[n]) if n in inputs else i for n, i in declared.items()}
        if missing := [n for n, i in given.items() if i.value is None and i.sample is None]:
            raise UsageError(f"The script needs {', '.join(missing)}, which have no sample.", remedy="Give NAME=VALUE.")
        return tuple(given.values())


def _diagnosis(stream: Stream) -> tuple[tuple[tuple[str, str], ...], int]:
    """Return each test of the last diagnosis with its root cause, and how many runs had ended when it was made."""
    found, runs, of_run = "", 0, 0
    for event in stream.events:
        payload = event.payload
        if isinstance(payload, Decided):
            runs = payload.ledger.get("iteration", runs)
            if ref := payload.changes.get("diagnosis"):
                found, of_run = stream.texts[ref], runs
    failures = ErrorDiagnosis.model_validate_json(found).failures if found else ()
    return tuple((f.test_name, " ".join(f.root_cause.split())) for f in failures), of_run


def _oracles(stream: Stream) -> Report | None:
    """Return the oracle's report, which no prompt ever shows."""
    found = [e.payload for e in stream.events if isinstance(e.payload, TestsFinished) and e.payload.purpose == "oracle"]
    return Report.model_validate_json(stream.texts[found[-1].report]) if found else None


def _seconds(session: SessionState) -> float:
    """Return the time from the first event to the last."""
    try:
        first, last = (
            datetime.fromisoformat(at.replace("Z", "+00:00")) for at in (session.started_at, session.ended_at)
        )
    except ValueError:  # a day that there is not, on a tape from elsewhere
        return 0.0
    return (last - first).total_seconds()


def _counts(session: SessionState) -> TestCounts:
    tests = session.work.report.tests if session.work.report else ()
    gone = {q.test for q in session.work.quarantined}
    live = [t.outcome for t in tests if t.id not in gone]
    return TestCounts(
        passed=live.count("passed"),
        failed=live.count("failed"),
        errors=live.count("error") + live.count("unfinished"),
        quarantined=len(gone),
    )


def _conversation(stream: Stream) -> tuple[Exchange, ...]:
    asked = {e.payload.call: e.payload for e in stream.events if isinstance(e.payload, Requested)}
    found = []
    for event in stream.events:
        if isinstance(event.payload, Answered):
            request, answer = asked[event.payload.call], event.payload
            found.append(
                Exchange(
                    call=answer.call,
                    purpose=request.purpose,
                    messages=tuple((role, stream.texts[ref]) for role, ref in request.messages),
                    reply=stream.texts[answer.text] if answer.text else None,
                    usage=answer.usage,
                )
            )
    return tuple(found)
