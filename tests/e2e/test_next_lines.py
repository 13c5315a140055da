"""Every line that is printed as the next step is one that works, whatever a session ended with."""

import gzip
import re
from pathlib import Path

import pytest

from tests.e2e.test_cli import PROMPT, WELL
from tests.e2e.test_going_on import ENV, RIGHT, next_lines, typed
from tests.e2e.test_scripts import ANSWERS as SUMS
from tests.e2e.test_scripts import FILE
from tests.helpers.forked import codetape
from tests.servers import scripted, serving
from tests.support import ADD_TESTS, SUBTRACT, block, diagnosis, failure, opinions

WRONG = {**WELL, "code": [SUBTRACT], "tests": [block(ADD_TESTS)], "second_opinion": [opinions("3")], "diagnose": [diagnosis(failure("test_sum"))]}  # fmt: skip
ENDS = {
    "iterations": (WRONG, ("--max-iterations", "1"), 100),
    "stalled": (WRONG, (), 100),
    "unusable": ({**WELL, "plan": ["no plan"]}, (), 100),
    "example": (
        {**WELL, "tests": [block(RIGHT)], "second_opinion": [opinions("4")], "diagnose": [diagnosis()]},
        (),
        104,
    ),
    "tokens": (WELL, ("--max-tokens", "16600"), 101),
    "time": (WRONG, ("--max-time", "1s", "--max-iterations", "3"), None),
    "well": (WELL, (), 0),
    "folder": (WELL, ("-o", "out"), 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_lines_that_an_end_prints_work_as_they_stand(bubblewrap, end):
    answers, words, code = ENDS[end]
    prompt = PROMPT + ("\n\n>>> add(1, 2)\n4\n" if end == "example" else "")
    with serving(scripted(answers)) as (url, _):
        done = codetape("run", prompt, "--model", "openai:x", "--base-url", url, *words, "--db", "my tapes.db", env=ENV)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        shown = codetape("show", "last", "--db", "my tapes.db")
        lines = dict.fromkeys([*next_lines(done), *next_lines(shown)])
        assert lines or end == "folder"
        kept = {path.name: path.read_bytes() for path in Path().glob("my tapes.db*")}
        for line in lines:
            for path in Path().glob("my tapes.db*"):  # they are alternatives: each is tried where the others were not
                path.unlink()
            for name, data in kept.items():
                Path(name).write_bytes(data)
            again = typed(line)
            said = again.stdout + again.stderr
            assert again.returncode in (0, 100, 101, 104), (line, said)
            assert "Traceback" not in said


def test_the_line_after_a_script_with_outputs_runs_it(bubblewrap):
    Path(FILE).write_bytes(gzip.compress(b"1\n2\n3\n"))
    with serving(scripted(SUMS)) as (url, _):
        done = codetape("run", "Sum.", "--model", "openai:x", "--input", f"amounts=file:{FILE}", "--output", "sum.txt=file", "--base-url", url, env=ENV)  # fmt: skip
    assert done.returncode == 0, done.stdout
    (line,) = next_lines(done)
    assert "total 6.0" in typed(line).stdout


def test_what_the_demo_and_a_fork_say_next_works(bubblewrap):
    demo = codetape("demo", "--db", "my tapes.db")
    looks = re.findall(r"^  (?:next|look) +(codetape .+)$", demo.stdout, re.M)
    assert len(looks) == 2
    for line in looks:
        done = typed(line)
        assert done.returncode == 0, (line, done.stdout + done.stderr)
    with serving(scripted(WELL)) as (url, _):
        made = codetape("run", PROMPT, "--model", "openai:x", "--base-url", url, "--db", "my tapes.db", env=ENV)
        assert made.returncode == 0
        fork = codetape("fork", "last", "--at", "coding", "--base-url", url, "--db", "my tapes.db", env=ENV)
        assert fork.returncode == 0, fork.stdout + fork.stderr
        (line,) = next_lines(fork)
        assert typed(line).returncode == 0
