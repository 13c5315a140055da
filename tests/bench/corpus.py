"""What it takes to look at many sessions: python -m tests.bench.corpus [SESSIONS]. A table for docs/benchmarks.md."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from codetape import AutoCoderAgent
from codetape.domain.report import Report, TestResult
from codetape.eventlog.envelope import encode
from codetape.eventlog.stored_event import GENESIS
from codetape.eventlog.upcasters import decode_payload
from codetape.playback import tape_file
from codetape.playback.diff import compare
from codetape.ports import Stream
from codetape.rules.classify import expected_names
from codetape.runtime.prompt_pack_files import load_pack
from codetape.testing import FakeClock, FakeSandbox, MemoryStore, ScriptedModel
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.bench.measure import long_stream
from tests.support import ADD_TESTS, block, diagnosis, failure, plan


def session(store, name, number):
    """Put a session of about forty events into a store: three runs fail, the fourth passes."""
    runs = [0]

    def execute(job):
        names = expected_names({t: job.files[t] for t in job.targets})
        if job.purpose == "run":
            runs[0] += 1
        good = job.purpose == "run" and runs[0] > 3
        results = tuple(
            TestResult(
                id=n, outcome="passed" if good else "failed", exception="" if good else "TypeError", message=f"{number}"
            )
            for n in names
        )
        return Report(
            exit="ok" if good else "tests_failed",
            whole=True,
            exit_code=int(not good),
            collected=tuple(names),
            tests=results,
        )

    def answer(request):
        return {
            "plan": plan(),
            "code": block(f"def add(a, b):\n    return a + b + {number} + {runs[0]}"),
            "tests": ADD_TESTS,
            "diagnose": diagnosis(failure("test_sum", fixes=[("return", "return  ")])),
            "verify_code": '{"applied_fixes": ["F1"], "missing_fixes": [], "explanation": ""}',
        }[request.purpose]

    agent = AutoCoderAgent(model=ScriptedModel(answer), sandbox=FakeSandbox(execute), store=store, clock=FakeClock())
    asyncio.run(agent.agenerate(f"Add, number {number}.", session=name, task=f"t{number}"))


def filled(folder, sessions):
    """Make a database of so many sessions; return it, and how many events it holds."""
    memory, path = MemoryStore(), folder / f"{sessions}.db"
    store = SqliteStore(path)
    for number in range(sessions):
        session(memory, f"s{number}", number)
        store.put(asyncio.run(memory.read(f"s{number}")))
        memory.events.clear()
        memory.texts.clear()
    events = store._db().execute("SELECT count(*) FROM events").fetchone()[0]
    store.close()
    return path, events


def copied(folder, sessions):
    """Make a database of the demo's session of 51 events, so many times, each under a name of its own."""
    path, tape = folder / f"copies-{sessions}.db", tape_file.load("demo")
    store = SqliteStore(path)
    for number in range(sessions):
        name, head, events = f"s{number}", GENESIS, []
        for event in tape.stream.events:
            payload = event.stored_payload.replace(tape.session, name)
            decoded = decode_payload(event.kind, event.stored_version, payload, event.seq)
            events.append(encode(name, event.seq, event.at, decoded, head))
            head = events[-1].hash
        store.put(Stream(tuple(events), tape.stream.texts))
    store.close()
    return path, sessions * len(tape.stream.events)


_RUN = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, file=sys.stderr)
sys.stdout.write(done.stdout[-2000:]); sys.stderr.write(done.stderr[-500:] if done.returncode not in (0, 103) else "")
"""


def measured(*words):
    """Run a command in a process of its own; return wall seconds, CPU seconds and peak MB."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, sys.executable, "-m", "codetape", *words],
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - begun
    code, cpu, peak = done.stderr.splitlines()[0].split()
    if int(code) not in (0, 103):
        raise RuntimeError(done.stderr)
    return wall, float(cpu), int(peak)


def explained(path):
    """Return the CPU seconds of reading a session and saying why a call of it was made; the second time, when all is loaded."""
    from codetape.reporting.why import why

    store = SqliteStore(path, read_only=True)
    for session_ in ("s1", "s2"):
        begun = time.process_time()
        why(asyncio.run(store.read(session_)), 40)
        spent = time.process_time() - begun
    store.close()
    return spent


def other_pack(folder):
    """Write a prompt pack whose diagnosis differs; return its folder."""
    pack = load_pack()
    for file, text in {**pack, "diagnose.md": pack["diagnose.md"] + "\nThink twice.\n"}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    return folder


def guards():
    """Return what budgets and patterns add to a call, in ms of CPU: sessions with and without, in turn."""
    from codetape.domain.budget import Limit

    def once(**settings):
        with tempfile.TemporaryDirectory() as name:
            store = SqliteStore(Path(name) / "tape.db")
            model = ScriptedModel(
                {"plan": [plan()], "code": [block("def add(a, b):\n    return a + b")], "tests": [ADD_TESTS]}
            )
            agent = AutoCoderAgent(model=model, sandbox=FakeSandbox(), store=store, clock=FakeClock(), **settings)
            begun = time.process_time()
            for number in range(40):
                asyncio.run(agent.agenerate(f"Add, {number}."))
            spent = time.process_time() - begun
            store.close()
            return spent / len(model.requests) * 1000

    patterns = {"customer": "ACME-[0-9]{6}", "mail": "[a-z]+@example[.]com"}
    limits = (Limit("tag:x", tokens=10**9), Limit("database", tokens=10**9))
    added = [once(redact=patterns, max_tokens=10**9, limits=limits) - once() for _ in range(7)]
    return sorted(added)[3]


def diff_seconds():
    one, other = long_stream(100), long_stream(100)
    begun = time.process_time()
    compare(one, other)
    return len(one.events), time.process_time() - begun


def main():
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack = other_pack(folder / "pack")
        sizes, checked = {}, {}
        for sessions in (most // 10, most):
            path, events = filled(folder, sessions)
            wall, cpu, peak = measured("whatif", "--prompts", str(pack), "--db", str(path))
            sizes[sessions] = cpu, peak
            rows.append(
                (
                    f"whatif, {sessions:,} sessions, {events:,} events",
                    "30 s for 10,000, 500 MB",
                    f"{wall:.1f} s ({cpu:.1f} s CPU), {peak} MB",
                )
            )
            wall, cpu, peak = measured("check", "--prompts", str(pack), "--db", str(path), "--dry-run")
            rows.append(
                (f"check --dry-run, {sessions:,} sessions", "memory as for a tenth", f"{wall:.1f} s, {peak} MB")
            )
            wall, cpu, peak = measured("verify", "--all", "--db", str(path))
            checked[sessions] = cpu
            rows.append(
                (
                    f"verify --all, {sessions:,} sessions",
                    "60 s for 10,000",
                    f"{wall:.1f} s ({cpu:.1f} s CPU), {peak} MB",
                )
            )
            for words, aim in (
                (("replay", "--status", "failed", "--json"), "60 s for 10,000"),
                (("spend",), "1 s for 10,000"),
                (("list",), "0.2 s for 10,000"),
                (("show", "last"), "0.15 s"),
                (("spend", "--by", "task,purpose"), ""),
                (("export", "--format", "csv", "-o", str(folder / "calls.csv")), "constant memory"),
                (("export", "--format", "otel", "-o", str(folder / "spans.json")), "constant memory"),
                (("why", "s1:40"), "as a process"),
            ):
                wall, cpu, peak = measured(*words, "--db", str(path))
                rows.append(
                    (f"{' '.join(words[:3])}, {sessions:,} sessions", aim, f"{wall:.2f} s ({cpu:.2f} s CPU), {peak} MB")
                )
            rows.append(
                (
                    f"why, in a process that runs, {sessions:,} sessions",
                    "under 0.3 s",
                    f"{explained(path) * 1000:.0f} ms CPU",
                )
            )
        few, many = sizes[most // 10], sizes[most]
        rows.append(
            (
                "whatif, ten times the sessions",
                "linear",
                f"{many[0] / few[0]:.1f} times the CPU, {many[1] / few[1]:.2f} times the memory",
            )
        )
        rows.append(
            (
                "verify --all, ten times the sessions",
                "linear",
                f"{checked[most] / checked[most // 10]:.1f} times the CPU",
            )
        )
    rows.append(("budget and redaction, CPU per call", "at most 0.3 ms", f"{guards():.2f} ms"))
    events, seconds = diff_seconds()
    rows.append((f"diff of two sessions of {events:,} events", "under 1 s", f"{seconds:.2f} s CPU"))
    print("| what | aim | measured |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
