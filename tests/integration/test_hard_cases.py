"""Cases that once went wrong, or would go wrong first: false successes, endless loops, hostile values."""

import asyncio
import json
import time

import pytest

from codetape.domain.canonical import canonical
from codetape.domain.job import BuildSpec, Job
from codetape.domain.reply_shapes import TestFunctionPatch
from codetape.domain.report import Report, TestResult
from codetape.domain.task import SandboxFacts
from codetape.domain.usage import Usage
from codetape.errors import CodetapeError, CorruptTape, ModelUnavailable, TemplateError, UsageError
from codetape.eventlog.envelope import encode
from codetape.eventlog.events import Blobs, BuildFinished, ConfigChanged, Requested, SessionStarted
from codetape.eventlog.fold import fold
from codetape.playback import tape_file
from codetape.ports import BuildRejected, Reply
from codetape.rules import pytest_source
from codetape.rules.prompt_examples import as_tests, extract
from codetape.testing import FakeSandbox, MemoryStore, ScriptedModel, passing_report
from codetape_adapters.sandboxes.execution import report_parser
from codetape_adapters.sandboxes.execution.report_parser import Raw, read
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.support import (
    ADD,
    ADD_TESTS,
    SUBTRACT,
    HostSandbox,
    block,
    diagnosis,
    failure,
    generate,
    opinions,
    plan,
    purposes,
)

WELL = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}


def wrong(tests, code=SUBTRACT, **more):
    """Run right tests against wrong code that is never fixed; a success would be a false one."""
    answers = {"plan": [plan()], "code": [code], "tests": [block(tests)], "diagnose": [diagnosis(failure("test_it"))],
               "second_opinion": [opinions(None)], "fix_tests": [block("def test_it():\n    assert add(0, 0) == 0")], **more}  # fmt: skip
    return generate(answers, max_iterations=3)


@pytest.mark.parametrize(
    "body",
    [
        "    for n in (2, 4):\n        assert add(n, 1) == n + 1",
        "    for n in (2, 4):\n        assert add(n, 0 + n) is True",
        "    import solution\n    solution.LIMIT = 3\n    assert add(1, 2) == 3",
        "    def add(a, b):\n        return 9\n    assert add(1, 2) == 3",
        "    assert add(*map(lambda x: x, (1, 2))) == 3",
        "    assert add(1, 1)" + ".conjugate()" * 300 + " == 401",
        "    with open(__file__) as f:\n        assert add(len(f.name), 1) == len(f.name) + 1",
    ],
)
def test_a_claim_that_does_not_stand_for_itself_is_never_put_to_an_opinion(body):
    result, model = wrong(f"from solution import add\n\n\ndef test_it():\n{body}")
    assert result.status == "failed"
    assert "second_opinion" not in purposes(model)


@pytest.mark.parametrize(
    "lines",
    [
        ["xs = []", "xs.append(3)", "assert add(len(xs), 3) == 4"],
        ["a, b = (1, 2)", "assert add(a, b) == 3"],
        ["push = []", "push.append(1)", "assert add(len(push), 2) == 3"],
    ],
)
def test_a_claim_that_needs_what_comes_before_it_is_asked_with_it(lines):
    body = "\n".join(f"    {line}" for line in lines)
    result, model = wrong(f"from solution import add\n\n\ndef test_it():\n{body}")
    assert result.status == "failed"
    asked = next(r.messages[-1].content for r in model.requests if r.purpose == "second_opinion")
    call = lines[-1].removeprefix("assert ").partition(" == ")[0]
    assert "\n".join(f"    {line}" for line in [*lines[:-1], call]) in asked


def test_a_parameter_that_a_test_changes_is_put_to_no_opinion():
    tests = "import pytest\nfrom solution import add\n\n\n@pytest.mark.parametrize('xs', [[1, 2]])\ndef test_it(xs):\n    xs.append(3)\n    assert add(len(xs), 0) == 3"
    result, model = wrong(tests, block("def add(a, b):\n    return 2"))
    assert result.status == "failed"
    assert "second_opinion" not in purposes(model)


def test_two_replies_of_the_most_tokens_still_fold():
    most = Usage(input=2**53)
    result, _ = generate(
        {"plan": [Reply(text=plan(), usage=most)], "code": [Reply(text=ADD, usage=most)], "tests": [ADD_TESTS]}
    )
    assert result.succeeded


@pytest.mark.parametrize("reason", ["conflict", "not_found", "no_wheel"])
def test_a_refusal_that_names_nothing_asked_for_does_not_loop(reason):
    builds = []

    def build(spec):
        builds.append(spec)
        return BuildRejected(reason, "x", ("transitive-dep",))

    for more in ({}, {"packages": ("numpy",)}, {"base_packages": ("attrs",)}):
        result, _ = generate(WELL, sandbox=FakeSandbox(build=build), **more)
        assert result.status == "suspended"
    assert len(builds) <= 6


def test_a_variable_cannot_bring_arguments_of_its_own(bubblewrap):

    spec = BuildSpec(python_version=bubblewrap.facts().python)
    for value in ("b\0--ro-bind\0/etc\0/tmp/h", "\ud800"):
        with pytest.raises(UsageError, match="variable"):
            asyncio.run(
                bubblewrap.execute(Job(purpose="script", spec=spec, files={"solution.py": "pass\n"}, env={"A": value}))
            )


def test_a_comment_in_an_example_does_not_remove_its_comparison():
    result, _ = generate({**WELL, "code": [SUBTRACT], "second_opinion": [opinions("3")], "diagnose": [diagnosis()]},
                         "Add.\n>>> add(1, 2)  # a sum\n3\n", max_iterations=2)  # fmt: skip
    assert result.status == "suspended"
    assert "add(1, 2) gives 3, and the code gives -1" in result.reason
    assert "assert add(1, 2) == 3" in result.anchors


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (">>> select the menu\n>>> f(1)\n2\n", ""),
        ("f(" + "-" * 20_000 + "1) -> 2", ""),
        (">>> f(" + "1+" * 5000 + "1)\n2\n", ""),
        ("third(3) -> 1/3", ""),
        ("top(3) returns 5 results", ""),
        ("f(1) returns -1 or None", ""),
        (">>> from __future__ import annotations\n>>> f(1)\n2\n", ""),
        (">>> return 1\n>>> f(1)\n2\n", ""),
        (">>> f(1)\nTraceback (most recent call last):\nmod.Err: x\n", ""),
        (">>> print(f(1))\n2\n", "assert str(f(1)) == '2'"),
    ],
)
def test_examples_that_are_none_are_left_alone(prompt, expected):
    text = as_tests.test_file(extract.extract(prompt))
    assert (expected in text) if expected else text == ""


def test_given_tests_are_vetted_even_where_the_model_writes_none():
    given = "import solution\n\n\ndef test_given():\n    assert callable(solution.add)\n"
    result, _ = generate({**WELL, "tests": ["no"], "code": [SUBTRACT]}, ask={"tests": given})
    assert result.status == "failed"


def test_given_tests_that_say_nothing_anchor_nothing():
    result, _ = generate(WELL, ask={"tests": "def test_given():\n    assert True\n"})
    assert result.confidence == "self_tested"


def test_an_exit_code_that_no_failing_test_explains_is_no_success():
    def strict(job):
        report = passing_report(job)
        return report if job.purpose == "vet" else report.model_copy(update={"exit": "tests_failed", "exit_code": 1})

    result, _ = generate({**WELL, "diagnose": [diagnosis()]}, sandbox=FakeSandbox(strict), max_iterations=2)
    assert result.status == "failed"


TESTS = Job(purpose="run", spec=BuildSpec(python_version="3.11"), files={"t.py": ""}, targets=("t.py",))


def raw(*lines, status=1):
    report = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    outcome = b'{"begun": true}\n{"status": %d}\n{"rejected": []}\n' % status
    return Raw(
        report=report, outcome=outcome, stdout=b"", stderr=b"", stopped=None, duration_ms=1, tree_memory_bounded=True
    )


def test_a_later_word_does_not_undo_a_failure_and_long_ids_stay_two():
    one, two = "t.py::test[" + "a" * 500 + "1]", "t.py::test[" + "a" * 500 + "2]"
    lines = [{"k": "collected", "ids": [one, two]}, {"k": "start", "id": one}, {"k": "end", "id": one, "outcome": "failed"},
             {"k": "end", "id": one, "outcome": "passed"}, {"k": "start", "id": two}, {"k": "end", "id": two, "outcome": "passed"},
             {"k": "finish", "code": 1}]  # fmt: skip
    report = read(raw(*lines), TESTS).report
    assert [t.outcome for t in report.tests] == ["failed", "passed"]
    assert report.whole


def test_a_report_of_more_tests_than_are_kept_is_not_whole():
    ids = [f"t.py::test[{n}]" for n in range(report_parser.MAX_TESTS + 1)]
    lines = [
        {"k": "collected", "ids": ids},
        *({"k": "end", "id": i, "outcome": "passed"} for i in ids),
        {"k": "finish", "code": 0},
    ]
    assert not read(raw(*lines, status=0), TESTS).report.whole


def test_a_base_package_that_cannot_be_had_suspends_and_does_not_loop():
    builds = []

    def build(spec):
        builds.append(spec)
        return BuildRejected("not_found", "no such package", ("no-such-pkg",))

    result, _ = generate(WELL, sandbox=FakeSandbox(build=build), base_packages=("no-such-pkg",))
    assert result.status == "suspended"
    assert len(builds) == 1


def test_a_package_that_the_user_named_is_not_dropped_in_silence():
    refuse = FakeSandbox(build=lambda spec: BuildRejected("conflict", "numpy==0.0.0 conflicts", ("numpy",)))
    result, _ = generate(WELL, sandbox=refuse, packages=("numpy==0.0.0",))
    assert result.status == "suspended"
    assert "numpy" in result.reason


def test_usage_and_replies_of_any_size_leave_a_log_that_reads():
    with pytest.raises(ValueError, match="less than"):
        Usage(input=10**20)
    store = SqliteStore("tape.db")
    result, _ = generate({"plan": [Reply(text="x" * 5_000_000)]}, store=store)
    assert result.status == "failed"
    stream = asyncio.run(store.read(result.session))
    assert max(map(len, stream.texts.values())) <= 2_000_000
    assert any(getattr(e.payload, "finish_reason", "") == "length" for e in stream.events)


def test_a_missing_capability_is_found_on_another_sandbox():
    from codetape import AutoCoderAgent

    store, model = (
        MemoryStore(),
        ScriptedModel({**WELL, "diagnose": [diagnosis(failure("test_sum", "environment"), system=["libgl1"])]}),
    )

    def execute(job):
        if job.purpose == "vet" or job.spec.system_packages:
            return passing_report(job)
        bad = TestResult(
            id="test_solution.py::test_sum",
            outcome="failed",
            exception="ImportError",
            message="libGL.so.1: cannot open shared object file",
        )
        return Report(exit="tests_failed", whole=True, exit_code=1, collected=(bad.id,), tests=(bad,))

    def agent(**facts):
        return AutoCoderAgent(
            model=model, store=store, sandbox=FakeSandbox(execute, facts=SandboxFacts(python="3.11", **facts))
        )

    first = agent(name="plain").generate("Add.", session="s")
    assert (first.status, "cannot install system packages" in first.reason) == ("suspended", True)
    done = asyncio.run(agent(name="able", system_packages=True).aresume("s"))
    assert done.succeeded
    assert done.system_packages == ("libgl1",)


def test_an_unknown_setting_in_a_resume_is_wrong_use():
    from codetape import AutoCoderAgent

    store = MemoryStore()
    agent = AutoCoderAgent(
        model=ScriptedModel({"plan": [ModelUnavailable("down")]}), store=store, sandbox=FakeSandbox()
    )
    agent.generate("Add.", session="s")
    with pytest.raises(UsageError, match="colour"):
        asyncio.run(agent.aresume("s", changes={"colour": "red"}))


def started():
    stream = tape_file.load("demo").stream
    first = stream.events[0]
    assert isinstance(first.payload, SessionStarted)
    return [encode("s", 0, first.at, first.payload, "0" * 64)], Blobs(stream.texts)


def test_a_hostile_tape_raises_nothing_but_corrupt_tape():
    events, texts = started()
    asked = Requested(call="s:1", effect="ask", purpose="plan", fingerprint="0" * 64, detail=texts.put("{}"))
    events.append(encode("s", 1, "x", asked, events[-1].hash))
    lock = texts.put("lock")
    built = encode("s", 2, "x", BuildFinished(call="s:1", image="i", lock=lock, cached=True), events[-1].hash)
    with pytest.raises(CorruptTape, match="does not belong to the ask"):
        fold([*events, built], texts)
    suspended = tape_file.load("demo").stream.events
    changed = ConfigChanged(changes=texts.put(canonical([1])))
    with pytest.raises(CorruptTape):
        fold(
            [*suspended, encode(suspended[0].session, len(suspended), "x", changed, suspended[-1].hash)],
            {**tape_file.load("demo").stream.texts, **texts},
        )


def test_quarantining_one_test_leaves_its_namesakes_alone():
    tests = block(
        "import pytest\nfrom solution import add\n\n\ndef test_a():\n    assert add(1, 2) == 4\n\n\ndef test_ab():\n    assert add(1, 2) == 3\n\n\n@pytest.mark.parametrize('n', [99])\ndef test_p(n):\n    assert add(n, 0) == 98\n"
    )
    sandbox = HostSandbox()
    result, _ = generate({**WELL, "tests": [tests], "second_opinion": [opinions(None, None)]}, sandbox=sandbox)
    assert result.succeeded
    assert {q.test for q in result.quarantined} == {"test_solution.py::test_a", "test_solution.py::test_p[99]"}
    assert "test_solution.py::test_ab" in result.report.passed


def test_fixtures_named_like_tests_are_no_tests():
    tests = block(
        "import pytest\nfrom solution import add\n\n\n@pytest.fixture\ndef test_data():\n    return 1\n\n\ndef test_sum(test_data):\n    assert add(test_data, 2) == 3\n\n\nclass TestNot:\n    __test__ = False\n\n    def test_no(self):\n        pass\n"
    )
    result, _ = generate({**WELL, "tests": [tests]})
    assert result.succeeded


@pytest.mark.parametrize(
    "code",
    [
        "add = lambda a, b: a + b",
        "if True:\n    def add(a, b):\n        return a + b",
        "def add(a, b, s='é'): return a + b",
        "try:\n    import nothing_there\nexcept ImportError:\n    def add(a, b):\n        return a + b",
    ],
)
def test_every_way_to_define_a_function_is_emptied_in_the_stub(code):
    stub = pytest_source.stub(code + "\n")
    compile(stub, "stub", "exec")
    assert "a + b" not in stub
    assert "add" in pytest_source.defined_names(code)


def test_given_tests_that_need_real_values_to_collect_are_right():
    given = "from solution import add\n\nBASE = add(1, 2) + 1\n\n\ndef test_given():\n    assert BASE == 4\n"
    result, _ = generate(WELL, ask={"tests": given})
    assert result.succeeded


def test_a_patch_keeps_the_long_strings_of_a_method():
    source = "class TestA:\n    def test_b(self):\n        assert 1\n\n    def test_c(self):\n        assert 2\n"
    fixed = '    def test_b(self):\n        text = """\nline\n"""\n        assert text'
    patched = pytest_source.apply_patches(source, [TestFunctionPatch(test_name="TestA::test_b", fixed_code=fixed)])
    compile(patched, "patched", "exec")
    assert '"""\nline\n"""' in patched
    assert pytest_source.names(patched) == ("TestA::test_b", "TestA::test_c")


def test_a_pack_with_links_or_without_bounds_is_refused(tmp_path):
    from codetape.prompts.pack import check_pack
    from codetape.prompts.render import render
    from codetape.runtime.prompt_pack_files import load_pack

    folder = tmp_path / "pack"
    for name, text in load_pack().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert load_pack(folder) == load_pack()
    (tmp_path / "secret").write_text("a key")
    (folder / "extra.md").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="link"):
        load_pack(folder)
    with pytest.raises(TemplateError, match="plan.md"):
        check_pack({**load_pack(), "plan.md": "x" * 100_000})
    pack = {**load_pack(), "plan.md": "{{ prompt | indent(1000000000, true) }}"}
    assert len(render(pack, "plan.md", {"prompt": "x"})) < 100


def test_declared_outputs_are_looked_at_before_a_success(bubblewrap):
    silent = block(
        "import argparse\n\n\ndef add(a, b):\n    return a + b\n\n\ndef main():\n    argparse.ArgumentParser().parse_known_args()\n\n\nif __name__ == '__main__':\n    main()"
    )
    writes = block(
        "import sys\n\n\ndef add(a, b):\n    return a + b\n\n\ndef main():\n    open('/var/outputs/total', 'w').write(str(add(int(sys.argv[1].partition('=')[2]), 2)))\n\n\nif __name__ == '__main__':\n    main()"
    )
    ask = {"inputs": {"n": "int:1"}, "outputs": {"total": "int"}}
    answers = {**WELL, "code": [silent, writes], "diagnose": [diagnosis(failure("test_declared_outputs"))]}
    result, model = generate(answers, sandbox=bubblewrap, ask=ask)
    assert result.succeeded
    assert result.iterations == 2
    asked = next(r for r in model.requests if r.purpose == "diagnose").messages[1].content
    assert "did not write /var/outputs/total" in asked
    assert result.run(n=5) == {"total": 7}


def test_a_sandbox_that_cannot_start_the_program_fails_nobody(bubblewrap, tmp_path):
    from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox

    sandbox = BubblewrapSandbox()
    spec = BuildSpec(python_version=sandbox.facts().python)
    asyncio.run(sandbox.build(spec))
    sandbox.__dict__["_harness"] = tmp_path / "gone"
    with pytest.raises(CodetapeError, match="did not start|cannot"):
        asyncio.run(sandbox.execute(Job(purpose="script", spec=spec, files={"solution.py": "pass\n"})))


def test_failed_starts_leave_no_descriptor_and_no_group_behind(bubblewrap):
    import os
    from pathlib import Path

    from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox

    sandbox = BubblewrapSandbox()
    spec = BuildSpec(python_version=sandbox.facts().python)
    asyncio.run(sandbox.build(spec))

    def counts():
        groups = list(Path("/sys/fs/cgroup").glob("*/codetape-*"))
        return len(os.listdir("/proc/self/fd")), len(groups)

    before = counts()
    sandbox.__dict__["_bwrap"] = Path("/nowhere/bwrap")
    for env in ({}, {"A": "nul\0"}):
        for _ in range(3):
            with pytest.raises(CodetapeError):
                asyncio.run(sandbox.execute(Job(purpose="script", spec=spec, files={"solution.py": "pass\n"}, env=env)))
    deadline = time.monotonic() + 20
    while counts()[1] > before[1] and time.monotonic() < deadline:
        time.sleep(0.1)  # a group that is empty is removed beside the work, and other tests have theirs
    assert counts()[0] <= before[0]
    assert counts()[1] <= before[1]


def test_variables_are_not_on_a_command_line(bubblewrap):
    from pathlib import Path

    async def look():
        spec = BuildSpec(python_version=bubblewrap.facts().python)
        job = Job(
            purpose="script",
            spec=spec,
            files={"solution.py": "import os, time\nassert os.environ['WORD'] == 'hidden-7f3a'\ntime.sleep(1.5)\n"},
            env={"WORD": "hidden-7f3a"},
        )
        await bubblewrap.build(spec)
        work = asyncio.create_task(bubblewrap.execute(job))
        await asyncio.sleep(0.8)
        lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
        return (await work).report.exit, [line for line in lines if b"hidden-7f3a" in line]

    assert asyncio.run(look()) == ("ok", [])


def file_of_tests(count, expected):
    tests = "".join(f"def test_{n}():\n    assert add({n}, 1) == {n} + {expected}\n" for n in range(count))
    return "from solution import add\n" + tests


def test_a_thousand_failures_in_one_file_are_all_judged_and_told_alike_each_time(bubblewrap):
    """The traceback of each would have the whole file parsed again: the first are pytest's own, the rest are plain."""
    spec = BuildSpec(python_version=bubblewrap.facts().python)
    files = {"solution.py": "def add(a, b):\n    return a + b\n", "test_solution.py": file_of_tests(1000, 2)}
    job = Job(purpose="run", spec=spec, files=files, targets=("test_solution.py",))
    first, second = (asyncio.run(bubblewrap.execute(job)).report for _ in range(2))
    assert (first.exit, first.whole, len(first.tests)) == ("tests_failed", True, 1000)
    assert [(t.id, t.message, t.traceback, t.frames) for t in first.tests] == [
        (t.id, t.message, t.traceback, t.frames) for t in second.tests
    ]
    assert "\n>       assert add(0, 1) == 0 + 2\n" in first.tests[0].traceback
    last = first.tests[-1]
    assert last.traceback.startswith("Traceback (most recent call last)")
    assert "assert add(999, 1) == 999 + 2" in last.traceback
    assert last.frames[-1].file == "test_solution.py"


def test_more_tests_than_are_judged_are_an_outcome_that_says_so(monkeypatch, bubblewrap):
    monkeypatch.setattr(report_parser, "MAX_TESTS", 20)
    spec = BuildSpec(python_version=bubblewrap.facts().python)
    files = {"solution.py": "def add(a, b):\n    return a + b\n", "test_solution.py": file_of_tests(21, 1)}
    job = Job(purpose="run", spec=spec, files=files, targets=("test_solution.py",))
    report = asyncio.run(bubblewrap.execute(job)).report
    assert not report.whole
    assert [t.exception for t in report.failing] == ["TooManyTests"]
    files["test_solution.py"] = file_of_tests(20, 1)
    report = asyncio.run(bubblewrap.execute(job.model_copy(update={"files": files}))).report
    assert (report.exit, report.whole) == ("ok", True)
