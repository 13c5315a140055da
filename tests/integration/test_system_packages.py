"""System packages and commands: the policy decides, a person is asked last, and what is unavailable is done without."""

import asyncio

import pytest

from codetape import AutoCoderAgent
from codetape.domain.report import Frame, Report, TestResult
from codetape.domain.task import SandboxFacts
from codetape.playback.strict_replay import replay
from codetape.ports import BuildRejected, Built
from codetape.testing import FakeSandbox, MemoryStore, ScriptedModel, passing_report
from tests.support import ADD, ADD_TESTS, block, diagnosis, failure, plan, purposes

NEEDY = block("import ctypes\n\n\ndef add(a, b):\n    ctypes.CDLL('libneeded.so')\n    return a + b")


def run(packages=(), commands=(), refused=(), **settings):
    """Run a session whose first code needs something below Python; return its result, the model, the sandbox and the store."""
    said = {**dict.fromkeys(("needs_system_packages",), packages)}

    def execute(job):
        ready = (
            any(p in sandbox.specs[-1].system_packages for p in said["needs_system_packages"])
            or sandbox.specs[-1].commands
        )
        if job.purpose != "run" or "libneeded" not in job.files["solution.py"] or ready:
            return passing_report(job)
        names = ("test_solution.py::test_sum", "test_solution.py::test_zero")
        wrong = tuple(
            TestResult(id=n, outcome="failed", exception="OSError", frames=(Frame(file="solution.py", line=5),),
                       message="libneeded.so: cannot open shared object file: No such file or directory")
            for n in names
        )  # fmt: skip
        return Report(exit="tests_failed", whole=True, exit_code=1, collected=names, tests=wrong)

    def build(spec):
        if gone := tuple(p for p in spec.system_packages if p in refused):
            return BuildRejected("not_found", "E: Unable to locate package", gone)
        return Built(spec.name, "", cached=False)

    facts = SandboxFacts(name="fake", python="3.11", system_packages=True, commands=True)
    sandbox, store = FakeSandbox(execute, build, facts=facts), MemoryStore()
    wanted = diagnosis(failure("test_sum", "environment", "a library is missing"), system=packages)
    if commands:
        wanted = wanted.replace('"needs_additional_commands": []', f'"needs_additional_commands": ["{commands[0]}"]')
    model = ScriptedModel({"plan": [plan()], "code": [NEEDY, ADD], "tests": [ADD_TESTS], "diagnose": [wanted]})
    agent = AutoCoderAgent(model=model, sandbox=sandbox, store=store, **settings)
    result = asyncio.run(agent.agenerate("Add.", session="s"))
    return result, model, sandbox, store, agent


def test_a_known_one_is_installed_and_stays():
    result, model, sandbox, store, _ = run(("libgl1",))
    assert result.succeeded
    assert result.system_packages == ("libgl1",)
    assert purposes(model).count("code") == 1
    assert sandbox.specs[-1].system_packages == ("libgl1",)
    replay(asyncio.run(store.read("s")))


@pytest.mark.parametrize(("answer", "codes"), [("allow", 1), ("deny", 2)])
def test_an_unknown_one_is_a_question(answer, codes):
    result, model, _, store, agent = run(("libneeded9",))
    assert result.status == "suspended"
    assert result.question == "apt:libneeded9"
    result = asyncio.run(agent.aresume("s", answers={"apt:libneeded9": answer}))
    assert result.succeeded, result.reason
    assert purposes(model).count("code") == codes
    assert result.system_packages == (("libneeded9",) if answer == "allow" else ())
    replay(asyncio.run(store.read("s")))


def test_one_that_does_not_exist_is_done_without():
    result, model, _, store, _ = run(("libneeded9",), refused=("libneeded9",), package_policy="allow")
    assert result.succeeded
    assert purposes(model).count("code") == 2
    assert "libneeded9 cannot be had" in model.requests[-1].messages[1].content
    replay(asyncio.run(store.read("s")))


def test_one_that_the_user_named_and_that_does_not_exist_suspends():
    result, *_ = run(("libgl1",), refused=("libnone",), system_packages=("libnone",))
    assert result.status == "suspended"
    assert "Unable to locate" in result.reason


def test_an_allowlist_names_them_with_apt():
    assert run(("libneeded9",), package_policy="allowlist", allowlist=("apt:libneeded9",))[0].system_packages == (
        "libneeded9",
    )
    result, model, *_ = run(("libneeded9",), package_policy="allowlist")
    assert result.succeeded
    assert result.system_packages == ()
    assert purposes(model).count("code") == 2


def test_commands_run_only_under_a_policy():
    assert run(commands=("make install",))[2].specs[-1].commands == ()
    allowed, _, sandbox, store, _ = run(commands=("make install",), command_policy="allow")
    assert allowed.succeeded
    assert sandbox.specs[-1].commands == ("make install",)
    replay(asyncio.run(store.read("s")))
    asked, *_, agent = run(commands=("make install",), command_policy="ask")
    assert asked.question == "run:make install"
    assert asyncio.run(agent.aresume("s", answers={"run:make install": "allow"})).succeeded
