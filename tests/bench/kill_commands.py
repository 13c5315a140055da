"""Kill commands at times chosen by chance, as root and as an ordinary user, and count what is lost, doubled, left.

    python -m tests.bench.kill_commands [COUNT] [--seed 1]

Commands: run, run --tasks, fork, check, resume, import, forget, export, images prune. After each kill the log verifies,
what was there before is there, sessions go on to their end, every call is in the log as often as the server answered
it, and the next start leaves no process, control group, staged file or half-written file. Exits 1 where any of that fails.
"""

import argparse
import asyncio
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from codetape.eventlog.events import Answered, CallLost, GaveUp
from codetape.playback import tape_file
from codetape_adapters.process_identity import is_abandoned
from codetape_adapters.sandboxes.bubblewrap.cgroups import ROOT
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.helpers.forked import started
from tests.servers import purpose_of, serving
from tests.support import ADD, ADD_TESTS, opinions, plan

REPLIES = {"plan": plan(), "code": ADD, "tests": ADD_TESTS, "second_opinion": opinions("3", "4")}
PROMPT = "Write add(a, b), the sum of two numbers."
ORDINARY = 4321
AS_ORDINARY = ("import", "forget", "export", "run", "tasks", "fork", "resume")
VERBS = (*AS_ORDINARY, "check", "prune")
GOES_ON = ("planning", "coding", "writing_tests", "suspended")


def act(words, folder, user, environment, quiet=True):
    """Run a command in this process, as a user."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if user:
        # an interpreter in a private home cannot be read any more afterwards: the cache has a copy of it
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        for lib in Path(environment["CODETAPE_CACHE"]).glob(f"python-*/lib/{version}"):
            sys.path += [str(lib), str(lib / "lib-dynload")]
        load_all()
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2) if quiet else (0,):
        os.dup2(null, number)
    sys.argv = ["codetape", *words]
    from codetape.cli import main

    main(list(words))


def load_all():
    """Load what commands load when they are called."""
    import codetape
    import codetape_adapters

    for package in (codetape, codetape_adapters):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "guest" not in module.name and "__main__" not in module.name:
                importlib.import_module(module.name)


class Kills:
    """One folder after another, each with a database, killed once and looked at."""

    def __init__(self, home: Path, url: str, asked: list, rng: random.Random) -> None:
        self.home, self.url, self.asked, self.rng = home, url, asked, rng
        self.counts = Counter()
        self.failures: list[str] = []
        self.cache = home / "cache"
        self.cache.mkdir()
        for above in (self.cache, home):
            above.chmod(0o755)
        self._finished(["run", PROMPT, *self._live(), "--db", "warm.db"], self._fresh(0), 0)

    def _environment(self, folder):
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**keep, "HOME": str(folder), "OPENAI_API_KEY": "k", "CODETAPE_CACHE": str(self.cache), "NO_COLOR": "1"}

    def _fresh(self, user):
        folder = Path(tempfile.mkdtemp(dir=self.home))
        if user:
            os.chown(folder, user, user)
        return folder

    def _live(self, user=0):
        return ["--model", "openai:x", "--base-url", self.url, "--sandbox", "tape:demo" if user else "bubblewrap"]

    def _finished(self, words, folder, user, most=120):
        process = started(act, words, str(folder), user, self._environment(folder))
        process.join(most)
        if process.exitcode is None:
            process.kill()
            self.failures.append(f"{words}: no end")
        return process.exitcode

    def one(self, verb, user):
        """Prepare, kill, look."""
        folder = self._fresh(user)
        try:
            before = len(self.asked)
            words, known = self._prepared(verb, folder, user)
            process = started(act, words, str(folder), user, self._environment(folder))
            time.sleep(
                self.rng.uniform(
                    0.0, {"run": 1.2, "tasks": 2.0, "fork": 1.2, "check": 1.5, "resume": 1.0}.get(verb, 0.25)
                )
            )
            alive = process.exitcode is None
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.join()
            self.counts["killed" if alive else "had ended"] += 1
            self._look(verb, folder, user, known, before)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _prepared(self, verb, folder, user):
        store = SqliteStore(folder / "tape.db")
        tapes = [tape_file.load(name).stream for name in ("demo",)]
        known = {}
        if verb not in ("run", "tasks", "import"):
            store.put(*tapes)
            known = {s.events[0].session: len(s.events) for s in tapes}
        elif verb == "import":
            tape = folder / "in.tape.jsonl"
            tape.write_text("".join(tape_file.write(tapes[0].events[0].session, tapes[0])), encoding="utf-8")
        store.close()
        (folder / "tasks.jsonl").write_text(
            "".join(json.dumps({"id": n, "prompt": PROMPT + " " * i}) + "\n" for i, n in enumerate("abc"))
        )
        if verb == "resume":
            self._finished(
                ["fork", "last", "--at", "planning", *self._live(user), "--set", "max_tokens=20000", "--db", "tape.db"],
                folder,
                0,
            )
        if verb == "check":
            self._finished(["prompts", "export", "pack"], folder, 0)
            with suppress(OSError), (folder / "pack" / "code.md").open("a", encoding="utf-8") as file:
                file.write("\nOnce more.\n")
        if user:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user, user)
        live, at = self._live(user), ["--db", "tape.db"]
        return {
            "run": ["run", PROMPT, *live, "-o", "out", *at],
            "tasks": ["run", "--tasks", "tasks.jsonl", "-j", "2", *live, *at],
            "fork": ["fork", "last", "--at", "planning", *live, *at],
            "resume": ["resume", "last", "--base-url", self.url, "--sandbox", live[-1], "--max-tokens", "900000", *at],
            "check": [
                "check",
                "last",
                "--prompts",
                "pack",
                "--yes",
                "--base-url",
                self.url,
                "--sandbox",
                live[-1],
                *at,
            ],
            "import": ["import", "in.tape.jsonl", *at],
            "forget": ["forget", "last", "--yes", *at],
            "export": ["export", "last", "-o", "out.tape.jsonl", *at],
            "prune": ["images", "prune", "--older-than", "1h", *at],
        }[verb], known

    def _look(self, verb, folder, user, known, before):
        where = f"{verb} as {'an ordinary user' if user else 'root'}"
        at = ["--db", "tape.db"]
        if not (folder / "tape.db").exists():
            return
        self._expect(self._finished(["list", *at], folder, user) == 0, f"{where}: the database is not read")
        verified = self._finished(["verify", "--all", *at], folder, user)
        store = SqliteStore(folder / "tape.db")
        rows = {row["session"]: row for row in store.sessions().rows}
        self._expect(
            verified == 0 or (verified == 103 and verb in ("check", "resume")), f"{where}: verify says {verified}"
        )
        for session, events in known.items():
            self._expect(session in rows and rows[session]["events"] >= events, f"{where}: lost {session}")
        if verb in ("run", "tasks", "fork", "resume", "check"):
            for session, row in rows.items():
                if row["state"] not in ("succeeded", "failed"):
                    self._finished(
                        ["resume", session, "--base-url", self.url, "--sandbox", self._live(user)[-1], *at],
                        folder,
                        user,
                    )
                    self.counts["went on"] += 1
            self._paid_once(store, rows, known, before, where)
        store.close()
        if verb in ("import", "export", "forget"):
            again = {
                "import": ["import", "in.tape.jsonl"],
                "export": ["export", "last", "-o", "out2.tape.jsonl"],
                "forget": ["forget", "last", "--yes"],
            }[verb]
            self._expect(self._finished([*again, *at], folder, user) in (0, 1), f"{where}: it does not go again")
        self._nothing_left(folder, where)

    def _paid_once(self, store, rows, known, before, where):
        answered = lost = 0
        for session in rows:
            with suppress(Exception):
                for event in asyncio.run(store.read(session)).events:
                    if event.session == session and session not in known:
                        answered += isinstance(event.payload, Answered)
                        lost += isinstance(event.payload, CallLost | GaveUp)
        calls = len(self.asked) - before
        self.counts["calls"] += calls
        self._expect(answered <= calls <= answered + lost, f"{where}: {calls} calls, {answered} answered, {lost} lost")

    def _nothing_left(self, folder, where):
        deadline = time.monotonic() + 5
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._expect(not left, f"{where}: processes {left}")
        self._finished(["images", "list", "--db", "tape.db"], folder, 0)
        groups = [f.name for parent in (ROOT, ROOT / "memory", ROOT / "pids", ROOT / "cpu") for f in parent.glob("codetape-*")
                  if is_abandoned(f.name.removeprefix("codetape-"))]  # fmt: skip
        self._expect(not groups, f"{where}: groups {groups}")
        staged = list((self.cache / "runs").iterdir()) if (self.cache / "runs").is_dir() else []
        self._expect(not staged, f"{where}: staged {staged}")
        half = [
            path.name
            for path in folder.iterdir()
            if path.name.startswith((".codetape-", ".tape")) or path.suffix in (".tmp", ".part")
        ]
        self._expect(not half, f"{where}: files {half}")

    def _processes(self):
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdecimal() and int(place.name) != os.getpid():
                with suppress(OSError):
                    if str(self.cache).encode() in (place / "cmdline").read_bytes():
                        found.append(place.name)
        return found

    def _expect(self, holds, words):
        if not holds:
            self.failures.append(words)
            print(f"  BROKEN {words}", flush=True)


def main() -> int:
    """Kill, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, lock = random.Random(given.seed), threading.Lock()
    home = Path(tempfile.mkdtemp(prefix="codetape-kills-"))

    def answer(handler, asked):
        with lock:
            wait = rng.uniform(0, 0.05)
        time.sleep(wait)
        handler.say(REPLIES.get(purpose_of(asked), plan()))

    made = Counter()
    try:
        with serving(answer) as (url, server):
            kills = Kills(home, url, server.asked if hasattr(server, "asked") else server, rng)
            for number in range(given.count):
                verb = VERBS[number % len(VERBS)]
                user = ORDINARY if os.getuid() == 0 and verb in AS_ORDINARY and rng.random() < 0.5 else 0
                kills.one(verb, user)
                made[f"{verb}{' (ordinary user)' if user else ''}"] += 1
                if number % 50 == 49:
                    print(
                        f"{number + 1} of {given.count}: {dict(kills.counts)}, {len(kills.failures)} broken", flush=True
                    )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    for name, count in sorted(made.items()):
        print(f"{name}: {count}")
    print(f"{dict(kills.counts)}; broken: {len(kills.failures)}")
    return 1 if kills.failures else 0


if __name__ == "__main__":
    sys.exit(main())
