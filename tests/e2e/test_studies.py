"""Corpora, what-if, check, backtest and bundles from the command line, with a real server on loopback and the real sandbox."""

import json
import os
import pty
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.e2e.test_cli import listed
from tests.helpers.forked import codetape
from tests.servers import purpose_of, serving
from tests.support import ADD, ADD_TESTS, SUBTRACT, diagnosis, failure, opinions, plan, verification

REPLAYS = Path(__file__).parents[2] / "replays"
DEMO = str(REPLAYS / "demo.tape.jsonl")
ORACLE = "from solution import add\n\n\ndef test_oracle():\n    assert add(2, 2) == 4\n"
pytestmark = pytest.mark.sandbox


class Model:
    """Answers as scripted; ``wrong`` says of which prompts the code is wrong at first."""

    def __init__(self, wrong=lambda text: False):
        self.wrong, self.asked, self.lock = wrong, [], threading.Lock()

    def __call__(self, handler, asked):
        purpose, text = purpose_of(asked), asked["messages"][1]["content"]
        with self.lock:
            self.asked.append(purpose)
        handler.say(
            {
                "plan": plan(),
                "code": SUBTRACT if self.wrong(text) else ADD,
                "tests": ADD_TESTS,
                "second_opinion": opinions("3", "4"),
                "diagnose": diagnosis(failure("test_sum")),
                "verify_code": verification(),
            }[purpose]
        )


@pytest.fixture
def tasks():
    lines = [
        {"id": f"t{n}", "prompt": f"Write add(a, b), number {n}.", "oracle": ORACLE, "tags": ["adds"]} for n in range(4)
    ]
    Path("tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "tasks.jsonl"


@pytest.fixture
def two_tasks(tasks):
    """As many as show what a check does with several; each is run several times, in the real sandbox."""
    lines = Path(tasks).read_text().splitlines()[:2]
    Path(tasks).write_text("\n".join(lines) + "\n")
    return tasks


def pack(name, file, text):
    codetape("prompts", "export", name)
    path = Path(name) / file
    path.write_text(path.read_text() + text)
    return name


def tapes_pack(name, file, text):
    """The prompts that the shipped tapes were made with, which are older than the present ones; a file of them changed."""
    from codetape.eventlog.fold import fold
    from codetape.playback import tape_file

    stream = tape_file.load("demo").stream
    for part, content in fold(stream.events[:1], stream.texts).pack.items():
        path = Path(name) / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + (text if part == file else ""))
    return name


def made(model, *words, url=None):
    return codetape("run", "--model", "openai:scripted", "--base-url", url, *words, env={"OPENAI_API_KEY": "k"})


def test_a_task_file_makes_a_corpus_and_a_batch_that_was_stopped_goes_on(bubblewrap, tasks):
    model = Model(wrong=lambda text: "number 2" in text)
    with serving(model) as (url, _):
        words = ("--tasks", tasks, "--max-iterations", "1", "--n-concurrent", "2", "--sandbox", "bubblewrap")
        done = made(model, *words, "--json", url=url)
        assert done.returncode == 100, done.stderr
        value = json.loads(done.stdout)
        assert (value["solved"], value["failed"], value["found"]) == (3, 1, 0)
        assert [a["task"] for a in value["attempts"]] == ["t0", "t1", "t2", "t3"]
        assert {a["graded"] for a in value["attempts"]} == {"oracle"}
        asked = len(model.asked)
        again = made(model, *words, "--json", url=url)
        assert json.loads(again.stdout)["found"] == 4
        assert len(model.asked) == asked
        more = made(model, *words, "-k", "2", url=url)
        assert "4 were there before" in more.stdout
        assert "8 of 8 done, 0 left: 6 solved, 2 not" in more.stdout
    assert len(listed()) == 8
    assert {row["task"] for row in listed("--failing")} == {"t2"}
    assert len(listed("--task", "t[01]", "--tag", "adds")) == 4
    assert len(listed("--limit", "2-3")) == 2
    assert codetape("replay", "--failing").stdout.count("identical") == 2
    assert codetape("verify", "--task", "t1").stdout.endswith("\n2 sessions: 2 sound, 0 not sound\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: no JSON"),
        ('{"id": "a"}', "an id and a prompt"),
        ('{"id": "a", "prompt": "p", "model": "m"}', "has no model"),
        ('{"id": "a", "prompt": "p"}\n{"id": "a", "prompt": "q"}', "names the task a twice"),
        ('{"id": "a", "prompt": "p", "tests": "nowhere.py"}', "nowhere.py cannot be read"),
        ('{"id": "a", "prompt": "p", "oracle": "x = ("}', "no valid Python"),
        ('{"id": "a", "prompt": "p", "inputs": {"d": "file:nowhere.csv"}}', "there is no file"),
        ("", "holds 0 tasks"),
        ("[" * 100_000, "no JSON"),
        ('{"id": "a", "prompt": "p", "tests": "\\u0000.py"}', "no valid Python"),
        ('{"id": "\\ud800", "prompt": "p"}', "1 to 200 characters"),
        ('{"id": "a", "prompt": "p", "schema": 5}', "schema is a JSON Schema"),
    ],
)
def test_a_bad_task_is_told_by_its_line_before_anything_is_asked(bubblewrap, line, said):
    Path("tasks.jsonl").write_text(line)
    done = codetape("run", "--tasks", "tasks.jsonl", "--model", "tape:demo")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert not Path(".codetape/tape.db").exists() or listed() == []


def test_whatif_names_the_first_request_that_differs_and_makes_no_call():
    done = codetape(
        "whatif",
        "--prompts",
        tapes_pack("other", "diagnose.md", "\nThink twice.\n"),
        str(REPLAYS),
        "--json",
        env={"OPENAI_API_KEY": ""},
    )
    value = json.loads(done.stdout)
    assert done.returncode == 0
    by_task = {one["task"]: one for one in value["sessions"]}
    assert (by_task["till"]["first"], by_task["till"]["first_seq"], by_task["till"]["reused"]) == ("diagnose", 21, 3)
    assert not by_task["orders"]["differs"]
    assert value["first"] == {"diagnose": 2}
    plain = codetape("whatif", "--prompts", "other", str(REPLAYS), "--task", "till")
    assert "+Think twice." in plain.stdout
    assert not Path(".codetape").exists()
    assert "1 to be made" in codetape("whatif", "--prompts", "current", DEMO).stdout
    assert codetape("whatif", "--prompts", tapes_pack("same", "", ""), DEMO).stdout.startswith("1 sessions: 0 would")
    assert codetape("whatif", DEMO).returncode == 2
    assert codetape("whatif", "--set", "packages=x", DEMO).returncode == 2
    assert "no session" in codetape("whatif", "--model", "m", DEMO, "--task", "nothing").stderr.lower()
    budget = codetape("whatif", "--set", "max_tokens=1", DEMO)
    assert budget.returncode == 2
    assert "backtest limits" in budget.stderr
    for words in (
        ("--since", "0001-01-01T00:00+14:00"),
        ("--set", 'parameters={"temperature":1e400}'),
        ("--limit", "5-1"),
    ):
        done = codetape("whatif", "--model", "m", *words, DEMO)
        assert (done.returncode, "own" in done.stderr) == (2, False)


def test_check_from_its_estimate_to_its_reports(bubblewrap, two_tasks):
    model = Model()
    with serving(model) as (url, _):
        made(model, "--tasks", two_tasks, "--sandbox", "bubblewrap", "--max-iterations", "1", url=url)
        other = pack("other", "code.md", "\nAlways subtract.\n")
        common = ("check", "--prompts", other, "--base-url", url, "--sandbox", "bubblewrap")
        env = {"OPENAI_API_KEY": "k"}
        dry = codetape(*common, "--dry-run", env=env)
        assert "2 sessions would come out differently" in dry.stdout
        assert "code 2" in dry.stdout
        refused = codetape(*common, env=env)
        assert refused.returncode == 2
        assert "--yes" in refused.stderr
        model.wrong = lambda text: "Always subtract" in text
        model.asked.clear()
        files = [word for form in ("json", "md", "html", "junit.xml", "csv") for word in ("-o", f"report.{form}")]
        done = codetape(*common, "--yes", "--control", *files, env=env)
        assert done.returncode == 103, done.stderr  # two tasks cannot come to a p of 0.05
        assert "2 worse, 0 better" in done.stdout
        assert "t1: 1/1 -> 0/1" in done.stdout
        assert model.asked == ["code"] * 4
        assert all(Path(f"report.{form}").stat().st_size > 100 for form in ("json", "md", "html", "junit.xml", "csv"))
        again = codetape(*common, "--yes", "--control", env=env)
        assert again.returncode == 103
        assert model.asked == ["code"] * 4
        own = codetape(*common, "--baseline", "report.json", "--max-tokens", "1000000", "--json", env=env)
        assert own.returncode == 2
        assert "very check" in own.stdout
        second = pack("second", "code.md", "\nAlways add.\n")
        based = codetape(
            "check",
            "--prompts",
            second,
            *common[3:],
            "--baseline",
            "report.json",
            "--max-tokens",
            "1000000",
            "--json",
            env=env,
        )
        value = json.loads(based.stdout)
        assert (value["control"], value["better"]) == ("baseline", 2)
    assert len(listed("--tag", "check:*")) == 6
    assert codetape(*common[:3], "-o", "x.pdf", "--dry-run").returncode == 2


def test_a_key_that_is_missing_is_told_before_anything_is_begun(bubblewrap):
    other = pack("other", "diagnose.md", "\nThink twice.\n")
    done = codetape("check", "--prompts", other, DEMO, "--sandbox", "bubblewrap", "--yes")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "OPENAI_API_KEY" in done.stderr
    assert {row["parent"] for row in listed()} == {""}


def test_check_asks_a_person_who_sits_there(bubblewrap):
    other = pack("other", "diagnose.md", "\nThink twice.\n")
    main, side = pty.openpty()
    words = [sys.executable, "-m", "codetape", "check", "--prompts", other, DEMO, "--sandbox", "bubblewrap"]
    process = subprocess.Popen(words, stdin=side, stdout=side, stderr=side)
    os.close(side)
    said = b""
    while b"Make these calls" not in said:
        assert select.select([main], [], [], 60)[0], said
        said += os.read(main, 4096)
    os.write(main, b"n\n")
    assert process.wait(30) == 130
    os.close(main)
    assert not Path(".codetape/tape.db").exists()


def test_the_bench_of_the_loop_is_that_of_the_engines_own_tree_and_never_of_the_present_folder(tmp_path):
    planted = Path("tests/bench/loop")
    planted.mkdir(parents=True)
    (planted / "__main__.py").write_text("raise SystemExit('obeyed a folder')")
    done = codetape(
        "backtest", "loop", "--tasks", "2", "--seeds", "1", "--samples", "1", "--world", "as it stands", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["world"] for line in done.stdout.splitlines()} == {"as it stands"}


def test_backtests_over_the_real_tapes():
    done = codetape("backtest", "rules", str(REPLAYS), "--fail-on-change", "--json")
    assert done.returncode == 100
    changed = json.loads(done.stdout)["changed"]
    # the tapes are of a version that took a passing run for a success: the present one would confirm it first
    assert {one["kind"] for one in changed} == {"Succeeded run", "Decided run", "Succeeded oracle"}
    assert len(changed) == 6
    value = json.loads(
        codetape(
            "backtest", "limits", "--max-iterations", "1,2,9", "--max-tokens", "60000", str(REPLAYS), "--json"
        ).stdout
    )
    rows = {row["limit"]: row for row in value["limits"]}
    assert rows["max_iterations=1"]["solved"] == 4
    assert rows["max_iterations=1"]["was_solved"] == 5
    assert rows["max_iterations=9"]["refused"] == 1  # it ended at its own limit
    assert rows["max_iterations=1"]["tokens"] < rows["max_iterations=2"]["tokens"]
    assert codetape("backtest", "limits", DEMO).returncode == 2


def test_a_prompt_that_mentions_the_limit_is_refused_by_the_backtest(bubblewrap):
    other = pack("told", "code.md", "\nThere will be at most {{ limits.max_iterations }} runs.\n")
    model = Model()
    with serving(model) as (url, _):
        done = made(model, "Write add(a, b).", "--prompts", other, "--sandbox", "bubblewrap", url=url)
    assert done.returncode == 0, done.stderr
    told = codetape("backtest", "limits", "--max-iterations", "2")
    assert "1 refused" in told.stdout
    assert "its code prompt at event 5 mentions the limit" in told.stdout


def test_what_failed_becomes_a_pytest_file_that_needs_no_codetape():
    done = codetape("export", "--pytest", DEMO, "-o", "test_till.py")
    assert done.returncode == 0, done.stderr
    text = Path("test_till.py").read_text()
    assert "import codetape" not in text
    ran = subprocess.run(
        [sys.executable, "-I", "-m", "pytest", "-q", "-p", "no:codetape", "test_till.py"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert "41886.49" in ran.stdout  # the recorded failure, and not another one
    assert "1 failed" in ran.stdout
    earlier = codetape("export", "--pytest", f"{DEMO}:20", "-o", "-")
    assert earlier.stdout != text
    compile(earlier.stdout, "x", "exec")
    none = codetape("export", "--pytest", str(REPLAYS / "orders.tape.jsonl"), "-o", "-")
    assert none.returncode == 2
    assert "no run" in none.stderr


def test_python_continues_the_check_that_the_command_began(bubblewrap, two_tasks, monkeypatch):
    """The same check has one id, whoever starts it: no attempt is paid for twice."""
    Path(two_tasks).write_text(Path(two_tasks).read_text().splitlines()[0])
    import codetape as python

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    model = Model()
    with serving(model) as (url, _):
        made(model, "--tasks", two_tasks, "--sandbox", "bubblewrap", url=url)
        other = pack("other", "code.md", "\nBe careful.\n")
        words = ("--prompts", other, "--base-url", url, "--sandbox", "bubblewrap", "--control", "--yes", "--json")
        first = json.loads(codetape("check", *words, env={"OPENAI_API_KEY": "k"}).stdout)
        paid = len(model.asked)
        report = python.check(prompts=other, base_url=url, sandbox="bubblewrap", control=True)
        assert len(model.asked) == paid
    assert report.id == first["id"]
    assert report.found == len(report.attempt_records()) == 2
