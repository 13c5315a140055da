"""What surrounds a session: signals, closed streams, locales, files that are none, folders that hold other things."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codetape.playback import tape_file
from tests.e2e.test_cli import listed
from tests.helpers.forked import codetape
from tests.servers import purpose_of, serving
from tests.support import ADD, ADD_TESTS, plan

PROMPT = "Write add(a, b), the sum of two numbers."
REPLIES = {"plan": plan(), "code": ADD, "tests": ADD_TESTS}
RUN = ("run", PROMPT, "--model", "tape:demo", "--sandbox", "tape:demo")
pytestmark = pytest.mark.slow


def started(*words, **more):
    """Start the command line as a process of its own, as a shell does."""
    environment = {**os.environ, "OPENAI_API_KEY": "k", **more.pop("env", {})}
    return subprocess.Popen([sys.executable, "-m", "codetape", *words], env=environment, text=True, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)  # fmt: skip


# ---- signals


def dispositions(**ignored):
    """Return what sets the signals of a process before it starts: the defaults, but for those that are ignored."""

    def act():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN if ignored.get(name) else signal.SIG_DFL)

    return act


@pytest.mark.parametrize(
    ("number", "code", "ignored"),
    [
        (signal.SIGTERM, 143, {}),
        (signal.SIGHUP, 129, {}),
        (signal.SIGINT, 130, {}),
        (signal.SIGTERM, 143, {"SIGINT": True, "SIGHUP": True}),  # as under nohup, in the background of a script
    ],
    ids=["SIGTERM", "SIGHUP", "SIGINT", "SIGTERM in the background"],
)
def test_a_signal_ends_a_run_as_ctrl_c_does_and_nothing_is_lost(number, code, ignored):
    held = []

    def answer(handler, asked):
        if purpose_of(asked) == "code" and not held:
            held.append(True)
            time.sleep(5)
        handler.say(REPLIES[purpose_of(asked)])

    with serving(answer) as (url, _):
        words = ("run", PROMPT, "--model", "openai:x", "--base-url", url, "--sandbox", "tape:demo")
        process = started(*words, preexec_fn=dispositions(**ignored))
        deadline = time.monotonic() + 30
        while not held and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert "codetape resume" in said
    assert [row["state"] for row in listed()] == ["suspended"]
    assert codetape("verify", "last").returncode == 0


def test_a_signal_that_is_ignored_stays_so():
    """nohup: the terminal goes, and the run goes on."""
    process = started("list", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert process.returncode > 0  # there is no database: that is all


# ---- streams and locales


@pytest.mark.parametrize("closed", [(2,), (0,), (0, 2)], ids=str)
def test_closed_streams_end_nothing(closed):
    process = started("demo", "--sandbox", "tape:demo", preexec_fn=lambda: [os.close(n) for n in closed])
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [row["state"] for row in listed()] == ["succeeded"]
    assert codetape("verify", "last").returncode == 0


@pytest.mark.sandbox
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_code_with_other_letters_is_judged_right_in_any_locale(bubblewrap, encoding):
    code = '```python\ndef add(a, b):\n    """Add: größer, 数."""\n    return a + b\n```'
    tests = ADD_TESTS.replace("```python\n", "```python\n# é ü 数\n", 1)
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    with serving(lambda handler, asked: handler.say({**REPLIES, "code": code, "tests": tests}[purpose_of(asked)])) as (url, _):  # fmt: skip
        words = ("run", f"{PROMPT} Größe 数.", "--model", "openai:x", "--base-url", url, "--sandbox", "bubblewrap", "-o", "out")  # fmt: skip
        process = started(*words, env=locale)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "größer, 数" in Path("out/solution.py").read_text("utf-8")
    shown = started("show", "last", "--json", env=locale)
    assert "größer, 数" in json.loads(shown.communicate(timeout=60)[0])["solution"]


# ---- one line, and the right exit code


NESTED = "[" * 5000


@pytest.mark.parametrize(
    "words",
    [
        *([*RUN, option, value] for option, values in {
            "--timeout": ("100000", "99999999999999999999"),
            "--memory": ("1000000G", "nan", "1e400G", "-1G", "inf"),
            "--cpus": ("1e-300", "nan", "inf", "0", "-1", "10000", "0.00001"),
            "--system-package": ("gcc-", "gcc\n", "-gcc", "gcc=1", "a b"),
            "--schema-file": ("pipe", "."),
            "--tests": ("pipe", "/dev/zero"),
        }.items() for value in values),
        ["run", "--tasks", "nan.jsonl", "--model", "tape:demo", "--sandbox", "tape:demo"],
        ["run", "--tasks", "pipe", "--model", "tape:demo"],
        ["run", "--tasks", "/dev/zero", "--model", "tape:demo"],
        ["run", "--prompt-file", "pipe", "--model", "tape:demo"],
        ["import", "pipe"], ["import", "/dev/zero"], ["verify", "pipe"], ["replay", "/dev/null"],
        ["whatif", "--prompts", "pipe"], ["show", "last", "-o", "x", "--code"], ["show", "last", "--force"],
        ["run", "\udcff\udcfe", "--model", "tape:demo"], ["show", "\udcff"], ["list", "--task", "\udcff"],
    ],
    ids=lambda words: " ".join(words[-2:]).encode("ascii", "backslashreplace").decode(),
)  # fmt: skip
def test_what_cannot_be_is_one_line(words):
    os.mkfifo("pipe")
    Path("nan.jsonl").write_text('{"id": "a", "prompt": "x", "schema": {"a": NaN}}\n')
    done = codetape(*words, timeout=20)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("codetape: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "own" not in done.stderr.split() or "error of" not in done.stderr
    assert "pydantic" not in done.stderr


def test_a_settings_file_of_brackets_is_told_and_is_no_crash():
    Path("codetape.toml").write_text(f"x = {NESTED}")
    done = codetape("list")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_present_folder_holds_nobodys_modules():
    for name in ("click", "json", "pydantic"):
        Path(f"{name}.py").write_text("print('planted')\nraise SystemExit(3)")
    Path("codetape").mkdir()
    done = started("--version")
    assert done.communicate(timeout=20)[0].startswith("codetape, version")


# ---- files


def test_a_database_and_a_tape_are_private_from_the_first_byte():
    os.umask(0o022)
    codetape("demo", "--sandbox", "tape:demo", "--db", "elsewhere.db")
    assert stat.S_IMODE(Path("elsewhere.db").stat().st_mode) == 0o600
    codetape("export", "last", "--db", "elsewhere.db", "-o", "x.tape.jsonl")
    assert stat.S_IMODE(Path("x.tape.jsonl").stat().st_mode) == 0o600


@pytest.fixture
def made():
    assert codetape("demo", "--sandbox", "tape:demo", "-o", "out").returncode == 0
    return Path("out")


def test_what_run_writes_is_written_again_at_any_time(made):
    before = {file.name: file.read_bytes() for file in made.iterdir()}
    for words in (("show", "last", "-o", "again"), ("resume", "last", "-o", "more")):
        assert codetape(*words).returncode == 0
        folder = Path(words[-1])
        assert {file.name for file in folder.iterdir()} == {*before}
        assert (folder / "solution.py").read_bytes() == before["solution.py"]
    assert codetape("show", "last", "-o", "out").returncode == 0  # over its own


def test_nothing_is_written_through_a_link_or_over_what_is_somebody_elses(made):
    victim = Path("victim")
    victim.write_text("keep")
    for name in ("solution.py", "result.json", "test_solution.py"):
        folder = Path(f"links-{name}")
        folder.mkdir()
        (folder / name).symlink_to(victim.resolve())
        done = codetape("show", "last", "-o", str(folder), "--force")
        assert (done.returncode, "is a link" in done.stderr) == (2, True)
    other = Path("other")
    other.mkdir()
    (other / "solution.py").write_text("mine")
    done = codetape("show", "last", "-o", "other")
    assert (done.returncode, "--force" in done.stderr) == (2, True)
    assert (other / "solution.py").read_text() == "mine"
    assert codetape("show", "last", "-o", "other", "--force").returncode == 0
    assert (other / "solution.py").read_text() != "mine"
    (made / "solution.py").write_text((made / "solution.py").read_text() + "# edited\n")
    assert codetape("show", "last", "-o", "out").returncode == 2
    assert victim.read_text() == "keep"
    assert sorted(p.name for p in other.iterdir() if p.name.startswith(".")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_at_the_end_is_exit_1_and_says_how_to_write_it_later(monkeypatch, made):
    from codetape.cli import script_folder
    from codetape.errors import InfrastructureError
    from codetape.playback import tape_file
    from codetape.runtime.result import GenerateResult

    class Full(script_folder.ScriptFolder):
        def _write(self, name, text):
            raise OSError(28, "No space left on device")

    tape = tape_file.load("demo")
    with pytest.raises(InfrastructureError, match="No space left") as raised:
        Full(Path("full")).write(GenerateResult.of(tape.run, tape.stream))
    assert raised.value.exit_code == 1
    assert "codetape show" in raised.value.remedy


# ---- a database that goes


def moved(path):
    path.rename("kept.db")


def deleted(path):
    path.unlink()


def replaced(path):
    Path("new").write_bytes(path.read_bytes())
    Path("new").replace(path)


def cut(path):
    os.truncate(path, 0)


def log_gone(path):
    Path(f"{path}-wal").unlink()


@pytest.mark.parametrize("happens", [moved, deleted, replaced, cut, log_gone], ids=lambda f: f.__name__)
def test_a_database_that_goes_stops_the_run_before_the_next_call(happens):
    def answer(handler, asked):
        if purpose_of(asked) == "plan":
            happens(Path("tape.db"))
        handler.say(REPLIES[purpose_of(asked)])

    with serving(answer) as (url, asked):
        done = codetape("run", PROMPT, "--model", "openai:x", "--base-url", url, "--db", "tape.db", "--sandbox", "tape:demo", env={"OPENAI_API_KEY": "k"})  # fmt: skip
    assert done.returncode == 1
    assert len(asked) == 1
    assert done.stderr.count("while it was in use") == 1, done.stderr
    if happens is moved:
        assert str(Path("kept.db").resolve()) in done.stderr


def test_who_holds_a_database_is_named():
    from codetape_adapters.stores.sqlite.open_file import holder
    from codetape_adapters.stores.sqlite.store import SqliteStore

    SqliteStore("tape.db").stored_sessions()
    script = "import sqlite3,sys,time; d=sqlite3.connect('tape.db',isolation_level=None); d.execute('PRAGMA journal_mode=WAL'); d.execute('BEGIN IMMEDIATE'); print('held',flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.1)
        said = holder(Path("tape.db"))
    finally:
        process.kill()
        process.communicate()
    assert said.startswith(f"process {process.pid} (")
    assert "stopped" in said


@pytest.mark.sandbox
@pytest.mark.skipif(os.getuid() != 0, reason="root alone runs code as another user")
def test_a_cache_in_a_private_folder_is_a_line_that_says_which(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    for verb in (("doctor",), ("run", PROMPT, "--model", "tape:demo", "--sandbox", "bubblewrap")):
        done = codetape(*verb, env={"CODETAPE_CACHE": str(private / "cache")})
        said = " ".join((done.stdout + done.stderr).split())
        assert "cannot be entered by the user that code runs as" in said, said
        assert "Set CODETAPE_CACHE to a folder that every user may enter" in said
        assert done.returncode == 1
        assert "bwrap: " not in said


def test_a_killed_export_leaves_no_part_of_a_tape(tmp_path):
    """Whenever the kill comes, there is the whole tape or nothing: the file has no name until it is whole."""
    demo = tape_file.load("demo")
    whole = "".join(tape_file.write(demo.session, demo.stream))
    (tmp_path / "in.tape.jsonl").write_text(whole, encoding="utf-8")
    assert codetape("import", "in.tape.jsonl").returncode == 0
    (tmp_path / "in.tape.jsonl").unlink()
    for number in range(12):
        process = started("export", "last", "-o", "out.tape.jsonl")
        time.sleep(0.15 + number * 0.02)
        process.kill()
        process.communicate()
        if (made := tmp_path / "out.tape.jsonl").exists():
            assert made.read_text("utf-8") == whole
            made.unlink()
        assert sorted(p.name for p in tmp_path.iterdir()) == [".codetape"]
