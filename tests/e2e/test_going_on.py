"""Going on: where a session was made or not at all, and by the line that was printed, as it stands."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_cli import PROMPT, WELL
from tests.helpers.forked import codetape
from tests.servers import purpose_of, scripted, serving
from tests.support import ADD, ADD_TESTS, SUBTRACT, block, diagnosis, failure, opinions, plan

ENV = {"OPENAI_API_KEY": "none"}
RIGHT = "from solution import add\n\n\ndef test_a():\n    assert add(1, 2) == 3\n\n\ndef test_b():\n    assert add(2, 2) == 4\n"


def down(handler, asked):
    handler.send(401, {"error": {"message": "no"}})


def next_lines(done):
    return re.findall(r"^  next +(codetape .+)$", done.stdout, re.M)


def typed(line, env=None):
    """Run a printed line in a shell, as it stands."""
    text = f'codetape() {{ {sys.executable} -m codetape "$@"; }}\n{line}\n'
    return subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, env={**os.environ, **(env or ENV)}, timeout=120
    )


@pytest.fixture
def stopped(bubblewrap):
    """A session that its server let down, and the server, which works from now on."""
    answers = [down]
    with serving(lambda handler, asked: answers[0](handler, asked)) as (url, asked):
        done = codetape("run", PROMPT, "--model", "openai:x", "--base-url", url, "--db", "my tapes.db", env=ENV)
        assert done.returncode == 1
        answers[0] = scripted(WELL)
        yield done, url, asked


def test_the_line_that_is_printed_goes_on_as_it_stands(stopped):
    done, *_ = stopped
    line = next_lines(done)[0]
    assert "'my tapes.db'" in line
    again = typed(line)
    assert again.returncode == 0, again.stderr
    for more in next_lines(again):
        assert typed(more).returncode == 0, more


def test_show_prints_a_line_that_goes_on_in_another_shell(stopped):
    shown = codetape("show", "last", "--db", "my tapes.db")
    assert typed(next_lines(shown)[0]).returncode == 0


def test_a_session_goes_on_where_it_was_made_or_not_at_all(stopped):
    """Without its server's name the key would go to the provider, and the prompts with it: nothing is asked."""
    _, url, asked = stopped
    before = len(asked)
    refused = codetape("resume", "last", "--db", "my tapes.db", env=ENV)
    assert refused.returncode == 2
    assert f"made at {url}" in refused.stderr
    assert f"--base-url {url}" in refused.stderr
    with serving(scripted(WELL)) as (other, others):
        elsewhere = codetape("resume", "last", "--db", "my tapes.db", env={**ENV, "OPENAI_BASE_URL": other})
        assert elsewhere.returncode == 2
        assert (len(asked), len(others)) == (before, 0)
        forked = codetape("fork", "last", "--at", "2", "--db", "my tapes.db", env={**ENV, "OPENAI_BASE_URL": other})
        assert forked.returncode == 2
        named = codetape("resume", "last", "--db", "my tapes.db", "--base-url", other, env=ENV)
        assert named.returncode == 0, named.stderr
        assert others
    changed = json.loads(codetape("show", "last", "--events", "--json", "--db", "my tapes.db").stdout)["events"]
    assert "ConfigChanged" in [e["kind"] for e in changed]
    assert codetape("replay", "last", "--db", "my tapes.db").returncode == 0


def test_a_fork_goes_on_where_it_was_made(stopped):
    _, url, _ = stopped
    line = ("fork", "last", "--at", "2", "--db", "my tapes.db")
    assert codetape(*line, env=ENV).returncode == 2
    assert codetape(*line, "--base-url", url, env=ENV).returncode == 0
    assert codetape(*line, env={**ENV, "OPENAI_BASE_URL": url}).returncode == 0


def test_another_models_name_or_a_variable_names_no_server(stopped):
    """Neither a fork to another model of the same kind, nor a fork of that fork, nor CODETAPE_BASE_URL moves a session."""
    _, url, _ = stopped
    first = json.loads(codetape("list", "--json", "--db", "my tapes.db").stdout)["sessions"][0]["session"]
    with serving(scripted(WELL)) as (other, others):
        moved = {**ENV, "OPENAI_BASE_URL": other}
        line = ("fork", first, "--at", "2", "--model", "openai:z", "--db", "my tapes.db")
        assert codetape(*line, env=moved).returncode == 2
        assert codetape(*line, "--base-url", url, env=moved).returncode == 0
        assert codetape("fork", "last", "--at", "2", "--db", "my tapes.db", env=moved).returncode == 2
        variable = codetape("resume", first, "--db", "my tapes.db", env={**ENV, "CODETAPE_BASE_URL": other})
        assert variable.returncode == 2, variable.stderr
        assert not others
    assert codetape("resume", first, "--db", "my tapes.db", env={**ENV, "CODETAPE_BASE_URL": url}).returncode == 0


def test_a_check_goes_on_where_its_sessions_were_made(bubblewrap):
    with serving(scripted(WELL)) as (url, _):
        env = {**ENV, "OPENAI_BASE_URL": url}
        assert codetape("run", PROMPT, "--model", "openai:x", env=env).returncode == 0
        assert codetape("prompts", "export", "mine").returncode == 0
        page = Path("mine/code.md")
        page.write_text(page.read_text() + "\nBe brief.\n")
        with serving(scripted(WELL)) as (other, others):
            refused = codetape("check", "--prompts", "mine", "--yes", env={**ENV, "OPENAI_BASE_URL": other})
            assert refused.returncode == 2
            assert f"made at {url}" in refused.stderr
            assert not others
        estimate = codetape("check", "--prompts", "mine", "--dry-run", env=env)
        assert re.search(r"at worst +[\d,]+ calls, [\d,]+ tokens", estimate.stdout)
        assert codetape("check", "--prompts", "mine", "--yes", env=env).returncode == 103


@pytest.mark.parametrize("flags", [("--max-tokens", "17000"), ("--max-time", "1s")])
def test_a_budget_that_is_spent_is_raised_by_the_printed_line(flags, bubblewrap):
    def slow(handler, asked):
        if "--max-time" in flags and purpose_of(asked) == "plan":
            time.sleep(1.1)
        answer(handler, asked)

    answer = scripted(WELL)
    with serving(slow) as (url, _):
        done = codetape("run", PROMPT, "--model", "openai:x", "--base-url", url, *flags, env=ENV)
        assert done.returncode == 101, done.stdout
        line = next_lines(done)[0]
        assert flags[0] in line
        assert typed(line).returncode == 0


def test_a_question_about_an_example_is_answered_by_the_printed_lines(bubblewrap):
    answers = {**WELL, "tests": [block(RIGHT)], "second_opinion": [opinions("4")], "diagnose": [diagnosis()]}
    prompt = PROMPT + "\n\n>>> add(1, 2)\n4\n"
    with serving(scripted(answers)) as (url, _):
        done = codetape("run", prompt, "--model", "openai:x", "--base-url", url, env=ENV)
        assert done.returncode == 104
        assert "add(1, 2) gives 4, and the code gives 3" in done.stdout
        said = "  failing     test_anchors.py::test_example_1\n  assertion   assert add(1, 2) == 4\n  left        3\n  right       4\n"
        assert said in done.stdout
        drop, keep = next_lines(done)
        assert "--drop-test test_example_1" in drop
        assert "--keep-test test_example_1" in keep
        settled = typed(drop)
    assert settled.returncode == 0, settled.stderr
    assert "succeeded, disputed" in settled.stdout
    assert "quarantined test_anchors.py::test_example_1" in settled.stdout


def test_the_failing_test_is_named_with_both_values_by_run_show_and_audit(bubblewrap):
    tests = ADD_TESTS.replace("== 4", "== 4, 'of nothing'").replace(
        "def test_zero",
        "def test_raises():\n    import pytest\n    with pytest.raises(ValueError):\n        add(1, 1)\n\n\ndef test_zero",
    )
    says = diagnosis(failure("test_sum"))
    answers = {
        "plan": [plan()],
        "code": [SUBTRACT],
        "tests": [tests],
        "second_opinion": [opinions("3", ("exception", "ValueError"))],
        "diagnose": [says],
    }
    with serving(scripted(answers)) as (url, _):
        done = codetape("run", PROMPT, "--model", "openai:x", "--base-url", url, env=ENV)
    assert done.returncode == 100
    shown, page = codetape("show", "last"), codetape("audit", "last", "-o", "audit.md")
    assert page.returncode == 0
    top = Path("audit.md").read_text().split("## What was asked")[0]
    why = codetape("why", "last").stdout
    told = [
        " ".join(text.replace("\\", "").replace("|", " ").split()) for text in (done.stdout, shown.stdout, top, why)
    ]
    for text in told:
        assert "failing test_solution.py::test_sum assertion assert add(1, 2) == 3 left -1 right 3" in text
        assert "DID NOT RAISE" in text
        assert "diagnosis" in text
    assert len(why.splitlines()) <= 20
    value = json.loads(codetape("show", "last", "--json").stdout)
    assert value["diagnosis"]
    assert json.loads(codetape("why", "last", "--json").stdout)["failing"] == value["failing"]
    assert {
        "test": "test_solution.py::test_sum",
        "assertion": "assert add(1, 2) == 3",
        "left": "-1",
        "right": "3",
        "raised": "",
        "where": "",
    } in value["failing"]


def test_words_of_a_printed_line_are_quoted():
    from codetape.cli.summary import Again

    again = Again(db=("--db", "a b.db"), model=("--base-url", "http://h/v1?x=1&y=2"))
    line = again.resume("s", "--allow-package", "run:echo 'a'; rm x")
    assert shlex.split(line)[1:] == [
        "resume",
        "s",
        "--db",
        "a b.db",
        "--base-url",
        "http://h/v1?x=1&y=2",
        "--allow-package",
        "run:echo 'a'; rm x",
    ]
    assert ADD
