"""Every command of the README, typed into bash in its order, against a server that answers what a model would."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_docs import ROOT, SLUG
from tests.servers import purpose_of, serving
from tests.support import block, plan

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [line.strip() for line in re.findall(r"^    ((?:codetape|uv run|pytest --codetape) .+)$", TEXT, re.M)]
TOTAL = """import argparse
import csv
from pathlib import Path


def total(path):
    with open(path) as file:
        return sum(float(row["amount"]) for row in csv.DictReader(file))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", required=True)
    Path("/var/outputs/total").write_text(str(total(parser.parse_args().orders)))


if __name__ == "__main__":
    main()"""
REPLIES = {
    "Sum the column": ("def total(path: str) -> float", TOTAL, "from solution import total\n\n\ndef test_total():\n    assert total('/var/inputs/orders.csv') == 3.0"),
    "Write slug": ("def slug(text: str) -> str", SLUG, "from solution import slug\n\n\ndef test_slug():\n    assert slug('A b') == 'a-b'"),
    "": ("def add(a, b)", "def add(a, b):\n    return a + b", "from solution import add\n\n\ndef test_add():\n    assert add(1, 2) == 3"),
}  # fmt: skip
ENDS = {"codetape check": (0, 103), "codetape view": (0,), "pytest": (0,)}
"""What a command may end with, where that is not 0 alone: a check of two tasks is inconclusive."""


def answer(handler, asked):
    text = asked["messages"][1]["content"]
    signature, code, tests = next(reply for begin, reply in REPLIES.items() if begin in text)
    content = {
        "plan": plan(signature, *(["def main() -> None"] if "main" in code else [])),
        "code": block(code),
        "tests": block(tests),
    }[purpose_of(asked)]
    handler.say(content)


@pytest.fixture
def shell(bubblewrap):
    """A folder as a reader has it, and a bash in which `codetape`, `uv run` and `pytest` are these."""
    Path("orders.csv").write_text("amount\n1\n2\n")
    Path("other.csv").write_text("amount\n5\n")
    Path("tasks.jsonl").write_text(
        "".join(f'{{"id": "t{n}", "prompt": "Write add(a, b), number {n}. add(1, 2) -> 3"}}\n' for n in (1, 2))
    )
    shutil.copytree(ROOT / "replays", "replays")
    Path("config/codetape").mkdir(parents=True)  # this server bills nobody: its price is the user's word
    Path("config/codetape/config.toml").write_text('[prices."*"]\ninput = 0.25\noutput = 2.0\n')
    functions = (
        f'codetape() {{ {sys.executable} -m codetape "$@"; }}\n'
        f'uv() {{ shift; {sys.executable} "$@"; }}\n'
        f'pytest() {{ {sys.executable} -m pytest -n 0 -p no:cacheprovider "$@"; }}\n'
        "codetape prompts export mine >/dev/null && echo 'Think twice.' >> mine/code.md\n"
    )
    Path("functions.sh").write_text(functions)
    subprocess.run(["bash", "-c", ". ./functions.sh"], check=True)
    Path("functions.sh").write_text(functions.rpartition("codetape prompts")[0])


def typed(line, url):
    """Type a line; return its exit code and all it said. What serves until it is stopped is stopped."""
    env = {
        **os.environ,
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "none",
        "PS1": "",
        "XDG_CONFIG_HOME": str(Path("config").absolute()),
    }
    words = ["bash", "--norc", "-c", f". ./functions.sh\n{line}\n"]
    with Path("said.txt").open("w+") as said:
        process = subprocess.Popen(
            words, stdout=said, stderr=said, stdin=subprocess.DEVNULL, env=env, start_new_session=True
        )
        if line.startswith("codetape view"):
            while "Ctrl-C ends it" not in Path("said.txt").read_text() and process.poll() is None:
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGINT)
        code = process.wait(timeout=180)
    return code, Path("said.txt").read_text()


def test_every_command_of_the_readme_works_as_it_stands(shell):
    assert len(COMMANDS) > 15
    broken = []
    with serving(answer) as (url, _):
        for line in COMMANDS:
            if "NAME" in line or '"..."' in line:
                continue  # a place for the reader's own words
            code, said = typed(line, url)
            expected = next((ends for begin, ends in ENDS.items() if line.startswith(begin)), (0,))
            if code not in expected or "Traceback" in said:
                broken.append((line, code, said[-1600:]))
    assert broken == []
    assert Path("report.html").read_text().startswith("<!doctype html>")
