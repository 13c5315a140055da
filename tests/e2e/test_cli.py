"""The command line as a user has it: processes, exit codes, one clear line for what goes wrong, and nothing lost."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.forked import codetape, interruptible
from tests.servers import scripted, serving
from tests.support import ADD, ADD_TESTS, block, diagnosis, failure, opinions, plan, proposals

ROOT = Path(__file__).parents[2]
PROMPT = "Write add(a, b), the sum of two numbers."
WELL = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}


def listed(*words):
    return json.loads(codetape("list", "--json", *words).stdout)["sessions"]


# ---- the demo


@pytest.mark.sandbox
def test_the_demo_really_runs(bubblewrap):
    done = codetape("demo", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "everything else happens here, in the bubblewrap sandbox" in done.stderr
    assert re.search(r"run 1: \d+ passed, [1-9]\d* failed", done.stderr)
    assert "diagnosis:" in done.stderr
    assert "succeeded, anchored" in done.stdout
    script = subprocess.run(
        [sys.executable, "out/solution.py", f"--till={ROOT / 'replays/till.csv'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    assert Path("total").read_text() == "2602.56"  # outside the sandbox results go to the current folder
    shown = codetape("exec", "last", f"till={ROOT / 'replays/till.csv'}", "--json")
    assert json.loads(shown.stdout)["outputs"] == {"total": "2602.56"}
    assert "solution.py" not in codetape("show", "last", "--diff").stderr


def test_the_demo_shows_recorded_outcomes_where_no_sandbox_can_be_had():
    without = {"CODETAPE_CACHE": "/proc/nowhere"}
    done = codetape("demo", env=without)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("Nothing is executed here")
    assert lines[-1] == lines[0]
    assert "CODETAPE_CACHE" in lines[0]
    assert "succeeded, anchored" in done.stdout
    refused = codetape("demo", "--sandbox", "bubblewrap", env=without)
    assert refused.returncode == 1
    assert refused.stderr.startswith("codetape: The cache")


# ---- run


@pytest.mark.sandbox
def test_run_writes_a_script_and_one_json_object(bubblewrap):
    with serving(scripted(WELL)) as (url, asked):
        done = codetape(
            "run",
            PROMPT,
            "--model",
            "openai:small",
            "--base-url",
            url,
            "-o",
            "out",
            "--json",
            "--tag",
            "t",
            "--param",
            "temperature=0.5",
        )
    assert done.returncode == 0, done.stdout + done.stderr
    value = json.loads(done.stdout)
    assert {
        "session",
        "status",
        "confidence",
        "reason",
        "iterations",
        "image",
        "packages",
        "tests",
        "usage",
        "solution",
        "solution_path",
        "duration_s",
    } <= set(value)
    assert value["tests"] == {"passed": 2, "failed": 0, "errors": 0, "quarantined": 0}
    assert value["usage"] == {
        "input": 300,
        "cached_input": 0,
        "output": 60,
        "reasoning": 0,
        "total": 360,
        "calls": 3,
        "estimated": False,
        "cost": None,  # a local server bills nobody: unpriced, and not nothing
        "unpriced": 3,
        "replayed": 0,
    }
    assert asked[0][1]["temperature"] == 0.5
    script = Path(value["solution_path"]).read_text()
    assert script.startswith("# /// script")
    assert {p.name for p in Path("out").iterdir()} >= {
        "solution.py",
        "test_solution.py",
        "requirements.lock",
        "result.json",
    }
    assert (
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "out"], capture_output=True, check=False, cwd="."
        ).returncode
        == 0
    )


@pytest.mark.sandbox
def test_the_whole_loop_over_http(bubblewrap):
    wrong = block("def add(a, b):\n    return a - b")
    answers = {**WELL, "code": [wrong, ADD], "second_opinion": [opinions("3")],
               "diagnose": [diagnosis(failure("test_sum", fixes=[("a - b", "a + b")]))]}  # fmt: skip
    with serving(scripted(answers)) as (url, _):
        done = codetape("run", "-", "--model", "openai:small", "--base-url", url, text=PROMPT)
    assert done.returncode == 0, done.stderr
    assert "run 1: 1 passed, 1 failed" in done.stderr
    assert "second opinion: test_solution.py::test_sum: upheld" in done.stderr
    assert "run 2: 2 passed, 0 failed" in done.stderr
    assert "return a + b" in codetape("show", "last", "--code").stdout
    assert "-    return a - b" in codetape("show", "last", "--diff", "--iteration", "2").stdout
    events = json.loads(codetape("show", "last", "--events", "--json").stdout)["events"]
    assert [e["seq"] for e in events] == list(range(len(events)))
    calls = json.loads(codetape("show", "last", "--prompts", "--json").stdout)["calls"]
    assert [c["purpose"] for c in calls] == ["plan", "code", "tests", "second_opinion", "diagnose", "code"]
    assert codetape("export", "last", "-o", "a.tape.jsonl").returncode == 0
    assert codetape("export", "last", "-o", "b.tape.jsonl").returncode == 0
    assert Path("a.tape.jsonl").read_bytes() == Path("b.tape.jsonl").read_bytes()


@pytest.mark.sandbox
def test_an_unknown_package_is_a_question_that_a_person_answers(bubblewrap):
    wants = block("import frobnicate\n\n\ndef add(a, b):\n    return a + b")
    answers = {**WELL, "code": [wants, ADD], "packages": [proposals(frobnicate="frobnicate-pro")]}
    with serving(scripted(answers)) as (url, _):
        asked = codetape("run", PROMPT, "--model", "openai:small", "--base-url", url)
        assert asked.returncode == 104
        session = listed()[0]["session"]
        assert f"codetape resume {session} --base-url {url} --allow-package frobnicate-pro" in asked.stdout
        assert "--deny-package frobnicate-pro" in asked.stdout
        done = codetape("resume", session, "--deny-package", "frobnicate-pro", "--base-url", url)
    assert done.returncode == 0, done.stderr
    kinds = [e["kind"] for e in json.loads(codetape("show", session, "--events", "--json").stdout)["events"]]
    assert [k for k in kinds if k in ("Suspended", "PersonAnswered", "Resumed")] == [
        "Suspended",
        "PersonAnswered",
        "Resumed",
    ]


@pytest.mark.sandbox
def test_ctrl_c_loses_nothing_and_the_session_goes_on(bubblewrap):
    stalled = {"once": True}
    well = scripted(WELL)

    def answer(handler, asked):
        if len(state) == 2 and stalled.pop("once", None):
            time.sleep(60)
        state.append(asked)
        well(handler, asked)

    state = []
    with serving(answer) as (url, asked):
        words = [sys.executable, "-m", "codetape", "run", PROMPT, "--model", "openai:small", "--base-url", url]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
        )
        for _ in range(600):
            if len(asked) == 3:
                break
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130, said
        session = listed()[0]["session"]
        assert f"codetape resume {session}" in said
        assert listed()[0]["state"] == "suspended"
        done = codetape("resume", session, "--base-url", url)
        assert done.returncode == 0, done.stderr
    assert len(asked) == 4  # plan, code, the lost ask for tests, and that one again
    kinds = [e["kind"] for e in json.loads(codetape("show", session, "--events", "--json").stdout)["events"]]
    assert kinds.count("CallLost") == 1


def test_a_session_out_of_runs_goes_on_with_a_higher_limit(bubblewrap):
    wrong = block("def add(a, b):\n    return a - b")
    answers = {
        **WELL,
        "code": [wrong, ADD],
        "second_opinion": [opinions("3")],
        "diagnose": [diagnosis(failure("test_sum"))],
    }
    with serving(scripted(answers)) as (url, _):
        failed = codetape("run", PROMPT, "--model", "openai:small", "--base-url", url, "--max-iterations", "1")
        assert failed.returncode == 100
        assert "--max-iterations" in failed.stdout
        done = codetape("resume", "last", "--max-iterations", "5", "--base-url", url)
    assert done.returncode == 0, done.stderr


# ---- what goes wrong


def _closed_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


BAD = {
    "no model": (["run", PROMPT], 2, "No model is named"),
    "empty prompt": (["run", "  ", "--model", "tape:demo"], 2, "The prompt is empty"),
    "two prompts": (["run", PROMPT, "--prompt-file", "x", "--model", "tape:demo"], 2, "one of them"),
    "no key": (["run", PROMPT, "--model", "openai:x"], 2, "OPENAI_API_KEY"),
    "unknown adapter": (["run", PROMPT, "--model", "nobody:x"], 2, "no model adapter 'nobody'"),
    "no adapter": (["run", PROMPT, "--model", "gpt"], 2, "names no model"),
    "unknown sandbox": (["run", PROMPT, "--model", "tape:demo", "--sandbox", "bottle"], 2, "no sandbox adapter"),
    "no tape": (["run", PROMPT, "--model", "tape:nowhere.jsonl"], 2, "cannot be read"),
    "missing input": (["run", PROMPT, "--model", "tape:demo", "--input", "x=file:nowhere"], 2, "there is no file nowhere"),
    "input without a type": (["run", PROMPT, "--model", "tape:demo", "--input", "x"], 2, "is not NAME=VALUE"),
    "unknown type": (["run", PROMPT, "--model", "tape:demo", "--input", "x=blob"], 2, "unknown type 'blob'"),
    "unknown output": (["run", PROMPT, "--model", "tape:demo", "--output", "x=list"], 2, "unknown type 'list'"),
    "missing tests": (["run", PROMPT, "--model", "tape:demo", "--tests", "nowhere.py"], 2, "nowhere.py cannot be read"),
    "no pack": (["run", PROMPT, "--model", "tape:demo", "--prompts", "nowhere"], 2, "no prompt pack"),
    "odd memory": (["run", PROMPT, "--model", "tape:demo", "--memory", "lots"], 2, "is no size"),
    "odd policy": (["run", PROMPT, "--model", "tape:demo", "--package-policy", "any"], 2, "no package policy"),
    "odd package": (["run", PROMPT, "--model", "tape:demo", "--package", "-r x"], 2, "is no package name"),
    "odd limit": (["run", PROMPT, "--model", "tape:demo", "--max-iterations", "0"], 2, "max-iterations"),
    "no command": (["walk"], 2, "No such command"),
    "no database": (["list"], 2, "no database"),
    "no session": (["show", "abc"], 2, "no database"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line_and_the_right_code(name):
    words, code, said = BAD[name]
    done = codetape(*words)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(".codetape").exists()
    error = json.loads(codetape(*words, "--json").stdout)["error"] if words[0] != "walk" else {"exit_code": 2}
    assert error["exit_code"] == code


def test_a_server_that_is_not_there_suspends_the_session():
    done = codetape("run", PROMPT, "--model", "openai:x", "--base-url", _closed_port(), timeout=120)
    assert done.returncode == 1
    assert "gave no answer" in done.stdout
    assert "codetape resume" in done.stdout
    assert listed()[0]["state"] == "suspended"


def test_a_wrong_key_is_said_and_not_shown():
    key = "sk-proj-wrongwrongwrongwrongwrong1234"

    def answer(handler, asked):
        handler.send(401, {"error": {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}})

    with serving(answer) as (url, asked):
        done = codetape("run", PROMPT, "--model", "openai:x", "--base-url", url, env={"OPENAI_API_KEY": key})
    assert done.returncode == 1
    assert "Check the key" in done.stdout
    assert len(asked) == 1
    assert key not in done.stdout + done.stderr
    for path in Path(".codetape").iterdir():
        assert key.encode() not in path.read_bytes()


def test_a_file_that_is_no_database_is_left_alone():
    Path("x.db").write_text("not a database at all, but a text that somebody needs" * 20)
    before = Path("x.db").read_bytes()
    done = codetape("run", PROMPT, "--model", "tape:demo", "--db", "x.db")
    assert done.returncode == 1
    assert "no database" in done.stderr
    assert Path("x.db").read_bytes() == before


def test_a_tape_that_was_edited_is_refused():
    lines = (ROOT / "replays/demo.tape.jsonl").read_text().splitlines(keepends=True)
    for number, (name, edited) in enumerate({
        "cut": lines[:-1], "swapped": [lines[0], lines[2], lines[1], *lines[3:]],
        "edited": [lines[0], lines[1].replace('"seq":0', '"seq":1'), *lines[2:]],
        "newer": [lines[0].replace('"codetape":1', '"codetape":9'), *lines[1:]], "empty": [], "other": ["hello\n"],
    }.items()):  # fmt: skip
        Path(f"{number}.tape.jsonl").write_text("".join(edited))
        done = codetape("run", PROMPT, "--model", f"tape:{number}.tape.jsonl")
        assert done.returncode == 1, name
        assert f"{number}.tape.jsonl" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_texts_from_outside_are_shown_and_not_obeyed():
    from codetape.text.escape import safe

    assert safe("a\x1b[31mred\u202eevil\tb\nc") == "a\\x1b[31mred\\x202eevil\tb\nc"


def test_help_is_there_at_once_and_imports_little():
    code = "import sys; sys.argv = ['codetape', '--help']\nfrom codetape.cli import main\ntry: main()\nexcept SystemExit: pass\nprint([m for m in ('openai', 'docker', 'pydantic', 'asyncio', 'sqlite_utils') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
