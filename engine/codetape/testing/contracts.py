"""The contract suites, one per port. An adapter's author subclasses one and says how the adapter is made.

    class TestMyModel(ModelContract):
        def make(self):
            return MyModel()

They need pytest, which is not among codetape's own dependencies.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import pytest

from codetape.domain.budget import Limit, Reservation
from codetape.domain.canonical import canonical, sha256
from codetape.domain.job import OTHER, BuildSpec, Job
from codetape.domain.model_request import Message, ModelRequest
from codetape.domain.task import Config, Input, Output, Resources, SandboxFacts, Task
from codetape.domain.usage import Usage
from codetape.errors import BudgetSpent, ContentGone, LeaseHeld, SessionNotFound, StaleLease, StoreError
from codetape.eventlog.envelope import Event, encode
from codetape.eventlog.events import (
    AnchorsExtracted,
    Answered,
    Blobs,
    GaveUp,
    Payload,
    Requested,
    SessionStarted,
    Versions,
)
from codetape.ports import Built, EventStore, Model, Reply, Sandbox, Store
from codetape.testing.memory_store import MemoryStore


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
        """A reply has a text, the reason why it ended, and its usage."""
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
        """Two sessions in one process share no state that either could disturb."""

        async def both() -> list[object]:
            return list(await asyncio.gather(*(self.make().ask(self.request()) for _ in range(2))))

        assert all(isinstance(reply, Reply) for reply in asyncio.run(both()))

    def test_it_says_what_it_is(self) -> None:
        """Name, server, who bills it, and whether a request is free are known before the first call."""
        model = self.make()
        assert model.name
        assert model.server is None or isinstance(model.server, str)
        provider, address = model.billing
        assert isinstance(provider, str)
        assert isinstance(address, str)
        assert model.free(self.request()) in (True, False)


class StoreContract(ABC):
    """What every store must do: the log, budgets, the catalogue, maintenance. ``make`` gives an empty store."""

    @abstractmethod
    def make(self) -> Store:
        """Make the store under test."""

    def test_what_was_appended_is_read(self) -> None:
        """Events come back in order, with their blobs."""
        store = self.make()
        events, texts = asyncio.run(_appended(store, 5))
        stream = asyncio.run(store.read("s"))
        assert stream.events == events
        assert all(stream.texts[key] == text for key, text in texts.items())

    def test_a_gap_or_a_second_at_one_seq_is_refused(self) -> None:
        """Only the event that follows the log is accepted; a refused one leaves nothing behind."""
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

    def test_events_that_are_appended_together_stand_in_order_and_a_refused_last_one_alone_does_not(self) -> None:
        """Each is durable when that returns; where the last one's reservation does not fit, the others are kept."""
        store = self.make()
        session = _Session(store, "s")
        session.start()
        too_much = Reservation(11, None, (Limit("session", tokens=10),))
        entries: list[tuple[Event, Blobs]] = []
        for number in (1, 2, 3, 4):
            texts = Blobs()
            head = entries[-1][0].hash if entries else session.head
            entries.append((_event(number, head, texts), texts))

        async def together() -> None:
            lease = await store.acquire("s")
            try:
                await store.append_all(entries[:2], lease)
                with pytest.raises(BudgetSpent):
                    await store.append_all(entries[2:], lease, too_much)
            finally:
                lease.release()

        asyncio.run(together())
        assert [event.seq for event in asyncio.run(store.read("s")).events] == [0, 1, 2, 3]

    def test_one_holder_at_a_time(self) -> None:
        """A held lease is refused, a released one granted; a late writer fails on its token."""
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
        """Reading a session that does not exist raises an error that names it."""
        with pytest.raises(SessionNotFound, match="nobody"):
            asyncio.run(self.make().read("nobody"))

    # ---- budgets

    def test_a_reservation_counts_until_the_call_is_closed(self) -> None:
        """A budget counts what an open call may cost until its reply says what it did cost."""
        store, limits = self.make(), (Limit("database", tokens=100),)
        session = _Session(store, "a")
        session.start()
        session.request(Reservation(80, None, limits))
        other = _Session(store, "b")
        other.start()
        with pytest.raises(BudgetSpent):
            other.request(Reservation(30, None, limits))
        session.answer(tokens=50)
        other.request(Reservation(30, None, limits))
        assert [row["input_tokens"] for row in store.sessions().rows] == [0, 50]

    def test_what_does_not_fit_appends_nothing(self) -> None:
        """A refused call leaves no event."""
        store = self.make()
        session = _Session(store, "a")
        session.start()
        with pytest.raises(BudgetSpent):
            session.request(Reservation(11, None, (Limit("session", tokens=10),)))
        assert len(asyncio.run(store.read("a")).events) == 1

    def test_a_call_that_may_have_been_billed_keeps_its_reservation(self) -> None:
        """A lost call may have cost what it reserved; one that the provider refused cost nothing."""
        for maybe_billed, reserved in ((True, 80), (False, 0)):
            store = self.make()
            name = f"billed-{maybe_billed}".lower()
            session = _Session(store, name)
            session.start()
            session.request(Reservation(80, None, (Limit("session", tokens=100),)))
            session.give_up(maybe_billed=maybe_billed)
            row = next(row for row in store.sessions().rows if row["session"] == name)
            assert row["reserved_tokens"] == reserved

    def test_a_labels_budget_is_of_its_sessions(self) -> None:
        """A limit of a label counts the sessions that carry it, and no others."""
        store, limits = self.make(), (Limit("tag:nightly", tokens=100),)
        for name, tags in (("a", ("nightly",)), ("b", ("nightly-2",)), ("c", ("x", "nightly"))):
            session = _Session(store, name)
            session.start(tags)
            session.request(Reservation(60, None, (Limit("session", tokens=1000),)))
            session.answer(tokens=60)
        session = _Session(store, "d")
        session.start(("nightly",))
        with pytest.raises(BudgetSpent):
            session.request(Reservation(1, None, limits))

    # ---- the catalogue

    def test_sessions_are_found_by_id_prefix_and_last(self) -> None:
        """An id wins over a prefix; a prefix must be unique; ``last`` is the newest session."""
        store = self.make()
        for name in ("abc", "abcd", "xyz"):
            _Session(store, name).start()
        assert [store.find(name) for name in ("abc", "abcd", "x", "last")] == ["abc", "abcd", "xyz", "xyz"]
        for name in ("ab", "nobody", ""):
            with pytest.raises(SessionNotFound):
                store.find(name)

    def test_sessions_are_listed_the_newest_first(self) -> None:
        """The list agrees with the events."""
        store = self.make()
        for name in ("a", "b"):
            session = _Session(store, name)
            session.start(("t1", "t2"))
            session.request(None)
            session.answer(tokens=7)
        rows, problems = store.sessions()
        assert problems == []
        assert [row["session"] for row in rows] == ["b", "a"]
        assert (rows[0]["tags"], rows[0]["state"], rows[0]["events"]) == ("t1,t2", "planning", 3)
        assert (rows[0]["input_tokens"], rows[0]["unpriced"], rows[0]["head"]) == (7, 1, session.head)

    def test_what_was_asked_is_told_until_it_is_erased(self) -> None:
        """The prompts' beginnings are told for the sessions asked about; the position moves with each event."""
        store = self.make()
        positions = [store.position()]
        for name in ("a", "b"):
            _Session(store, name).start()
            positions.append(store.position())
        assert len(set(positions)) == 3
        assert store.asked(["a"]) == {"a": "Add, in a."}
        assert store.asked(["a", "b"])["b"] == "Add, in b."
        asyncio.run(store.forget("a"))
        assert store.asked(["a", "b"]) == {"b": "Add, in b."}

    def test_events_of_calls_come_whole(self) -> None:
        """The events of calls are returned as stored, for the requested sessions only."""
        store = self.make()
        for name in ("a", "b"):
            session = _Session(store, name)
            session.start()
            session.request(None)
            session.answer(tokens=7)
        rows = list(store.call_events(["b"]))
        assert [(row.session, row.kind) for row in rows] == [
            ("b", "SessionStarted"), ("b", "Requested"), ("b", "Answered"),
        ]  # fmt: skip
        assert all(row.covered for row in rows)
        assert {row.session for row in store.call_events()} == {"a", "b"}

    def test_what_is_kept_of_calls_is_what_their_events_say(self) -> None:
        """A store that keeps calls keeps what their events say, of the requested sessions only; a stream that was put
        counts as one that was appended, and what is made again is the same."""
        from codetape.eventlog.call_history import CallHistory

        source, store = self.make(), self.make_another()
        for name in ("a", "b"):
            session = _Session(source, name)
            session.start()
            session.request(None)
            session.answer(tokens=7)
            session.request(None)
        store.put(asyncio.run(source.read("a")), asyncio.run(source.read("b")))
        for kept in (source, store):
            calls = [(labels, list(own)) for labels, own in kept.kept_calls()]
            assert calls == list(CallHistory().sessions(kept.call_events()))
            assert [labels.session for labels, _ in kept.kept_calls(["b"])] == ["b"]
            stream = asyncio.run(kept.read("a"))
            assert kept.disagreeing("a", stream.events, stream.texts) == []
            kept.rebuild()
            assert [(labels, list(own)) for labels, own in kept.kept_calls()] == calls

    # ---- maintenance

    def test_a_stream_is_put_once_and_extends_what_is_there(self) -> None:
        """A stream that is there adds nothing, a longer one adds its end, and another chain is refused as a whole."""
        source, store = self.make(), self.make_another()
        session = _Session(source, "a")
        session.start()
        short = asyncio.run(source.read("a"))
        session.request(None)
        session.answer(tokens=7)
        whole = asyncio.run(source.read("a"))
        assert [store.put(short), store.put(whole), store.put(whole), store.put(short)] == [[1], [2], [0], [0]]
        assert asyncio.run(store.read("a")).events == whole.events
        other = self.make_another()
        _Session(other, "a").start(("other",))
        with pytest.raises(StoreError):
            store.put(asyncio.run(other.read("a")))
        assert asyncio.run(store.read("a")).events == whole.events

    def test_forgotten_content_is_gone_and_its_figures_stay(self) -> None:
        """Blobs that no other session needs are erased; the events still verify, and the session cannot be put back."""
        store = self.make()
        session = _Session(store, "a")
        session.start()
        session.request(None)
        session.answer(tokens=7)
        before = asyncio.run(store.read("a"))
        assert asyncio.run(store.forget("a")) > 0
        with pytest.raises(ContentGone):
            asyncio.run(store.read("a"))
        recovered = store.recover("a")
        assert recovered.texts == {}
        assert [row.hash for row in recovered.rows[:3]] == [event.hash for event in before.events]
        assert store.sessions().rows[0]["input_tokens"] == 7
        with pytest.raises(StoreError):
            store.put(before)

    def test_a_whole_store_is_sound(self) -> None:
        """Every session is found and can be recovered, and the store reports no defect."""
        store = self.make()
        session = _Session(store, "a")
        session.start()
        assert store.stored_sessions() == ["a"]
        assert store.unsound() == []
        saved = store.recover("a")
        assert ([row.hash for row in saved.rows], saved.problems) == ([session.head], [])
        assert store.for_reading().find("a") == "a"
        store.close()

    def make_another(self) -> Store:
        """Make a second, empty store; a MemoryStore will do for any store under test."""
        return MemoryStore()


class _Session:
    """Appends a session's events, one call after another."""

    def __init__(self, store: EventStore, name: str) -> None:
        self._store, self._name = store, name
        self._seq, self.head = 0, "0" * 64

    def _append(self, payload: Payload, texts: Blobs, reserve: Reservation | None = None) -> None:
        async def work() -> None:
            lease = await self._store.acquire(self._name)
            try:
                event = encode(self._name, self._seq, "2026-01-01T00:00:00.000Z", payload, self.head)
                await self._store.append(event, texts, lease, reserve)
                self._seq, self.head = self._seq + 1, event.hash
            finally:
                lease.release()

        asyncio.run(work())

    def start(self, tags: tuple[str, ...] = ()) -> None:
        texts = Blobs()
        task = Task(id="t", prompt=f"Add, in {self._name}.", tags=tags)
        config = Config(model="any", sandbox=SandboxFacts(name="fake", python="3.11"))
        versions = Versions(engine="1", rules=2, machine=1, host_python="3.11", templates="")
        payload = SessionStarted(
            trigger="start",
            source="new",
            target="planning",
            task_id=task.id,
            tags=tags,
            model=config.model,
            task=texts.put(canonical(task.model_dump(mode="json"))),
            config=texts.put(canonical(config.model_dump(mode="json"))),
            pack={},
            versions=versions,
        )
        self._append(payload, texts)

    def request(self, reserve: Reservation | None) -> None:
        texts = Blobs()
        payload = Requested(
            call=f"{self._name}:{self._seq}",
            effect="ask",
            purpose="plan",
            fingerprint="0" * 64,
            messages=(("user", texts.put(f"Plan {self._name}.")),),
            detail=texts.put("{}"),
        )
        self._append(payload, texts, reserve)

    def answer(self, *, tokens: int) -> None:
        texts = Blobs()
        call = f"{self._name}:{self._seq - 1}"
        self._append(Answered(call=call, text=texts.put(f"A plan of {self._name}."), usage=Usage(input=tokens)), texts)

    def give_up(self, *, maybe_billed: bool) -> None:
        texts = Blobs()
        call = f"{self._name}:{self._seq - 1}"
        self._append(GaveUp(call=call, message=texts.put("down"), maybe_billed=maybe_billed), texts)


def _event(seq: int, head: str, texts: Blobs) -> Event:
    payload = AnchorsExtracted(count=seq, anchors=texts.put(f"text {seq} \u00e9 \U0001f600"))
    return encode("s", seq, "2026-01-01T00:00:00.000Z", payload, head)


async def _appended(store: EventStore, count: int) -> tuple[tuple[Event, ...], dict[str, str]]:
    lease = await store.acquire("s")
    head, events, all_texts = "0" * 64, [], dict[str, str]()
    for seq in range(count):
        texts = Blobs()
        event = _event(seq, head, texts)
        await store.append(event, texts, lease)
        head = event.hash
        events.append(event)
        all_texts |= texts
    lease.release()
    return tuple(events), all_texts


class SandboxContract(ABC):
    """What every sandbox must do. ``make`` gives one that really executes code."""

    @abstractmethod
    def make(self) -> Sandbox:
        """Make the sandbox under test."""

    def spec(self) -> BuildSpec:
        """Return the simplest environment."""
        return BuildSpec(python_version=self.make().facts().python)

    def job(self, solution: str, tests: str = "", **more: Any) -> Job:
        """Return a job of one solution and one test file; without tests, the solution runs as a script."""
        files = {"solution.py": solution, **({"test_solution.py": tests} if tests else {})}
        purpose = "run" if tests else "script"
        targets = ("test_solution.py",) if tests else ()
        fields = {"purpose": purpose, "spec": self.spec(), "files": files, "targets": targets, **more}
        return Job.model_validate(fields)

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

    def test_what_it_keeps_can_be_listed_and_the_doctor_has_no_complaint(self) -> None:
        """A built environment is among the images, if the sandbox keeps images; the doctor reports nothing bad."""
        sandbox = self.make()
        asyncio.run(sandbox.build(self.spec()))
        images = sandbox.images()
        assert not images or self.spec().name in {image.name for image in images}
        assert [finding for finding in sandbox.doctor() if finding.status == "bad"] == []
        assert sandbox.remove_image("an-image-that-is-not-there") is False

    def test_each_test_has_its_outcome(self) -> None:
        """Passing, failing, skipped and broken tests are distinguished, with exception, frame and values."""
        tests = (
            "import pytest\nfrom solution import double\n\n\ndef test_right():\n    assert double(2) == 4\n\n\n"
            "def test_wrong():\n    assert double(2) == 5\n\n\n@pytest.mark.skip\ndef test_later():\n    pass\n\n\n"
            "def test_raises():\n    double()\n\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_each(n):\n    "
            "assert n == 1\n"
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

    def test_outcomes_are_pytests_own(self) -> None:
        """Marks count as pytest counts them, and a file that is skipped whole says why."""
        tests = (
            "import pytest\n\n\n@pytest.mark.xfail\ndef test_expected():\n    assert False\n\n\n@pytest.mark.xfail\n"
            "def test_better():\n    pass\n\n\n@pytest.mark.xfail(strict=True)\ndef test_strict():\n    pass\n\n\n"
            "class TestNot:\n    def __init__(self):\n        pass\n\n    def test_x(self):\n        pass\n"
        )
        report = asyncio.run(self.make().execute(self.job("", tests))).report
        outcomes = {result.id.partition("::")[2]: result.outcome for result in report.tests}
        assert outcomes == {"test_expected": "xfailed", "test_better": "xpassed", "test_strict": "failed"}
        assert any("__init__" in warning for warning in report.warnings)
        skips = "import pytest\n\npytest.importorskip('no_such_module')\n\n\ndef test_x():\n    pass\n"
        skipped = asyncio.run(self.make().execute(self.job("", skips))).report
        assert [(r.id, r.outcome) for r in skipped.tests] == [("test_solution.py", "skipped")]
        assert "no_such_module" in skipped.tests[0].message

    def test_a_job_runs_under_its_conditions(self) -> None:
        """The hash seed, the time zone, the folder and the order of tests are the job's."""
        tests = (
            "import os, time\n\n\ndef test_first():\n"
            "    assert (os.getcwd(), time.timezone, os.environ['PYTHONHASHSEED']) == ('/srv/elsewhere', -45900, '20231')\n"
            "\n\ndef test_second():\n    pass\n"
        )
        report = asyncio.run(self.make().execute(self.job("", tests, conditions=OTHER))).report
        assert [(r.id.partition("::")[2], r.outcome) for r in report.tests] == [
            ("test_second", "passed"),
            ("test_first", "passed"),
        ]

    def test_claims_are_evaluated_where_nothing_else_is(self) -> None:
        """Values come back as data, twice, under two hash seeds; what a mutant gives otherwise comes back too."""
        claims = (
            "from solution import f\n\n\ndef t0(__ask__, __got__):\n    with __ask__(0):\n        __got__(f(2))\n"
            "    with __ask__(1):\n        f('x' * 3 + 1)\n"
        )
        files = {"solution.py": "def f(x):\n    return [x, {'a': 1.5}]\n", "claims_0.py": claims}
        mutant = {"mutant_1.py": "def f(x):\n    return x\n", "mutant_2.py": files["solution.py"] + "\n"}
        job = self.job("", purpose="evaluate", files={**files, **mutant}, targets=("claims_0.py", *mutant))
        report = asyncio.run(self.make().execute(job)).report
        assert report.whole
        given = {(e.number, e.turn): e for e in report.evaluated}
        assert {(0, 0), (0, 1), (1, 0), (1, 1)} == set(given)
        assert given[0, 0].values == given[0, 1].values == ('["l", [["i", "2"], ["d", [["a", ["f", "1.5"]]]]]]',)
        assert given[1, 0].raised[0] == "TypeError"
        assert [(run.number, run.ended, [d.number for d in run.differing]) for run in report.mutants] == [
            (1, True, [0]),
            (2, True, []),
        ]

    def test_a_frame_is_the_jobs_only_where_the_job_laid_its_file_out(self) -> None:
        """Compiled extensions name their sources relatively: such a frame belongs to no file of the job."""
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
        """The time limit ends a run; tests that ended before keep their results."""
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
        options: dict[str, Any] = {
            "inputs": (Input(name="name", type="str", value=name),),
            "outputs": (Output(name="greeting", type="str"),),
        }
        execution = asyncio.run(self.make().execute(self.job(code, **options)))
        assert execution.report.exit == "ok", execution.report.stderr
        assert execution.outputs == {"greeting": f"hello {name}".encode()}
        assert execution.report.outputs[0].sha256 == sha256(f"hello {name}")

    def test_a_failing_script_keeps_its_traceback(self) -> None:
        """The report keeps what the script wrote to standard error."""
        report = asyncio.run(self.make().execute(self.job("raise KeyError('the very key')\n"))).report
        assert report.exit == "tests_failed"
        assert report.exit_code == 1
        assert "the very key" in report.stderr
