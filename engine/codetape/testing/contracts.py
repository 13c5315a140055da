"""The contract suites: one a port. An adapter's author subclasses one and says how the adapter is made.

    class TestMyModel(ModelContract):
        def make(self):
            return MyModel()

They need pytest, which is not among codetape's own dependencies.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import pytest

from codetape.domain.canonical import sha256
from codetape.domain.job import BuildSpec, Job
from codetape.domain.model_request import Message, ModelRequest
from codetape.domain.task import Input, Output, Resources
from codetape.errors import LeaseHeld, StaleLease, StoreError
from codetape.eventlog.envelope import Event, encode
from codetape.eventlog.events import AnchorsExtracted, Blobs
from codetape.ports import Built, EventStore, Model, Reply, Sandbox


class ModelContract(ABC):
    """What every model must do. ``make`` gives a model that can answer ``request``."""

    @abstractmethod
    def make(self) -> Model:
        """Make the model under test."""

    def request(self) -> ModelRequest:
        """Return a request that the model can answer."""
        messages = (Message(role="system", content="Be brief."), Message(role="user", content="Say a word."))
        return ModelRequest(model="any", purpose="code", messages=messages, max_output_tokens=512)

    def test_an_answer_has_text_and_usage(self) -> None:
        """A reply says what came, why it ended, and what it cost."""
        reply = asyncio.run(self.make().ask(self.request()))
        assert isinstance(reply, Reply)
        assert reply.text
        assert reply.finish_reason in ("stop", "length")
        assert reply.usage.total_input > 0
        assert reply.usage.total_output > 0

    def test_the_request_is_left_alone(self) -> None:
        """A request's fingerprint is the same after it was answered."""
        request = self.request()
        before = request.fingerprint
        asyncio.run(self.make().ask(request))
        assert request.fingerprint == before

    def test_two_models_answer_at_once(self) -> None:
        """Nothing is shared that two sessions in one process could disturb."""

        async def both() -> list[object]:
            return list(await asyncio.gather(*(self.make().ask(self.request()) for _ in range(2))))

        assert all(isinstance(reply, Reply) for reply in asyncio.run(both()))


class StoreContract(ABC):
    """What every event store must do. ``make`` gives an empty store."""

    @abstractmethod
    def make(self) -> EventStore:
        """Make the store under test."""

    def test_what_was_appended_is_read(self) -> None:
        """Events come back in order, with their texts."""
        store = self.make()
        events, texts = asyncio.run(_appended(store, 5))
        stream = asyncio.run(store.read("s"))
        assert stream.events == events
        assert all(stream.texts[key] == text for key, text in texts.items())

    def test_a_gap_or_a_second_at_one_seq_is_refused(self) -> None:
        """Only the event that follows the log is taken, and a refused one leaves nothing."""
        store = self.make()
        events, _ = asyncio.run(_appended(store, 2))

        async def wrong(seq: int, head: str) -> None:
            lease = await store.acquire("s")
            try:
                await store.append(_event(seq, head, Blobs()), {}, lease)
            finally:
                lease.release()

        for seq, head in ((1, events[0].hash), (3, events[1].hash), (2, "0" * 64)):
            with pytest.raises(StoreError):
                asyncio.run(wrong(seq, head))
        assert asyncio.run(store.read("s")).events == events

    def test_one_holder_at_a_time(self) -> None:
        """A held lease is refused; a released one is given; a late writer fails on its token."""
        store = self.make()

        async def fight() -> None:
            first = await store.acquire("s")
            with pytest.raises(LeaseHeld):
                await store.acquire("s")
            first.release()
            second = await store.acquire("s")
            assert second.token > first.token
            with pytest.raises(StaleLease):
                await store.append(_event(0, "0" * 64, Blobs()), {}, first)
            second.release()

        asyncio.run(fight())

    def test_an_unknown_session_is_named(self) -> None:
        """Reading what is not there says so."""
        with pytest.raises(StoreError, match="nobody"):
            asyncio.run(self.make().read("nobody"))


def _event(seq: int, head: str, texts: Blobs) -> Event:
    payload = AnchorsExtracted(count=seq, anchors=texts.put(f"text {seq} \u00e9 \U0001f600"))
    return encode("s", seq, "2026-01-01T00:00:00.000Z", payload, head)


async def _appended(store: EventStore, count: int) -> tuple[tuple[Event, ...], dict[str, str]]:
    lease = await store.acquire("s")
    head, events, kept = "0" * 64, [], dict[str, str]()
    for seq in range(count):
        texts = Blobs()
        event = _event(seq, head, texts)
        await store.append(event, texts, lease)
        head = event.hash
        events.append(event)
        kept |= texts
    lease.release()
    return tuple(events), kept


class SandboxContract(ABC):
    """What every sandbox must do. ``make`` gives one that really executes."""

    @abstractmethod
    def make(self) -> Sandbox:
        """Make the sandbox under test."""

    def spec(self) -> BuildSpec:
        """Return the plainest environment."""
        return BuildSpec(python_version=self.make().facts().python)

    def job(self, solution: str, tests: str = "", **more: Any) -> Job:
        """Return a job of one solution and one test file; of the script where there is none."""
        files = {"solution.py": solution, **({"test_solution.py": tests} if tests else {})}
        purpose = "run" if tests else "script"
        targets = ("test_solution.py",) if tests else ()
        made = {"purpose": purpose, "spec": self.spec(), "files": files, "targets": targets, **more}
        return Job.model_validate(made)

    def test_a_build_is_found_again(self) -> None:
        """The same spec is built once."""
        sandbox = self.make()
        first = asyncio.run(sandbox.build(self.spec()))
        second = asyncio.run(sandbox.build(self.spec()))
        assert isinstance(first, Built)
        assert isinstance(second, Built)
        assert second.cached
        assert (first.image, first.lock) == (second.image, second.lock)
        assert first.image == self.spec().name

    def test_each_test_has_its_outcome(self) -> None:
        """Passing, failing, skipped and broken tests are told apart, with exception, frame and values."""
        tests = (
            "import pytest\nfrom solution import double\n\n\ndef test_right():\n    assert double(2) == 4\n\n\n"
            "def test_wrong():\n    assert double(2) == 5\n\n\n@pytest.mark.skip\ndef test_later():\n    pass\n\n\n"
            "def test_raises():\n    double()\n\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_each(n):\n    assert n == 1\n"
        )
        report = asyncio.run(self.make().execute(self.job("def double(n):\n    return 2 * n\n", tests))).report
        assert report.exit == "tests_failed"
        assert report.whole
        outcomes = {t.id.partition("::")[2]: t.outcome for t in report.tests}
        expected = {"test_right": "passed", "test_wrong": "failed", "test_later": "skipped", "test_raises": "failed"}
        assert outcomes == {**expected, "test_each[1]": "passed", "test_each[2]": "failed"}
        wrong = next(t for t in report.tests if t.id.endswith("test_wrong"))
        assert wrong.exception == "AssertionError"
        assert wrong.frames[-1].file == "test_solution.py"
        assert wrong.comparison is not None
        assert (wrong.comparison.left, wrong.comparison.right) == ("4", "5")
        each = next(t for t in report.tests if t.id.endswith("[2]"))
        assert each.parameters == {"n": "2"}

    def test_a_frame_is_the_jobs_only_where_the_job_laid_its_file_out(self) -> None:
        """Compiled extensions name their sources relatively: such a frame is nobody's file, and blames no test."""
        code = (
            "exec(compile('def parse(x):\\n    raise ValueError(x)', 'pandas/_libs/lib.pyx', 'exec'))\n"
            "open('/tmp/made.py', 'w').write('def late():\\n    raise ValueError(1)')\n"
            "import sys\nsys.path.insert(0, '/tmp')\nimport made\n\n\n"
            "def total(x):\n    return parse(x)\n\n\ndef later(x):\n    return made.late()\n"
        )
        tests = "from solution import later, total\n\n\ndef test_total():\n    total(1)\n\n\ndef test_later():\n    later(1)\n"
        report = asyncio.run(self.make().execute(self.job(code, tests))).report
        for result in report.tests:
            assert (result.exception, [f.file for f in result.frames]) == (
                "ValueError",
                ["test_solution.py", "solution.py"],
            )

    def test_a_hang_names_its_test_and_keeps_the_others(self) -> None:
        """The time limit ends a run; what had ended keeps its result."""
        tests = "from solution import f\n\n\ndef test_a():\n    pass\n\n\ndef test_b():\n    f()\n"
        job = self.job("def f():\n    while True:\n        pass\n", tests, resources=Resources(wall_seconds=4))
        report = asyncio.run(self.make().execute(job)).report
        assert report.exit == "timeout"
        assert not report.whole
        assert [t.outcome for t in report.tests] == ["passed", "unfinished"]

    def test_leaving_early_is_not_whole(self) -> None:
        """An exit code of 0 without a report is a failure."""
        tests = "from solution import f\n\n\ndef test_a():\n    f()\n"
        report = asyncio.run(self.make().execute(self.job("import os\n\n\ndef f():\n    os._exit(0)\n", tests))).report
        assert report.exit == "killed"
        assert not report.whole

    def test_a_broken_import_is_a_collection_error(self) -> None:
        """A module that does not import names its exception and its frame."""
        tests = "from solution import f\n\n\ndef test_a():\n    f()\n"
        report = asyncio.run(self.make().execute(self.job("import nowhere_to_be_found\n", tests))).report
        assert report.exit == "collection_error"
        assert report.tests[0].exception == "ModuleNotFoundError"
        assert report.tests[0].frames[-1].file == "solution.py"

    def test_a_script_gets_its_inputs_and_leaves_its_outputs(self) -> None:
        """Scalars come as flags without a shell; outputs come back with their hashes."""
        code = (
            "import argparse, pathlib\np = argparse.ArgumentParser()\np.add_argument('--name')\n"
            "a = p.parse_args()\npathlib.Path('/var/outputs/greeting').write_text('hello ' + a.name)\n"
        )
        name = 'it\'s $(id) `x` "q"'
        given: dict[str, Any] = {
            "inputs": (Input(name="name", type="str", value=name),),
            "outputs": (Output(name="greeting", type="str"),),
        }
        execution = asyncio.run(self.make().execute(self.job(code, **given)))
        assert execution.report.exit == "ok", execution.report.stderr
        assert execution.outputs == {"greeting": f"hello {name}".encode()}
        assert execution.report.outputs[0].sha256 == sha256(f"hello {name}")

    def test_a_failing_script_keeps_its_traceback(self) -> None:
        """What the script wrote to standard error is kept."""
        report = asyncio.run(self.make().execute(self.job("raise KeyError('the very key')\n"))).report
        assert report.exit == "tests_failed"
        assert report.exit_code == 1
        assert "the very key" in report.stderr
