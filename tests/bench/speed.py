"""How fast whole processes are: `python -m tests.bench.speed [ROW...]` prints a table for docs/benchmarks.md.

CPU of processes over that of `python -c pass` beside it, or wall time over what the model alone would take. Rows:
batch, session, runs, help, reading, first, long. Nothing here is asserted.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.servers import purpose_of, serving
from tests.support import diagnosis, failure, plan

TASKS, AT_ONCE, SECONDS = 64, 32, 1.0
ROUNDS = 7


def block(code):
    return f"```python\n{code}```"


WRONG = block("def twice(n):\n    return n + 2\n\n\ndef half(n):\n    return n // 2\n")
RIGHT = block("def twice(n):\n    return n * 2\n\n\ndef half(n):\n    return n // 2\n")
TESTS = block(
    "from solution import half, twice\n\n\n"
    "def test_twice():\n    assert twice(4) == 8\n\n\n"
    "def test_twice_of_none():\n    assert twice(0) == 0\n\n\n"
    "def test_half():\n    assert half(9) == 4\n"
)


class Programmer:
    """Answers each purpose after so many seconds: a first program that is wrong, then the right one."""

    def __init__(self, seconds):
        self.seconds, self.asked, self.lock = seconds, {}, threading.Lock()

    def __call__(self, handler, asked):
        time.sleep(self.seconds)
        purpose = purpose_of(asked)
        with self.lock:
            self.asked[purpose] = self.asked.get(purpose, 0) + 1
        text = {
            "plan": plan("def twice(n)", "def half(n)"),
            "tests": TESTS,
            "code": RIGHT if "return n + 2" in json.dumps(asked["messages"]) else WRONG,
            "diagnose": diagnosis(
                failure("test_twice", fixes=[("return n + 2", "return n * 2")]), failure("test_twice_of_none")
            ),
            "verify_code": '{"applied_fixes": ["F1"], "missing_fixes": [], "explanation": ""}',
        }.get(purpose)
        if text is None:
            words = [{"test": f"T{n}", "verdict": "silent", "value": "", "words": ""} for n in (1, 2)]
            text = json.dumps({"opinions": words})
        handler.say(text)


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "OPENAI_API_KEY": "none", **more}


_RUN = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, file=sys.stderr)
sys.stdout.write(done.stdout[-4000:]); sys.stderr.write(done.stderr[-3000:])
"""


def process(*words, **variables):
    """Run a process; return wall seconds, CPU seconds with all its children, peak MB of one, and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words], env=environment(**variables), capture_output=True, text=True, check=True
    )
    wall = time.perf_counter() - begun
    code, cpu, peak = done.stderr.splitlines()[0].split()
    if int(code):
        raise RuntimeError(done.stderr + done.stdout)
    return wall, float(cpu), int(peak), done.stdout


def codetape(*words, **variables):
    return process(sys.executable, "-m", "codetape", *map(str, words), **variables)


def batch():
    """64 tasks, 32 at once, a server that takes a second for an answer, real sandboxes."""
    programmer = Programmer(SECONDS)
    with serving(programmer) as (url, asked), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = folder / "tasks.jsonl"
        lines = [json.dumps({"id": f"t{n}", "prompt": f"Write twice and half, number {n}."}) for n in range(TASKS)]
        tasks.write_text("\n".join(lines) + "\n")
        words = ("run", "--tasks", tasks, "--model", "openai:scripted", "--base-url", url, "--sandbox", "bubblewrap")
        wall, cpu, peak, out = codetape(*words, "--n-concurrent", AT_ONCE, "--db", folder / "tape.db", "--json")
        calls = len(asked)
    alone = SECONDS * calls / AT_ONCE
    return [
        (
            f"{TASKS} tasks, {AT_ONCE} at once, {calls} calls of {SECONDS:.0f} s, over the model alone",
            "at most 1.6 times, 120 MB",
            f"{wall / alone:.2f} times ({wall:.1f} s; {cpu:.1f} s CPU), {peak} MB",
        )
    ]


def main():
    rows = {"batch": batch}
    asked = sys.argv[1:] or list(rows)
    print("| what | aim | measured |\n|---|---|---|")
    for name in asked:
        for row in rows[name]():
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
