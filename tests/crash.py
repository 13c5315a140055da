"""A session in a process of its own that is killed with SIGKILL: at a numbered point, or whenever its parent likes.

The world outside answers by what it is asked alone, so that a run that was killed and resumed meets the same world.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

from codetape import AutoCoderAgent
from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.eventlog.envelope import stored
from codetape.playback.verify import verify
from codetape.ports import Reply
from codetape.testing import FakeSandbox
from codetape_adapters.stores.sqlite import log as log_module
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.helpers.forked import started
from tests.support import ADD, ADD_TESTS, SUBTRACT, diagnosis, failure, opinions, plan

SESSION = "s"


class Points:
    """Counts the points that are passed; at the fatal one the process kills itself. Each is written to a file first."""

    def __init__(self, trace, fatal=-1):
        self._fd = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.passed, self._fatal = 0, fatal

    def say(self, line):
        os.write(self._fd, line.encode() + b"\n")

    def at(self, name):
        if self.passed == self._fatal:
            self.say(f"killed {name}")
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1


class Model:
    """Wrong code first, right code once a failing test is shown; every ask is written down before it is answered."""

    name = "steady"

    def __init__(self, points, wait=0.0):
        self._points, self._wait = points, wait

    async def ask(self, request):
        self._points.say(f"ask {request.fingerprint}")
        self._points.at("in an ask")
        await asyncio.sleep(self._wait)
        failing = "# Failing tests" in request.messages[1].content or "AssertionError" in request.messages[1].content
        texts = {
            "plan": plan(),
            "code": ADD if failing else SUBTRACT,
            "tests": ADD_TESTS,
            "second_opinion": opinions("3", "4"),
            "diagnose": diagnosis(failure("test_sum", fixes=[("a - b", "a + b")])),
        }
        self._points.at("after an answer")
        return Reply(text=texts[request.purpose], model=self.name)


class Sandbox(FakeSandbox):
    """Tests fail while the code subtracts."""

    def __init__(self, points, wait=0.0):
        super().__init__()
        self._points, self._wait = points, wait

    async def build(self, spec):
        self._points.at("in a build")
        return await super().build(spec)

    async def execute(self, job):
        self._points.at("in an execution")
        await asyncio.sleep(self._wait)
        execution = await super().execute(job)
        self._points.at("after an execution")
        if job.purpose == "run" and "a - b" in job.files["solution.py"]:
            return type(execution)(_failing(execution.report), {})
        return execution


def _failing(report):
    wrong = TestResult(
        id="test_solution.py::test_sum",
        outcome="failed",
        exception="AssertionError",
        message="assert -1 == 3",
        frames=(Frame(file="test_solution.py", line=5),),
        comparison=Comparison(op="==", left="-1", right="3"),
    )
    rest = tuple(t for t in report.tests if t.id != wrong.id)
    return Report(exit="tests_failed", whole=True, exit_code=1, collected=report.collected, tests=(wrong, *rest))


class Store(SqliteStore):
    """A point before, inside and after each commit; what was acknowledged is written down."""

    def __init__(self, path, points):
        super().__init__(path)
        self._points = points
        project = log_module.project if not hasattr(log_module.project, "real") else log_module.project.real

        def projected(db, event, texts):
            project(db, event, texts)
            points.at("inside a commit")

        projected.real = project
        log_module.project = projected

    async def append_all(self, entries, lease, reserve=None):
        self._points.at("before a commit")
        await super().append_all(entries, lease, reserve)
        for event, _ in entries:
            self._points.say(f"done {event.seq} {event.hash}")
        self._points.at("after a commit")


def drive(path, trace, fatal=-1, wait=0.0):
    """Run the session, or resume it where it has begun; return the result and how many points were passed."""
    points = Points(trace, fatal)
    store = Store(path, points)
    agent = AutoCoderAgent(model=Model(points, wait), sandbox=Sandbox(points, wait), store=store)
    begun = SESSION in store.stored_sessions()
    work = agent.aresume(SESSION) if begun else agent.agenerate("Add two numbers.", session=SESSION)
    result = asyncio.run(work)
    store.close()
    return result, points.passed


def killed(path, trace, fatal=-1, wait=0.0, after=None):
    """Run the session in another process until it kills itself at a point, or is killed after some seconds; return its exit code."""
    process = started(drive, str(path), str(trace), fatal, wait)
    if after is not None:
        time.sleep(after)
        process.kill()
    process.join(60)
    return process.exitcode


def lines(trace, word):
    return [line.split()[1:] for line in Path(trace).read_text().splitlines() if line.startswith(word)]


def check(path, trace, result, base):
    """What was acknowledged is there, nothing is doubled, and the end is that of the run which nobody killed."""
    store = SqliteStore(path)
    stream = asyncio.run(store.read(SESSION))
    assert store.disagreeing(SESSION, stream.events, stream.texts) == []
    store.close()
    there = {(str(e.seq), e.hash) for e in stream.events}
    assert {tuple(words) for words in lines(trace, "done")} <= there
    assert verify([stored(e) for e in stream.events], stream.texts).sound
    assert ending(result) == ending(base[0])
    asked, once = lines(trace, "ask"), base[2]
    lost = sum(e.kind == "CallLost" for e in stream.events)
    assert len(once) <= len(asked) <= len(once) + lost
    assert {tuple(a) for a in asked} == {tuple(a) for a in once}
    answered = [e for e in stream.events if e.kind == "Answered"]
    assert len(answered) == len(once)


def ending(result):
    return (
        result.status,
        result.confidence,
        result.reason,
        result.iterations,
        result.solution,
        result.tests,
        result.report,
    )
