"""The agent and its sessions through the public interface, on fakes and on the host."""

import asyncio
import json
import time

import pytest

from codetape import AutoCoderAgent
from codetape.errors import CodetapeError, SessionNotSucceeded, UsageError
from codetape.eventlog.fold import fold
from codetape.playback.strict_replay import replay
from codetape.runtime.result import GenerateResult
from codetape.testing import FakeClock, FakeSandbox, MemoryStore, ScriptedModel
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
    proposals,
    purposes,
)  # fmt: skip

WELL = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}
GIVEN = "from solution import add\n\n\ndef test_given():\n    assert add(2, 3) == 5\n"


def agent(answers=WELL, **more):
    settings = {"sandbox": FakeSandbox(), "store": MemoryStore(), **more}
    return AutoCoderAgent(model=ScriptedModel(lambda request: answers[request.purpose][0]), **settings)


def test_many_sessions_at_once_on_one_agent():
    one = agent()

    async def many():
        return await asyncio.gather(*(one.agenerate(f"Add {n}.") for n in range(20)))

    results = asyncio.run(many())
    assert {r.status for r in results} == {"succeeded"}
    assert len({r.session for r in results}) == 20


def test_generate_works_where_a_loop_runs_already():
    async def notebook():
        return agent().generate("Add.")

    assert asyncio.run(notebook()).succeeded


def test_the_stream_yields_every_event_in_order():
    store = MemoryStore()

    async def collect():
        return [event async for event in agent(store=store).stream("Add.", session="s")]

    assert tuple(asyncio.run(collect())) == asyncio.run(store.read("s")).events


def test_a_session_that_is_cancelled_at_any_time_goes_on_from_its_log():
    """Given a cancellation at some moment, then the log reads, nothing in it is doubled, and it ends as it would have."""
    begun, started = 0, time.monotonic()
    first = SqliteStore("whole.db")
    agent(store=first).generate("Add.")
    first.close()
    whole = time.monotonic() - started
    for number in range(40):
        store = SqliteStore(f"{number}.db")
        one = agent(store=store)

        async def cancelled(one=one, number=number):
            work = asyncio.create_task(one.agenerate("Add.", session="s"))
            await asyncio.sleep(number * whole / 40)
            work.cancel()
            await asyncio.wait([work])

        asyncio.run(cancelled())
        if "s" not in store.stored_sessions():
            store.close()
            continue
        begun += 1
        before = asyncio.run(store.read("s"))
        state = fold(before.events, before.texts)
        if state.state not in ("succeeded", "failed"):
            assert state.state == "suspended"
            assert state.call is None
            assert asyncio.run(one.aresume("s")).succeeded
        after = asyncio.run(store.read("s"))
        assert after.events[: len(before.events)] == before.events
        replay(after)
        store.close()
    assert begun > 5


def test_an_agent_is_frozen():
    with pytest.raises(AttributeError):
        agent().max_iterations = 3


def test_the_same_session_has_the_same_hashes():
    def head():
        one = agent(clock=FakeClock())
        return asyncio.run(one.agenerate("Add.", session="s")).head

    assert head() == head()


def test_a_result_is_loaded_from_the_log_by_its_id():
    store = SqliteStore("tape.db")
    made = agent(store=store).generate("Add.")
    read = asyncio.run(GenerateResult.load(store, made.session))
    assert read.model_dump() == made.model_dump()
    with pytest.raises(UsageError, match="no sandbox"):
        read.run()


def test_a_failed_session_raises_only_when_asked():
    result = agent({**WELL, "plan": ["no"]}).generate("Add.")
    assert result.status == "failed"
    with pytest.raises(SessionNotSucceeded, match="plan"):
        result.raise_for_status()
    with pytest.raises(CodetapeError):
        result.as_task()


def test_confidence_says_how_far_a_success_can_be_trusted():
    def confidence(prompt="Add.", **ask):
        answers = {k: v[0] for k, v in WELL.items()}
        return generate({k: [v] for k, v in answers.items()}, prompt, ask=ask)[0].confidence

    assert confidence() == "self_tested"
    assert confidence("Add. add(1, 2) -> 3") == "anchored"
    assert confidence(tests=GIVEN) == "anchored"
    assert confidence(oracle=GIVEN) == "oracle"


def test_an_oracle_is_never_shown_and_failing_it_is_final():
    oracle = GIVEN.replace("== 5", "== 77_123")
    result, model = generate(WELL, ask={"oracle": oracle})
    assert result.status == "failed"
    assert "oracle" in result.reason
    assert purposes(model) == ["plan", "code", "tests"]
    assert all("77_123" not in m.content for r in model.requests for m in r.messages)


def test_given_tests_are_shown_and_never_changed():
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT, ADD],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_given"))],
    }
    sandbox = HostSandbox()
    result, model = generate(answers, sandbox=sandbox, ask={"tests": GIVEN})
    assert result.succeeded
    assert {j.files["test_user.py"] for j in sandbox.jobs if j.purpose != "evaluate"} == {GIVEN}
    assert "add(2, 3) == 5" in model.requests[0].messages[1].content


def test_given_tests_that_do_not_collect_are_wrong_use():
    result, _ = generate(
        WELL, ask={"tests": "from solution import add\nassert False\n\n\ndef test_given():\n    pass\n"}
    )
    assert result.status == "failed"
    assert "do not collect" in result.reason
    with pytest.raises(UsageError, match="line 1"):
        generate(WELL, ask={"tests": "def test(:"})
    with pytest.raises(UsageError, match="no test function"):
        generate(WELL, ask={"oracle": "x = 1"})


def test_without_tests_a_script_runs_once_on_its_samples():
    code = block(
        "import sys\n\n\ndef add(a, b):\n    return a + b\n\n\nif __name__ == '__main__':\n    print(sys.argv)"
    )
    sandbox = HostSandbox()
    result, model = generate({**WELL, "code": [code]}, sandbox=sandbox, skip_tests=True, ask={"inputs": {"n": "int:3"}})
    assert (result.status, result.confidence) == ("succeeded", "untested")
    assert [j.purpose for j in sandbox.jobs] == ["script"]
    assert purposes(model) == ["plan", "code"]
    result, _ = generate(WELL, sandbox=(idle := HostSandbox()), skip_tests=True)
    assert result.succeeded
    assert idle.jobs == []


def test_vacuous_tests_never_count():
    empty = block("from solution import add\n\n\ndef test_nothing():\n    assert True")
    result, model = generate({**WELL, "tests": [empty, ADD_TESTS]})
    assert result.succeeded
    assert purposes(model).count("tests") == 2
    result, _ = generate({**WELL, "tests": [empty]})
    assert "No test that counts" in result.reason


def test_a_change_that_breaks_what_passed_and_mends_nothing_is_taken_back():
    tests = block(
        "from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n\n\ndef test_zero():\n    assert add(0, 0) == 0\n\n\ndef test_same():\n    assert add(5, 0) == 5"
    )
    half, worse = block("def add(a, b):\n    return a if b == 0 else 9"), block("def add(a, b):\n    return 9")
    answers = {
        "plan": [plan()],
        "code": [half, worse, ADD],
        "tests": [tests],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    events = []
    result, model = generate(answers, hook=lambda event, run: events.append((event.kind, run)))
    assert result.succeeded
    reverted = next(
        run for kind, run in events if kind == "Decided" and run.work.notes and "taken back" in run.work.notes[-1]
    )
    assert "9\n" in reverted.work.code
    assert "if b == 0" in reverted.work.code
    assert "taken back" in model.requests[-1].messages[1].content
    assert [kind for kind, _ in events].count("CodeReverted") == 1


def test_missing_fixes_are_asked_for_ever_more_forcefully():
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT, SUBTRACT, SUBTRACT, ADD],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_sum", fixes=[("return a - b", "return a + b")]))],
    }
    result, model = generate(answers)
    asked = [r.messages[1].content for r in model.requests if r.purpose == "code"]
    assert result.succeeded
    assert "CRITICAL" not in asked[1]
    assert "CRITICAL" in asked[2]
    assert "FINAL ATTEMPT" in asked[3]
    assert "verify_code" not in purposes(model)  # comparing the texts settled it


def test_a_stuck_session_tries_one_fresh_sample_and_then_says_so():
    wrong = [block(f"def add(a, b):\n    return a - b - {n}") for n in range(1, 9)]
    answers = {
        "plan": [plan()],
        "code": wrong,
        "tests": [block("from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3")],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    result, model = generate(answers, max_iterations=20)
    assert result.status == "failed"
    assert "fresh" in result.reason
    fresh = [r for r in model.requests if r.purpose == "code" and "# The present file" not in r.messages[1].content]
    assert len(fresh) == 2


def test_several_kinds_of_failure_in_one_report_are_all_mended_before_the_next_run():
    code = block(
        "import os\n\n\ndef add(a, b):\n    return a - b\n\n\ndef load():\n    import yaml\n    return yaml.safe_load('a: 1')"
    )
    good = block("import os\n\n\ndef add(a, b):\n    return a + b\n\n\ndef load():\n    return {'a': 1}")
    tests = block(
        "from solution import add, load\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n\n\ndef test_bad():\n    assert undefined_name\n\n\ndef test_zero():\n    assert add(2, 0) == 2"
    )
    fixed = block("def test_bad():\n    assert add(1, 1) == 2")
    answers = {
        "plan": [plan("def add(a, b)", "def load()")],
        "code": [code, good],
        "tests": [tests],
        "fix_tests": [fixed],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    sandbox = HostSandbox()
    result, model = generate(answers, sandbox=sandbox)
    assert result.succeeded
    assert [j.purpose for j in sandbox.jobs].count("run") == 2
    assert purposes(model)[3:] == ["second_opinion", "diagnose", "code", "fix_tests"]


def test_a_proposed_package_that_the_map_knows_needs_no_person():
    code = block("import frobnicate\n\n\ndef add(a, b):\n    return a + b")
    sandbox = FakeSandbox()
    answers = {**WELL, "code": [code], "packages": [proposals(frobnicate="pandas")]}
    result, _ = generate(answers, sandbox=sandbox)
    assert result.succeeded
    assert result.packages == ("pandas",)


def test_an_allowlist_denies_without_asking():
    code = block("import numpy\n\n\ndef add(a, b):\n    return a + b")
    result, model = generate(
        {**WELL, "code": [code, ADD]}, sandbox=FakeSandbox(), package_policy="allowlist", allowlist=("pandas",)
    )
    assert result.succeeded
    assert result.packages == ()
    assert "numpy" in model.requests[-1].messages[0].content


def test_a_replacement_is_installed_in_place_of_what_was_refused():
    from codetape.ports import BuildRejected, Built

    def build(spec):
        if "psycopg2-binary" in spec.packages:
            return BuildRejected("no_wheel", "no wheel", ("psycopg2-binary",))
        return Built(spec.name, "", cached=False)

    code = block("import psycopg2\n\n\ndef add(a, b):\n    return a + b")
    answers = {**WELL, "code": [code], "replace_package": [json.dumps({"distribution": "psycopg", "reason": ""})]}
    result, _ = generate(answers, sandbox=FakeSandbox(build=build))
    assert result.succeeded
    assert result.packages == ("psycopg",)


def test_a_schema_is_put_into_prompts_as_it_is():
    _, model = generate(WELL, ask={"schema": {"type": "object", "x-note": "as is"}})
    assert '"x-note":"as is"' in model.requests[0].messages[1].content


def test_tasks_are_named_by_what_was_asked():
    one, two, other = (agent().generate(p) for p in ("Add.", "Add.", "Subtract."))
    assert one.task == two.task != other.task
    assert agent().generate("Add.", task="mine").task == "mine"


def test_outputs_come_back_typed_and_as_a_task(tmp_path, bubblewrap):
    code = block(
        "import argparse\n\n\ndef add(a, b):\n    return a + b\n\n\ndef main():\n    p = argparse.ArgumentParser()\n    p.add_argument('--a', type=int)\n    p.add_argument('--b', type=int)\n    g = p.parse_args()\n    open('/var/outputs/total', 'w').write(str(add(g.a, g.b)))\n    open('/var/outputs/even', 'w').write(str(add(g.a, g.b) % 2 == 0))\n\n\nif __name__ == '__main__':\n    main()"
    )
    result, _ = generate(
        {**WELL, "code": [code]},
        sandbox=bubblewrap,
        ask={"inputs": {"a": "int:1", "b": int}, "outputs": {"total": int, "even": bool}},
    )
    assert result.run(b=2) == {"total": 3, "even": False}
    assert result.as_task()(a=4, b=2) == {"total": 6, "even": True}
    for wrong in ({"b": "x"}, {}, {"b": 1, "c": 2}):
        with pytest.raises(UsageError):
            result.run(**wrong)
