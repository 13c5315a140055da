"""What a generator that fixes its own code must never do, and what it must: a case each."""

import json
import pickle

import pytest

from codetape.domain.job import Job, compute_image_name
from codetape.domain.task import Input, Output, SandboxFacts
from codetape.domain.usage import Usage
from codetape.errors import SandboxUnavailable, ScriptFailed
from codetape.ports import BuildRejected, Built, Reply
from codetape.prompts.reply_parser import Unusable, read_block, read_json
from codetape.runtime.result import GenerateResult
from codetape.runtime.script_io import collect, parse, read_inputs
from codetape.testing import FakeSandbox
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
    verification,
)  # fmt: skip


def test_a_wrong_solution_never_passes_by_bending_a_right_test():
    bent = block("def test_sum():\n    assert add(1, 2) == -1")
    answers = {
        "plan": [plan()], "code": [SUBTRACT], "tests": [ADD_TESTS], "fix_tests": [bent], "verify_code": [verification()],
        "diagnose": [diagnosis(failure("test_sum", "test_error"))], "second_opinion": [opinions("3")],
    }  # fmt: skip
    result, _ = generate(answers, max_iterations=8)
    assert result.status == "failed"
    assert "== 3" in result.tests


def test_leaving_early_with_zero_is_no_success():
    leave = block("import os\n\n\ndef add(a, b):\n    os._exit(0)")
    answers = {"plan": [plan()], "code": [leave], "tests": [ADD_TESTS], "diagnose": [diagnosis()]}
    result, _ = generate(answers, max_iterations=2)
    assert result.status == "failed"
    assert result.report.exit_code == 0
    assert not result.report.whole


def test_outputs_are_read_strictly():
    assert parse("bool", "False\n") is False
    with pytest.raises(ValueError, match="neither"):
        parse("bool", "0")
    with pytest.raises(ScriptFailed, match="missing"):
        collect((Output(name="answer", type="str"),), {})


def test_a_collection_error_of_the_code_is_fixed_in_the_code():
    broken = block("import json\nVALUE = json.loads('{')\n\n\ndef add(a, b):\n    return a + b")
    answers = {
        "plan": [plan()],
        "code": [broken, ADD],
        "tests": [ADD_TESTS],
        "diagnose": [diagnosis(failure("test_solution.py"))],
    }
    result, model = generate(answers)
    assert result.succeeded
    assert purposes(model).count("code") == 2
    assert purposes(model).count("tests") == 1


def test_a_test_error_that_becomes_logic_changes_the_code():
    tests = block(
        "from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n\n\ndef test_text():\n    value = add('a', 'b')\n    assert value.name == 'ab'"
    )
    again = lambda n: block(f"def test_text():\n    value = add('a', 'b')  # {n}\n    assert value.name == 'ab'")  # noqa: E731
    named = block(
        "class Named(str):\n    @property\n    def name(self):\n        return str(self)\n\n\ndef add(a, b):\n    return Named(a + b) if isinstance(a, str) else a + b"
    )
    answers = {
        "plan": [plan()], "code": [ADD, named], "tests": [tests], "fix_tests": [again(1), again(2), again(3)],
        "diagnose": [diagnosis(failure("test_text"))], "verify_code": [verification()], "verify_tests": [verification()],
    }  # fmt: skip
    events = []
    result, model = generate(answers, hook=lambda event, run: events.append(event))
    assert [e.kind for e in events].count("FailureReclassified") == 1
    assert result.succeeded
    assert purposes(model).count("code") == 2


def test_the_last_fix_is_run_and_a_failure_says_what_failed():
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT, ADD],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    result, _ = generate(answers, max_iterations=2)
    assert result.succeeded
    lost, _ = generate(answers, max_iterations=1)
    assert lost.status == "failed"
    assert "iterations" in lost.reason
    assert lost.report.failing


def test_iterations_are_counted_as_they_run():
    sandbox = HostSandbox()
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT, block("def add(a, b):\n    return a * b"), block("def add(a, b):\n    return b - a - 9")],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3"), opinions("4")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    result, _ = generate(answers, sandbox=sandbox, max_iterations=3)
    assert result.iterations == [job.purpose for job in sandbox.jobs].count("run") == 3


def test_a_package_that_is_unavailable_is_dropped():
    wants = block("import pandas\n\n\ndef add(a, b):\n    return a + b")

    def build(spec):
        if "pandas" in spec.packages:
            return BuildRejected("not_found", "no such package", ("pandas",))
        return Built(spec.name, "", cached=False)

    sandbox = HostSandbox(build)
    none = json.dumps({"distribution": "", "reason": ""})
    answers = {"plan": [plan()], "code": [wants, ADD], "tests": [ADD_TESTS], "replace_package": [none]}
    result, model = generate(answers, sandbox=sandbox)
    assert result.succeeded
    assert sum("pandas" in spec.packages for spec in sandbox.specs) == 1
    assert len(model.requests) == 5


def test_a_malformed_diagnosis_does_not_repeat_the_run():
    sandbox = HostSandbox()
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT, ADD],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3")],
        "diagnose": ["no JSON at all"],
    }
    result, model = generate(answers, sandbox=sandbox)
    assert result.succeeded
    assert purposes(model).count("diagnose") == 2
    assert len({(j.purpose, j.files["solution.py"]) for j in sandbox.jobs}) == len(sandbox.jobs)


def test_a_sandbox_that_is_down_is_nobodys_fault():
    def down(job):
        raise SandboxUnavailable("The daemon is down.", remedy="Start it.")

    answers = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}
    result, model = generate(answers, sandbox=FakeSandbox(down))
    assert (result.status, result.iterations) == ("suspended", 0)
    assert "daemon is down" in result.reason
    assert len(model.requests) == 3


def test_every_run_is_bounded():
    wrong = [block(f"def add(a, b):\n    return a - b - {n}") for n in range(40)]
    answers = {
        "plan": [plan()],
        "code": wrong,
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3", "4")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    result, _ = generate(answers, max_iterations=4)
    assert result.status == "failed"
    assert result.iterations <= 4


def test_commands_are_part_of_an_image():
    plain = compute_image_name("3.12", ["a"])
    once = compute_image_name("3.12", ["a"], commands=["make it"])
    assert plain != once != compute_image_name("3.12", ["a"], commands=["make more"])


def test_system_packages_stay_when_code_is_written_again():
    calls = []

    def execute(job):
        from codetape.domain.report import Frame, Report, TestResult
        from codetape.testing import passing_report

        calls.append(job)
        if job.purpose == "vet" or ("libgl1" in job.spec.system_packages and "again" in job.files["solution.py"]):
            return passing_report(job)
        kind = "ImportError" if not job.spec.system_packages else "ValueError"
        message = "libfoo.so.1: cannot open shared object file" if not job.spec.system_packages else "no"
        bad = TestResult(
            id="test_solution.py::test_sum",
            outcome="failed",
            exception=kind,
            message=message,
            frames=(Frame(file="solution.py", line=2),),
        )
        good = TestResult(id="test_solution.py::test_zero", outcome="passed")
        return Report(exit="tests_failed", whole=True, exit_code=1, collected=(bad.id, good.id), tests=(bad, good))

    able = SandboxFacts(name="able", python="3.11", system_packages=True)
    answers = {
        "plan": [plan()],
        "code": [ADD, block("def add(a, b):  # again\n    return a + b")],
        "tests": [ADD_TESTS],
        "diagnose": [diagnosis(failure("test_sum", "environment"), system=["libgl1"]), diagnosis(failure("test_sum"))],
    }
    result, _ = generate(answers, sandbox=FakeSandbox(execute, facts=able))
    assert result.succeeded
    assert calls[-1].spec.system_packages == ("libgl1",)
    assert "again" in calls[-1].files["solution.py"]


def test_no_tests_run_without_an_image():
    sandbox = FakeSandbox(build=lambda spec: BuildRejected("unknown", "it will not"))
    answers = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}
    result, _ = generate(answers, sandbox=sandbox)
    assert result.status == "suspended"
    assert sandbox.jobs == []


def test_an_image_is_never_assumed():
    def unsure(spec):
        raise SandboxUnavailable("The image cannot be looked up.")

    answers = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}
    sandbox = FakeSandbox(build=unsure)
    result, _ = generate(answers, sandbox=sandbox)
    assert result.status == "suspended"
    assert sandbox.jobs == []


def test_a_refusal_is_asked_once_more_and_then_reported():
    no = Reply(text=None, refusal="I will not.", usage=Usage(input=10, output=2))
    result, model = generate({"plan": [no]})
    assert result.status == "failed"
    assert "refusal" in result.reason
    assert len(model.requests) == 2


def test_json_of_another_shape_is_repaired():
    answers = {"plan": ['{"steps": []}', plan()], "code": [ADD], "tests": [ADD_TESTS]}
    result, model = generate(answers)
    assert result.succeeded
    assert "shape" in model.requests[1].messages[-1].content


def test_cut_off_code_is_never_run():
    cut = Reply(text="```python\ndef add(a, b):\n    return a + b\n```", finish_reason="length")
    sandbox = HostSandbox()
    result, _ = generate({"plan": [plan()], "code": [cut], "tests": [ADD_TESTS]}, sandbox=sandbox)
    assert result.status == "failed"
    assert sandbox.jobs == []


def test_real_fences_are_read_and_others_refused():
    assert read_block("Here:\n\n```py\nx = 1\n```\nDone.") == "x = 1\n"
    assert read_block("~~~~python\nx = '''\n```\n'''\n~~~~") == "x = '''\n```\n'''\n"
    for text, reason in (
        ("x = 1", "no_block"),
        ("```\nx = 1", "open_block"),
        ("```\na\n```\n```\nb\n```", "several_blocks"),
    ):
        found = read_block(text)
        assert isinstance(found, Unusable)
        assert found.reason == reason
    assert not isinstance(read_json("plan", f"```json\n{plan()}\n```"), Unusable)


def test_a_model_call_has_a_sensible_limit():
    from codetape_adapters.models.server_calls import CALL_SECONDS, CONNECT_SECONDS, READ_SECONDS

    assert (CONNECT_SECONDS, READ_SECONDS, CALL_SECONDS) == (10, 600, 600)


def test_no_placeholder_reaches_a_model():
    _, model = generate(
        {
            "plan": [plan()],
            "code": [SUBTRACT, ADD],
            "tests": [ADD_TESTS],
            "second_opinion": [opinions("3")],
            "diagnose": [diagnosis(failure("test_sum"))],
        },
        system_prompt="Be {terse}.",
    )
    for request in model.requests:
        text = "\n".join(m.content for m in request.messages).replace("Be {terse}.", "")
        assert "{language}" not in text
        assert "{{" not in text
        assert "{%" not in text


def test_plain_asserts_methods_and_comments_are_handled():
    tests = block(
        "from solution import add\n\n\nclass TestAdd:\n    def test_sum(self):\n        assert add(1, 2) == 4\n\n    # between the tests\n    def test_zero(self):\n        assert add(4, 0) == 4"
    )
    fixed = block("class TestAdd:\n    def test_sum(self):\n        assert add(1, 2) == 3")
    answers = {
        "plan": [plan()],
        "code": [ADD],
        "tests": [tests],
        "second_opinion": [opinions("3")],
        "fix_tests": [fixed],
    }
    result, _ = generate(answers)
    assert result.succeeded
    assert "# between the tests" in result.tests
    assert "== 3" in result.tests


def test_tokens_of_every_call_are_counted():
    spent = Usage(input=100, output=10)
    bad = Reply(text="nonsense", usage=spent)
    answers = {
        "plan": [bad, Reply(text=plan(), usage=spent)],
        "code": [bad, Reply(text=ADD, usage=spent)],
        "tests": [Reply(text=ADD_TESTS, usage=spent)],
    }
    result, _ = generate(answers)
    assert (result.total_input_tokens, result.total_output_tokens, result.calls) == (500, 50, 5)


def test_each_call_keeps_its_usage():
    usage = Usage(input=5, cache_read=3, output=2, reasoning=7)
    answers = {"plan": [Reply(text=plan(), usage=usage)], "code": [ADD], "tests": [ADD_TESTS]}
    result, _ = generate(answers)
    assert result.conversation[0].usage == usage


def test_the_conversation_is_whole():
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT, ADD],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    result, model = generate(answers)
    assert [e.purpose for e in result.conversation] == purposes(model)
    assert SUBTRACT in [e.reply for e in result.conversation]


def test_a_result_can_be_stored():
    result, _ = generate({"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]})
    assert GenerateResult.model_validate_json(result.model_dump_json()).model_dump() == result.model_dump()
    assert pickle.loads(pickle.dumps(result.config)) == result.config


def test_an_output_may_be_called_anything():
    declared = (Output(name="result", type="str"), Output(name="exit_code", type="int"))
    assert collect(declared, {"result": b"well\n", "exit_code": b"7"}) == {"result": "well", "exit_code": 7}


def test_no_input_passes_a_shell():
    text = 'it\'s; $(touch /tmp/x) `id` "quoted"'
    job = _job(inputs=(Input(name="name", type="str", value=text),))
    assert job.flags == (f"--name={text}",)


def test_the_ninth_file_keeps_its_path(tmp_path):
    given = {}
    for number in range(12):
        path = tmp_path / f"f{number}"
        path.write_text(str(number))
        given[f"file{number}"] = f"file:{path}"
    flags = _job(inputs=read_inputs(given)).flags
    assert flags == tuple(f"--file{n}=/var/inputs/f{n}" for n in range(12))


def test_limits_and_variables_reach_the_sandbox():
    from codetape.domain.task import Resources

    sandbox = HostSandbox()
    forever = block("def add(a, b):\n    while True:\n        pass")
    answers = {"plan": [plan()], "code": [forever], "tests": [ADD_TESTS], "diagnose": [diagnosis()]}
    result, _ = generate(
        answers, sandbox=sandbox, max_iterations=1, resources=Resources(wall_seconds=3), env_vars={"MODE": "x"}
    )
    assert result.report.exit == "timeout"
    assert sandbox.jobs[-1].env == {"MODE": "x"}
    assert sandbox.jobs[-1].resources.wall_seconds == 3


def test_a_failing_script_shows_its_own_traceback():
    answers = {
        "plan": [plan("def add(a, b)")],
        "code": [
            block(
                "def add(a, b):\n    return a + b\n\n\nraise KeyError('the very key') if __name__ == '__main__' else None\n"
            ).replace(
                "raise KeyError('the very key') if __name__ == '__main__' else None",
                "if __name__ == '__main__':\n    raise KeyError('the very key')",
            )
        ],
        "tests": [ADD_TESTS],
    }
    result, _ = generate(answers, ask={"inputs": {"n": "int"}, "outputs": {"total": "float"}})
    assert result.succeeded
    with pytest.raises(ScriptFailed, match="the very key"):
        result.run(n=1)


def _job(**more):
    from codetape.domain.job import BuildSpec

    return Job(purpose="script", spec=BuildSpec(python_version="3.11"), files={}, **more)
