"""Measure what docs/benchmarks.md reports: `python -m tests.bench.measure` prints the table.

Ratios within one run and CPU time, medians of several rounds: machines are shared and noisy. Nothing here is asserted.
"""

import asyncio
import os
import re
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7


def median(function, rounds=ROUNDS):
    return statistics.median(function() for _ in range(rounds))


def cpu(function):
    begun = time.process_time()
    function()
    return time.process_time() - begun


def child_cpu(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def help_ratio():
    bare = median(lambda: child_cpu(sys.executable, "-c", "pass"))
    ours = median(lambda: child_cpu(sys.executable, "-m", "codetape", "--help"))
    return (
        "`codetape --help`, CPU over `python -c pass`",
        "at most 2",
        f"{ours / bare:.1f} times ({ours * 1000:.0f} ms)",
    )


def session(store, number):
    from codetape import AutoCoderAgent
    from codetape.testing import FakeSandbox, ScriptedModel
    from tests.support import ADD, ADD_TESTS, plan

    model = ScriptedModel({"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]})
    agent = AutoCoderAgent(model=model, sandbox=FakeSandbox(), store=store)
    return agent.agenerate(f"Add {number}.")


def engine_per_event():
    from codetape.testing import MemoryStore

    store = MemoryStore()
    asyncio.run(session(store, 0))

    def one():
        store = MemoryStore()
        spent = cpu(lambda: asyncio.run(session(store, 1)))
        return spent * 1000 / sum(map(len, store.events.values()))

    return "engine, CPU per event outside model, sandbox and disk", "at most 1 ms", f"{median(one):.2f} ms"


def engine_per_session():
    """The demo's session, driven on its recorded replies and outcomes into memory."""
    from codetape import AutoCoderAgent
    from codetape.cli.commands.demo import _task_arguments
    from codetape.playback import tape_file
    from codetape.rules import special_cases
    from codetape.runtime import plugins
    from codetape.testing import MemoryStore

    recorded = tape_file.load("demo")
    task, config = recorded.run.the_task, recorded.run.the_config

    def one():
        special_cases._cases.cache_clear()  # the same scripts come again here
        store = MemoryStore()
        model, sandbox = plugins.model("tape:demo"), plugins.sandbox("tape:demo")
        agent = AutoCoderAgent(model=model, sandbox=sandbox, store=store, max_iterations=config.max_iterations)
        spent = cpu(lambda: asyncio.run(agent.agenerate(task.prompt, session="s", **_task_arguments(task))))
        events.append(len(store.events["s"]))
        return spent * 1000

    events = []
    one()
    spent = median(one)
    return f"engine, CPU of the demo's session ({events[-1]} events) beside SQLite", "at most 12 ms", f"{spent:.1f} ms"


def at_once():
    from codetape.testing import MemoryStore

    def in_turn():
        for number in range(50):
            asyncio.run(session(MemoryStore(), number))

    async def together():
        await asyncio.gather(*(session(MemoryStore(), n) for n in range(50)))

    turn, once = median(lambda: cpu(in_turn), 3), median(lambda: cpu(lambda: asyncio.run(together())), 3)
    return "50 sessions at once, CPU over 50 in turn", "at most 1.5", f"{once / turn:.2f} times"


def texts_of(count):
    """Return texts of 3.8 KB, each another one: slices of the standard library's sources, as code and tests are."""
    root = Path(os.__file__).parent
    sources = "".join(p.read_text("utf-8", "replace") for p in sorted(root.glob("*.py"))[:150])
    return [sources[n * 3800 : (n + 1) * 3800] for n in range(count)]


def reports_of(count):
    """Return reports of 3.8 KB as they are stored, each another one: names and messages are lines of the same sources."""
    from codetape.domain.canonical import canonical
    from codetape.domain.report import Frame, Report, TestResult

    root = Path(os.__file__).parent
    sources = "".join(p.read_text("utf-8", "replace") for p in sorted(root.glob("*.py"))[:150])
    lines = [line.strip() for line in sources.splitlines() if 20 < len(line.strip()) < 80]
    names = list(dict.fromkeys(re.findall(r"def ([a-z]\w+)\(", sources)))
    found = []
    for number in range(count):
        tests = []
        while (
            len(text := canonical(Report(exit="tests_failed", whole=True, tests=tests).model_dump(mode="json"))) < 3700
        ):
            at = number * 40 + len(tests) * 2
            name = f"test_solution.py::test_{names[at % len(names)]}"
            failed = len(tests) % 4 == 0
            told = "\n".join(lines[at : at + 8]) if failed else ""
            tests.append(
                TestResult(
                    id=name,
                    outcome="failed" if failed else "passed",
                    exception="AssertionError" if failed else "",
                    message=lines[at] if failed else "",
                    traceback=told,
                    frames=(Frame(file="test_solution.py", line=at % 97),) if failed else (),
                    duration_ms=at % 31,
                )
            )
        found.append(text[:3800])
    return found


def appends():
    return [
        row
        for what, bodies in (("reports", reports_of(1000)), ("source", texts_of(1000)))
        for row in _appends(what, bodies)
    ]


def _appends(what, bodies):
    from codetape.eventlog.envelope import encode
    from codetape.eventlog.events import AnchorsExtracted, Blobs
    from codetape_adapters.stores.sqlite.store import SqliteStore

    count = len(bodies)

    def bare(db):
        for seq, body in enumerate(bodies):
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO events VALUES ('s', ?, ?)", (seq, body))
            db.execute("COMMIT")

    async def ours(store, lease):
        head = "0" * 64
        for seq, body in enumerate(bodies):
            texts = Blobs()
            event = encode(
                "s", seq, "2026-01-01T00:00:00.000Z", AnchorsExtracted(count=1, anchors=texts.put(body)), head
            )
            await store.append(event, texts, lease)
            head = event.hash

    def pair():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            db = sqlite3.connect(folder / "bare.db", isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("CREATE TABLE events (session TEXT, seq INTEGER, payload TEXT, UNIQUE (session, seq))")
            plain = cpu(lambda: bare(db))
            db.close()
            store = SqliteStore(folder / "tape.db")
            lease = asyncio.run(store.acquire("s"))
            chained = cpu(lambda: asyncio.run(ours(store, lease)))
            lease.release()
            load = cpu(lambda: asyncio.run(store.read("s")))
            store.close()
            size = (folder / "tape.db").stat().st_size
            return chained / plain, size / count, load * 1000, chained * 1000 / count

    rows = [pair() for _ in range(9)]
    ratio, size, load, each = (statistics.median(column) for column in zip(*rows, strict=True))
    return [
        (
            f"append of {what} with hash chain and blobs, CPU over a bare sqlite3 insert",
            "at most 3",
            f"{ratio:.1f} times ({each:.2f} ms)",
        ),
        (f"bytes per event of {sum(map(len, bodies)) // count:,} bytes of {what}", "at most 1,700", f"{size:,.0f}"),
        (f"1,000 events of {what} read, every hash verified", "at most 60 ms", f"{load:.0f} ms"),
    ]


def replays():
    from codetape.playback import tape_file
    from codetape.playback.strict_replay import replay

    stream = tape_file.load("demo").stream
    replay(stream)
    spent = median(lambda: cpu(lambda: replay(stream))) * 1000
    root = Path(__file__).parents[2] / "replays"
    tapes = [str(p) for p in sorted(root.glob("*.tape.jsonl"))]
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "codetape", "replay", *tapes], check=True, capture_output=True)
    whole = time.perf_counter() - begun
    return [
        (f"strict replay of {len(stream.events)} events, CPU", "at most 12 ms", f"{spent:.1f} ms"),
        (f"`codetape replay` of all {len(tapes)} tapes, as one process", "under 2 s", f"{whole:.1f} s"),
    ]


def long_stream(iterations):
    """Return a session whose code fails again in every run, some ten events each."""
    from codetape import AutoCoderAgent
    from codetape.domain.report import Frame, Report, TestResult
    from codetape.testing import FakeClock, FakeSandbox, MemoryStore, ScriptedModel, passing_report
    from tests.support import ADD_TESTS, block, diagnosis, failure, plan

    count = [0]

    def execute(job):
        if job.purpose != "run":
            return passing_report(job)
        count[0] += 1
        letters = "".join(chr(65 + count[0] // 26**n % 26) for n in range(3))
        names = ("test_solution.py::test_sum", "test_solution.py::test_zero")
        wrong = TestResult(
            id=names[0], outcome="failed", exception=f"Error{letters}", frames=(Frame(file="solution.py", line=2),)
        )
        tests = (wrong, TestResult(id=names[1], outcome="passed"))
        return Report(exit="tests_failed", whole=True, exit_code=1, collected=names, tests=tests)

    def answer(request):
        return {
            "plan": plan(),
            "code": block(f"def add(a, b):\n    return a + b + {count[0]}"),
            "tests": ADD_TESTS,
            "diagnose": diagnosis(failure("test_sum", fixes=[("return", "return  ")])),
            "verify_code": '{"applied_fixes": ["F1"], "missing_fixes": [], "explanation": ""}',
        }[request.purpose]

    store = MemoryStore()
    agent = AutoCoderAgent(
        model=ScriptedModel(answer),
        sandbox=FakeSandbox(execute),
        store=store,
        clock=FakeClock(),
        max_iterations=iterations,
    )
    asyncio.run(agent.agenerate("Add.", session="s"))
    return asyncio.run(store.read("s"))


def growth():
    from codetape.playback.strict_replay import replay

    short, long = long_stream(10), long_stream(1000)
    each, far = [], []
    for _ in range(5):
        each.append(cpu(lambda: [replay(short) for _ in range(30)]) / 30 / len(short.events))
        far.append(cpu(lambda: replay(long)) / len(long.events))
    ratio = statistics.median(far) / statistics.median(each)
    what = f"strict replay, CPU per event of {len(long.events):,} over that of {len(short.events)}"
    return what, "at most 1.3", f"{ratio:.2f} times ({statistics.median(far) * 1000:.2f} ms)"


def sandbox():
    from codetape.domain.job import BuildSpec, Job
    from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox

    box = BubblewrapSandbox()
    spec = BuildSpec(python_version=box.facts().python)
    asyncio.run(box.build(spec))
    job = Job(purpose="script", spec=spec, files={"solution.py": "pass\n"})

    def timed(function):
        begun = time.perf_counter()
        function()
        return (time.perf_counter() - begun) * 1000

    def bare():
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    plain, inside, ready = [], [], []
    for _ in range(15):
        plain.append(timed(bare))
        inside.append(timed(lambda: asyncio.run(box.execute(job))))
        ready.append(timed(lambda: asyncio.run(box.build(spec))))
    added = statistics.median(inside) - statistics.median(plain)
    return [
        (
            "sandbox over a bare `python -c pass`",
            "at most 30 ms more",
            f"{added:.0f} ms more ({statistics.median(plain):.0f} ms bare)",
        ),
        ("cached environment ready", "under 50 ms", f"{statistics.median(ready):.1f} ms"),
        several(box, spec),
    ]


def several(box, spec):
    """Time as many runs of the tests at once as there are CPUs, over one run alone."""
    from codetape.domain.job import Job

    files = {
        "solution.py": "def f():\n    return 1\n",
        "test_solution.py": "from solution import f\n\n\ndef test_f():\n    assert f() == 1\n",
    }
    job, cpus = Job(purpose="run", spec=spec, files=files, targets=("test_solution.py",)), os.cpu_count() or 1

    async def at_once(count):
        begun = time.perf_counter()
        await asyncio.gather(*(box.execute(job) for _ in range(count)))
        return (time.perf_counter() - begun) * 1000

    async def both():
        await at_once(1)
        pairs = [(await at_once(1), await at_once(cpus)) for _ in range(15)]
        return statistics.median(one for one, _ in pairs), statistics.median(all_ for _, all_ in pairs)

    one, all_ = asyncio.run(both())
    return (
        f"{cpus} runs of the tests at once, over one",
        "at most 1.5 times",
        f"{all_ / one:.2f} times ({one:.0f} ms one)",
    )


def calls():
    """CPU of a call to a server on loopback, the server's own apart: it runs in a process of its own."""
    from codetape.domain.model_request import Message, ModelRequest
    from codetape_adapters.models.openai_compatible import OpenAIModel

    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        model = OpenAIModel("x", base_url=url)
        request = ModelRequest(
            model="openai:x", purpose="plan", messages=(Message(role="user", content="Plan."),), max_output_tokens=512
        )

        async def spent(count):
            await model.ask(request)
            begun = time.process_time()
            for _ in range(count):
                await model.ask(request)
            return (time.process_time() - begun) / count * 1000

        each = asyncio.run(spent(100))
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    return "a call of a server on loopback, CPU", "at most 5 ms", f"{each:.1f} ms"


_SERVER = """
import time
from tests.servers import serving
with serving(lambda handler, asked: handler.say("a word")) as (url, _):
    print(url.split(":")[2].split("/")[0], flush=True)
    time.sleep(600)
"""


def main():
    rows = [
        help_ratio(),
        engine_per_event(),
        engine_per_session(),
        at_once(),
        *appends(),
        *replays(),
        growth(),
        *sandbox(),
        calls(),
    ]
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}\n")
    print("| what | aim | measured |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
