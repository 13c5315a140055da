"""How fast whole processes are: `python -m tests.bench.speed [ROW...]` prints a table for docs/benchmarks.md.

CPU of processes over that of `python -c pass` beside it, or wall time over what the model alone would take. Rows:
runs, demo, first, help, reading, long, large, batch, view. Nothing here is asserted.
"""

import asyncio
import json
import os
import resource
import shutil
import statistics
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


def runs():
    """One run of the tests in a sandbox, beyond the tests; a confirming evaluation; a script."""
    from codetape.domain.job import OTHER, BuildSpec, Job
    from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox

    box = BubblewrapSandbox()
    spec = BuildSpec(python_version=box.facts().python)
    asyncio.run(box.build(spec))
    code = "def f():\n    return 1\n"
    tests = {
        "solution.py": code,
        "test_solution.py": "from solution import f\n\n\ndef test_f():\n    assert f() == 1\n",
    }
    claims = "import solution\n\n\ndef t0(ask, got):\n    with ask(0):\n        got(solution.f())\n"
    jobs = {
        "a run of one test": Job(purpose="run", spec=spec, files=tests, targets=("test_solution.py",)),
        "the same for the oracle, in a fresh sandbox": Job(
            purpose="oracle", spec=spec, files=tests, targets=("test_solution.py",)
        ),
        "an evaluation of one claim, two processes": Job(
            purpose="evaluate",
            spec=spec,
            files={"solution.py": code, "claims_0.py": claims},
            targets=("claims_0.py",),
            conditions=OTHER,
        ),
        "a script": Job(purpose="script", spec=spec, files={"solution.py": "pass\n"}),
    }

    async def timed(job):
        begun = time.perf_counter()
        await box.execute(job)
        return (time.perf_counter() - begun) * 1000

    async def rounds():
        found = {name: [] for name in jobs}
        for job in jobs.values():
            await box.execute(job)
        for _ in range(15):
            for name, job in jobs.items():
                found[name].append(await timed(job))
        return {name: statistics.median(times) for name, times in found.items()}

    aims = {"a run of one test": "at most 60 ms"}
    return [(name, aims.get(name, ""), f"{spent:.0f} ms") for name, spent in asyncio.run(rounds()).items()]


def demo():
    """The demo's session, executed: four runs of its tests, the run that confirms, an evaluation."""
    from codetape.eventlog.events import TestsFinished
    from codetape_adapters.stores.sqlite.store import SqliteStore

    spent, walls, count = [], [], 0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "tape.db"
            walls.append(codetape("demo", "--sandbox", "bubblewrap", "--db", path)[0])
            store = SqliteStore(path)
            events = asyncio.run(store.read(store.find("last"))).events
            store.close()
        executions = [event.payload.duration_ms for event in events if isinstance(event.payload, TestsFinished)]
        count = len(executions)
        spent.append(sum(executions))
    told = f"{statistics.median(spent) / 1000:.2f} s; the whole process {statistics.median(walls):.2f} s"
    return [(f"sandbox time of the demo's session, {count} executions", "at most 0.8 s", told)]


def first():
    """Seconds until `codetape run` makes its first call."""
    found = []
    for _ in range(ROUNDS):
        called = []
        with (
            serving(lambda handler, _, called=called: (called.append(time.perf_counter()), handler.say("x"))) as (
                url,
                _,
            ),
            tempfile.TemporaryDirectory() as name,
        ):
            words = ("run", "Add.", "--model", "openai:x", "--base-url", url, "--db", f"{name}/tape.db")
            begun = time.perf_counter()
            started = subprocess.Popen(
                [sys.executable, "-m", "codetape", *words],
                env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while not called:
                time.sleep(0.002)
            found.append(called[0] - begun)
            started.kill()
            started.wait()
    return [("`codetape run` until its first call", "at most 0.9 s", f"{statistics.median(found):.2f} s")]


def cpu_of(*words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:  # of no project: its settings file would be read for every help
        subprocess.run(words, check=False, capture_output=True, env=environment(), cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def processes(lines, aim):
    """CPU of commands over that of `python -c pass`, in turn."""
    found = {line: [] for line in ("", *lines)}
    for _ in range(ROUNDS):
        for line in found:
            words = ["-m", "codetape", *line.split()] if line else ["-c", "pass"]
            found[line].append(cpu_of(sys.executable, *words))
    bare = statistics.median(found[""])
    return [
        (
            f"`codetape {line}`",
            aim,
            f"{statistics.median(times):.0f} ms CPU, {statistics.median(times) / bare:.1f} times `pass`",
        )
        for line, times in found.items()
        if line
    ]


def helps():
    from codetape.cli import COMMANDS

    rows = processes(["--help", *(f"{name} --help" for name in COMMANDS)], "2; a command's 6 times")
    slowest = max(rows[1:], key=lambda row: float(row[2].partition(",")[0].split()[0]))
    return [rows[0], (f"slowest: {slowest[0]}", slowest[1], slowest[2])]


def reading():
    with tempfile.TemporaryDirectory() as name:
        path = f"{name}/tape.db"
        codetape("demo", "--db", path)
        commands = ("list", "show last", "spend", "spend last", "why last", "audit last", "verify last", "replay last")
        return processes([f"{command} --db {path}" for command in commands], "at most 120 ms")


_LONG = r"""
import asyncio, json, os, sys, tempfile, time
from pathlib import Path
from codetape import AutoCoderAgent
from codetape.testing import FakeClock, FakeSandbox, ScriptedModel
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.support import ADD_TESTS, block, plan

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

with tempfile.TemporaryDirectory() as folder:
    store, done, begun = SqliteStore(Path(folder) / "tape.db"), 0, 0.0
    for upto in json.loads(sys.argv[1]):
        begun = time.process_time()
        count = upto - done
        for number in range(done, upto):
            model = ScriptedModel({"plan": [plan()], "code": [block(f"def add(a, b):\n    return a + b  # {number}")], "tests": [ADD_TESTS]})
            agent = AutoCoderAgent(model=model, sandbox=FakeSandbox(), store=store, clock=FakeClock())
            asyncio.run(agent.agenerate(f"Add, {number}."))
        done = upto
        print(json.dumps([upto, resident(), len(os.listdir("/proc/self/fd")), (time.process_time() - begun) / count * 1000]), flush=True)
    store.close()
"""


def long(points=(200, 500, 1000, 2000)):
    """A process that goes on: memory, descriptors and time for a session, after so many."""
    done = subprocess.run(
        [sys.executable, "-c", _LONG, json.dumps(points)], env=environment(), capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        (
            f"one process, after {upto:,} sessions",
            "level",
            f"{mb:.0f} MB, {files} descriptors, {ms:.1f} ms CPU a session",
        )
        for upto, mb, files, ms in rows
    ]


def large(sessions=10_000):
    """Commands over many sessions of 51 events each: one tape, copied under names of its own."""
    from tests.bench.corpus import copied, measured, other_pack

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, events = copied(folder, sessions)
        rows = []
        for words, aim in (
            (("verify", "--all", "--json"), "60 s"),
            (("replay", "--status", "succeeded", "--json"), "60 s"),
            (("whatif", "--prompts", str(other_pack(folder / "pack"))), "30 s"),
            (("spend",), "1 s"),
            (("list",), "0.2 s"),
            (("show", "last"), "0.15 s"),
        ):
            wall, cpu, peak = measured(*words, "--db", str(path))
            told = f"{wall:.2f} s ({cpu:.2f} s CPU), {peak} MB"
            rows.append((f"{' '.join(words[:2])}, {sessions:,} sessions, {events:,} events", aim, told))
    return rows


def view(sessions=10_000):
    """Pages of a large database in a browser, from the request to the first paint."""
    from playwright.sync_api import sync_playwright

    from tests.bench.corpus import filled

    rows = []
    with tempfile.TemporaryDirectory() as name:
        path, _ = filled(Path(name), sessions)
        words = [sys.executable, "-m", "codetape", "view", "--no-open", "--json", "--db", str(path)]
        begun = time.perf_counter()
        server = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True)
        base = json.loads(server.stdout.readline())["url"].rpartition("/")[0]
        rows.append(("`codetape view` until it serves", "", f"{(time.perf_counter() - begun) * 1000:.0f} ms"))
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for what, path_of, aim in (
                (f"list of {sessions:,} sessions", "sessions", "under 1 s"),
                ("the same, grouped by task", "sessions?group=task", "under 1 s"),
                ("page of a session", f"session/s{sessions // 2}", "under 300 ms"),
                (f"spend of the newest 1,000 of {sessions:,}", "spend", ""),
            ):
                found = []
                for _ in range(ROUNDS):
                    page = browser.new_page(viewport={"width": 1280, "height": 900})
                    page.goto(f"{base}/{path_of}")
                    page.wait_for_selector(".live.on")
                    found.append(page.evaluate(paint))
                    page.close()
                rows.append((f"first paint: {what}", aim, f"{statistics.median(found):.0f} ms"))
            browser.close()
        server.kill()
        server.wait()
    return rows


def main():
    rows = {
        "runs": runs,
        "demo": demo,
        "first": first,
        "help": helps,
        "reading": reading,
        "long": long,
        "large": large,
        "batch": batch,
        "view": view,
    }
    asked = sys.argv[1:] or list(rows)
    print("| what | aim | measured |\n|---|---|---|")
    for name in asked:
        for row in rows[name]():
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
