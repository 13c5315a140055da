"""What a terminal shows: columns that fit, colours that mean something, a pager, progress for a pipe, and where a database is."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import codetape as package
from codetape.errors import UsageError
from codetape.testing import FakeSandbox, MemoryStore
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.corpora import ORACLE, noisy_agent, noisy_corpus
from tests.helpers.forked import codetape
from tests.integration.test_check import OTHER, checked, hostile, hostile_session, live
from tests.support import ADD_TESTS, block, generate, plan


def in_a_terminal(*words, columns=80, lines=400, **variables):
    """Run a command in a terminal of a size; return all it showed."""
    main, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "codetape", *words], stdin=other, stdout=other, stderr=subprocess.PIPE, env=environment
    )
    os.close(other)
    shown = b""
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(main)
    said = process.communicate()[1].decode()
    return shown.decode().replace("\r\n", "\n"), said


@pytest.fixture
def database():
    assert codetape("import", "demo", str(REPLAY)).returncode == 0
    return Path(".codetape/tape.db")


REPLAY = Path(__file__).parents[2] / "replays" / "tills-of-three-makes.tape.jsonl"


def bare(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_list_fits_80_columns_and_says_what_was_asked(database):
    shown, _ = in_a_terminal("list")
    assert max(len(bare(line)) for line in shown.splitlines()) <= 80
    assert "bc0ffe37  failed" in bare(shown)
    assert "succeeded anchored" in bare(shown)
    assert "  tills-of-three-makes: Our tills write one export for all shops." in bare(shown)
    wide, _ = in_a_terminal("list", columns=160)
    assert "what was asked" in wide
    assert all(len(bare(line)) <= 160 for line in wide.splitlines())
    value = json.loads(codetape("list", "--json").stdout)
    assert value["sessions"][0]["asked"].startswith("Our tills write")
    assert value["sessions"][1]["confidence"] == "anchored"


def test_colours_mean_pass_and_fail_and_no_color_keeps_them_out(database):
    shown, _ = in_a_terminal("list")
    assert "\x1b[31mfailed" in shown
    assert "\x1b[32msucceeded" in shown
    assert "\x1b[31mfailed:" in in_a_terminal("why", "last")[0]
    for words in (("list",), ("why", "last")):
        assert "\x1b" not in in_a_terminal(*words, NO_COLOR="1")[0]
        assert "\x1b" not in codetape(*words).stdout


def test_what_is_longer_than_the_screen_goes_through_the_pager(database):
    Path("pager.sh").write_text("#!/bin/sh\necho PAGED\ncat\n")
    Path("pager.sh").chmod(0o755)
    pager = str(Path("pager.sh").absolute())
    long, _ = in_a_terminal("show", "last", "--prompts", lines=24, PAGER=pager)
    assert "PAGED" in long
    short, _ = in_a_terminal("show", "last", "--code", lines=2000, PAGER=pager)
    assert "PAGED" not in short
    assert "PAGED" not in codetape("show", "last", "--prompts", env={"PAGER": pager}).stdout


def test_a_database_is_found_in_the_folders_above(database):
    inner = Path("a/b")
    inner.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(inner)
    try:
        assert "bc0ffe37" in codetape("list").stdout
        shown = codetape("show", "bc0ffe").stdout
        assert "--db" not in shown  # the next command finds it too
        Path(".codetape").mkdir()
        codetape("import", "demo", "--db", ".codetape/tape.db")
        assert "bc0ffe37" not in codetape("list").stdout  # its own comes first
    finally:
        os.chdir(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_database_above_is_not_obeyed(database):
    os.chown(database, 12345, 12345)
    Path("inner").mkdir()
    before = Path.cwd()
    os.chdir("inner")
    try:
        done = codetape("list")
        assert done.returncode == 2
        assert "There is no database" in done.stderr
    finally:
        os.chdir(before)


def test_a_link_above_is_not_obeyed(database):
    """Whoever made it chose what it leads to: another database, and a folder of samples beside it."""
    Path("inner").mkdir()
    database.rename("elsewhere.db")
    database.symlink_to(Path("elsewhere.db").absolute())
    before = Path.cwd()
    os.chdir("inner")
    try:
        assert codetape("list").returncode == 2
    finally:
        os.chdir(before)


def test_attempts_of_checks_are_left_out_and_counted():
    store = SqliteStore("tape.db")
    for number in range(3):
        options = {"task": f"t{number}", "oracle": ORACLE, "tags": ["runs"]}
        noisy_agent(store, number).generate(f"Add two numbers, chance 0{number + 4}0.", **options)
    checked(store, live(store, 1, control=True))
    store.close()
    listed = codetape("list", "--db", "tape.db")
    assert "check:" not in listed.stdout
    assert "6 attempts of checks are left out (--with-checks)." in listed.stdout
    assert codetape("list", "--db", "tape.db", "--with-checks").stdout.count("[check:") == 6
    by = ("spend", "--db", "tape.db", "--json", "--tag", "runs")
    runs, whole = (json.loads(codetape(*by, *more).stdout)["total"]["calls"] for more in ((), ("--with-checks",)))
    assert 0 < runs < whole


def test_a_pipe_gets_a_line_for_each_state(bubblewrap):
    done = codetape("demo")
    for state in ("planning", "coding", "writing_tests", "executing", "diagnosing"):
        assert f"  {state}: waiting for" in done.stderr


def test_the_live_line_is_one_line_however_narrow_and_survives_a_resize():
    """It is drawn over itself: a line that wrapped would leave its first half standing."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    code = (
        "import time; from rich.text import Text; from codetape.cli.progress import LiveLine\n"
        "with LiveLine(lambda: Text('waiting for the model to write the code ' * 3, no_wrap=True, overflow='ellipsis'), quiet=False) as line:\n"
        "    for n in range(4):\n        time.sleep(0.3); line.line('event %d' % n)\n"
    )
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "CI"):
        environment.pop(name, None)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=other, stdout=other, stderr=other, env=environment)
    os.close(other)
    shown = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:
            break
        if not data:
            break
        if b"event 1" in data:
            fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
        shown += data
    os.close(main)
    assert process.wait() == 0
    lines = [bare(line) for line in shown.decode().replace("\r", "\n").splitlines()]
    lines = [re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", line) for line in lines]
    waiting = [line for line in lines if line.startswith("waiting")]
    assert waiting
    assert max(map(len, waiting)) <= 40
    assert min(map(len, waiting)) <= 20
    assert [line for line in lines if line.startswith("event")] == [f"event {n}" for n in range(4)]


def test_a_shell_can_complete():
    words = {"_CODETAPE_COMPLETE": "bash_complete", "COMP_WORDS": "codetape vi", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "codetape"], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert "plain,view" in done.stdout


def test_spend_says_what_recorded_calls_would_cost():
    codetape("demo", "--sandbox", "tape:demo")
    plain = codetape("spend")
    assert "$0.00" not in plain.stdout.split("replayed, at $0")[0]
    assert "--price-as MODEL says what they would cost" in plain.stdout
    priced = json.loads(codetape("spend", "--price-as", "openai:gpt-5-mini", "--json").stdout)
    assert float(priced["total"]["cost"]) > 0


def test_whatif_says_a_common_difference_once():
    store = SqliteStore("tape.db")
    noisy_corpus(store, 4)
    store.close()
    Path("mine").mkdir()
    for name, text in OTHER.items():
        path = Path("mine") / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    said = codetape("whatif", "--prompts", "mine", "--db", "tape.db").stdout
    assert said.count("+Think twice.") == 1
    assert "the first difference of 4 sessions" in said


def test_a_run_is_shown_alone_and_one_that_there_is_not_is_refused(database):
    shown = codetape("show", "last", "--iteration", "3").stdout
    assert "run 3: 11 passed, 1 failed" in shown
    assert "run 2" not in shown
    assert "iterations ran" not in shown  # the verdict is of the whole
    refused = codetape("show", "last", "--iteration", "9")
    assert (refused.returncode, refused.stderr) == (2, "codetape: The session has 3 runs of the tests, and no run 9.\n")


def test_a_diagnosis_says_which_run_it_is_of(database):
    said = codetape("why", "last").stdout
    assert "diagnosis   of the failures of run 2; those of run 3 were not diagnosed" in said
    assert "parse_amount does not know the form '12/50'" in said


def test_the_largest_call_can_be_found(database):
    rows = json.loads(codetape("spend", "--by", "call", "--json").stdout)["rows"]
    assert rows[0]["call"] == "bc0ffe379efb2f9f:34"
    assert rows[0]["tokens"] == 6097
    assert codetape("spend", "--by", "purpose,purpose").returncode == 2


def test_a_difference_in_one_line_each(database):
    said = codetape("diff", "demo", str(REPLAY), "--stat").stdout
    assert "code, at the end  +69 -56" in said
    assert len(said.splitlines()) < 40


# ---- notebooks, and the API's own words


def test_values_show_themselves_in_a_notebook():
    answers = {
        "plan": [plan("def add(a, b)")],
        "code": [block("def add(a, b):\n    return a + b")],
        "tests": [ADD_TESTS],
    }
    store = MemoryStore()
    result, _ = generate(answers, "Add <b>.", store=store, sandbox=FakeSandbox())
    shown = result._repr_html_()
    assert "succeeded, self_tested" in shown
    assert "Add &lt;b&gt;." in shown
    assert package.open_tape(result.session, store=store)._repr_html_() == shown
    report = hostile()._repr_html_()
    assert "no outcome" in report
    evil = hostile_session()
    from codetape.eventlog.fold import fold
    from codetape.runtime.result import GenerateResult

    card = GenerateResult.of(fold(evil.events, evil.texts), evil)._repr_html_()
    for text in (report, card):
        assert "<script" not in text
        assert "\x1b" not in text
    assert "test_solution.py::test_sum" in card


@pytest.mark.parametrize("name", ["gpt-5-mini", "openai:", "", "nobody:x"])
def test_a_models_name_that_nobody_can_make_is_refused_at_once(name):
    with pytest.raises(UsageError):
        package.AutoCoderAgent(model=name)


def test_a_python_may_be_given_as_numbers():
    answers = {
        "plan": [plan("def add(a, b)")],
        "code": [block("def add(a, b):\n    return a + b")],
        "tests": [ADD_TESTS],
    }
    result, _ = generate(answers, sandbox=FakeSandbox(), python_version=(3, 11))
    assert result.config.python_version == "3.11"
    with pytest.raises(UsageError, match="is no Python"):
        generate(answers, sandbox=FakeSandbox(), python_version=(2, 7))


LOADED = """
import contextlib, io, sys
from codetape.cli import COMMANDS, main
for command in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([command, "--help"])
    heavy = sorted({"pydantic", "openai", "docker", "sqlite_utils", "rich", "genai_prices", "minijinja", "starlette"} & {*sys.modules})
    own = [name for name in sys.modules if name.startswith("codetape")]
    if heavy or len(own) > 60:
        print(command, heavy, len(own))
"""


def test_the_help_of_a_command_loads_the_command_alone():
    """All of them in one process, so that each may add its own module and nothing of what it would do."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout == ""


AT_WORK = """
import contextlib, io, sys
from codetape.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main(sys.argv[1:])
assert out.getvalue().strip(), "it printed nothing"
print(*sorted(sys.modules))
"""
NEVER = {"openai", "anthropic", "docker", "genai_prices", "sqlite_utils", "rich", "starlette"}
DERIVING = {"codetape.decider", "doctest", "minijinja"}
WORK = {  # each with what it must not load beside what makes calls, and how many modules of ours it may
    "list": ({"pydantic", "asyncio", "zstandard", *DERIVING}, 38),
    "spend": ({"pydantic", "zstandard", *DERIVING}, 45),
    "spend last": ({"pydantic", "zstandard", *DERIVING}, 45),
    "config": ({"pydantic", "asyncio", "sqlite3", *DERIVING}, 20),
    "show last": (DERIVING, 96),
    "why last": (DERIVING, 96),
    "diff last last": ({"codetape.decider", "doctest"}, 100),
    "import demo": ({"codetape.decider", "doctest"}, 96),
    "scan": ({"codetape.evals.check"}, 180),
    "export last -o out.tape.jsonl": ({"codetape.evals.check"}, 180),
    "audit last": (set(), 190),
    "verify last": (set(), 180),
    "replay last": (set(), 180),
    "whatif --set max_iterations=3": (set(), 215),
    "backtest rules": (set(), 215),
    "prompts list": ({"asyncio", "sqlite3"}, 70),
}


@pytest.mark.parametrize("line", WORK)
def test_a_command_loads_what_it_needs(database, line):
    """Pydantic where events are decoded, and not where the database answers; never what makes calls or databases."""
    more, most = WORK[line]
    words = line.split() if line in ("config", "prompts list") else [*line.split(), "--db", str(database)]
    done = subprocess.run([sys.executable, "-c", AT_WORK, *words], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()}
    assert not (NEVER | more) & loaded
    own = [name for name in loaded if name.startswith(("codetape.", "codetape_adapters."))]
    assert len(own) <= most, sorted(own)
