"""Fuzz what people and strangers hand to codetape: command lines, task files, settings, tapes, databases.

    python -m tests.bench.fuzz [--seconds 60] [--seed 1] [--kind commands]...

Each attempt is a call of the command line in this process, in a folder of its own. What must hold: it ends within
its time, with a documented exit code; it shows no traceback and no "error of codetape's own"; of a refusal it says
something, in UTF-8. An attempt that breaks this is printed with its seed, and becomes a case of tests/e2e/test_fuzz.py.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CODES = {0, 1, 2, 100, 101, 102, 103, 104, 130}
SECONDS = 20  # for one attempt
TEXTS = (
    "", " ", "-", "--", "-1", "0", "1", "2", "007", "1e309", "NaN", "inf", "99999999999999999999", "-99999999999999999999",
    "0.1", "1,2", "a,b", "a=b", "=b", "a=", "a=1", "x=" + "9" * 400, "last", "last~1", "demo", "tape:demo", "tape:", ":", "openai:",
    "nobody:x", "docker:", "docker:a b", "../..", "/", "/dev/null", "/dev/zero", "/proc/self/mem", "no-such-file", "folder", "pipe",
    "t.tape.jsonl", "broken.tape.jsonl", "tape.db", "other.db", "tasks.jsonl", "codetape.toml", "x.json", "x.md", "x.html", "x.csv", "x.junit.xml",
    "coding", "coding#2", "coding#0", "planning#99999", "2026-01-01", "2026-13-45", "30d", "1h", "1s", "0s", "2G", "64", "1K", "succeeded",
    "failed", "*", "%s%n", "{0}", "$HOME", "`id`", "'", '"', "\\", "\n", "\t", "\r\n", "\x00", "\x1b[31m", "\u202e", "\ud800", "é", "日本", "🙂",
    "a" * 3000, "(" * 300, "[" * 2000, "(a+)+$", "(?=a)", "secret: x", "apt:gcc-", "run:id", "numpy==1", "-r x", "3.12", "3.99", "999",
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**64, -(2**70), 0.5, 1e308, "", "a", "\x1b[2J", "\u202e", "é" * 500, "../../x", "0" * 64, [], [1], ["a"], [[]],
    {}, {"a": 1}, {"a": {"b": []}}, "planning", "coding", "succeeded", "Requested", "2026-01-01T00:00:00.000Z", "file:/etc/passwd",
)  # fmt: skip
READING = ("list", "show", "verify", "replay", "spend", "why", "audit", "export", "diff", "whatif", "backtest")


@dataclass(frozen=True)
class Broken:
    """An attempt that broke what must hold."""

    kind: str
    seed: int
    words: tuple[str, ...]
    why: str


class Late(BaseException):
    """An attempt that takes too long; no handler of errors takes it for one."""


def attempt(words: list[str]) -> str:
    """Call the command line; return what broke, or an empty text."""
    from codetape.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True) for _ in range(2))
    begun, code = time.monotonic(), None

    def late(*_):
        raise Late

    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(SECONDS + 10, exit=True, file=sys.__stderr__)  # a wait that nothing interrupts
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(list(words))
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0
    except Late:
        return f"no end within {time.monotonic() - begun:.0f} s"
    except BaseException as error:  # noqa: BLE001 - whatever comes through is what is looked for
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in before.items():
            signal.signal(number, handler)
    said = "".join(stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err) if not stream.closed)
    if "codetape's own" in said or "Traceback (most recent call last)" in said:
        return said[-400:]
    if code not in CODES:
        return f"exit code {code}"
    return "" if code == 0 or said.strip() else f"exit code {code} without a word"


class Fuzz:
    """One kind of input, in a folder of its own with things to point at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        from codetape.playback import tape_file
        from codetape_adapters.stores.sqlite.store import SqliteStore

        self.tape = list(tape_file.write("demo", tape_file.load("demo").stream))
        self.rows = [json.loads(line) for line in self.tape]
        (folder / "t.tape.jsonl").write_text("".join(self.tape), encoding="utf-8")
        (folder / "broken.tape.jsonl").write_text("".join(self.tape[:5])[:-9], encoding="utf-8")
        store = SqliteStore(folder / "tape.db")
        store.put(tape_file.load("demo").stream)
        store.close()
        (folder / "other.db").write_bytes(b"SQLite format 3\0" + b"x" * 200)
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")
        self.pristine = (folder / "tape.db").read_bytes()

    def reset(self) -> None:
        """Put back what an attempt may have changed."""
        for path in self.folder.glob("tape.db*"):
            path.unlink()
        (self.folder / "tape.db").write_bytes(self.pristine)
        for name in ("codetape.toml", "tasks.jsonl", "fuzzed.tape.jsonl", "fuzzed.db"):
            (self.folder / name).unlink(missing_ok=True)

    def commands(self, rng: random.Random) -> list[str]:
        """Any command with any options and any values."""
        import click

        from codetape.cli import COMMANDS
        from codetape.cli.group import cli

        context = click.Context(cli)
        name = rng.choice(list(COMMANDS))
        command = cli.get_command(context, name)
        words = [name]
        if isinstance(command, click.Group):
            inner = rng.choice(list(command.commands))
            command, words = command.commands[inner], [name, inner]
        options = [p for p in command.params if isinstance(p, click.Option) and p.name != "debug"]
        for option in rng.sample(options, min(len(options), rng.randrange(5))):
            words.append(rng.choice(option.opts))
            if not option.is_flag and not option.count:
                words.append(self._value(option, rng))
        for argument in (p for p in command.params if isinstance(p, click.Argument)):
            count = rng.randrange(3) if argument.nargs == -1 else 1
            words += [rng.choice(("last", "t.tape.jsonl", rng.choice(TEXTS))) for _ in range(count)]
        if name == "view":  # else it would serve until it is stopped
            words = [*words, "--export", "page.html"]
        if words[:2] == ["backtest", "loop"]:
            return ["--help"]
        if name in ("run", "demo", "resume", "fork", "check", "exec", "doctor", "images") or "live" in words:
            words = [*words, *self._harmless(name, words)]
        return words

    def _value(self, option, rng: random.Random) -> str:
        choices = getattr(option.type, "choices", ())
        return str(rng.choice(list(choices))) if choices and rng.random() < 0.7 else rng.choice(TEXTS)

    def _harmless(self, name: str, words: list[str]) -> list[str]:
        """Keep an attempt from real sandboxes and servers, whose waits would be most of the time."""
        if name in ("doctor", "images", "demo", "exec") or "live" in words:
            return ["--help"]
        more = ["--sandbox", "tape:demo"]
        return [*more, "--model", "tape:demo"] if name in ("run", "fork") else more

    def tasks(self, rng: random.Random) -> list[str]:
        """A task file that is not as it should be."""
        task = {"id": "a", "prompt": "Write add(a, b).", "inputs": {"x": "int"}, "outputs": {"y": "int"}, "tags": ["t"]}
        lines = []
        for number in range(rng.randrange(1, 4)):
            value = {**task, "id": f"a{number}"}
            for _ in range(rng.randrange(3)):
                self._mutate(value, rng)
            lines.append(self._mangled(json.dumps(value, ensure_ascii=rng.random() < 0.5), rng))
        (self.folder / "tasks.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        return ["run", "--tasks", "tasks.jsonl", "--model", "tape:demo", "--sandbox", "tape:demo"]

    def settings(self, rng: random.Random) -> list[str]:
        """A settings file that is not as it should be."""
        from codetape.cli.settings import DEFAULTS

        lines = []
        for name in rng.sample([*DEFAULTS, "prices", "redact", "nothing"], rng.randrange(1, 5)):
            value = rng.choice((*VALUES, rng.choice(TEXTS)))
            value = "x" if value is None else value
            text = json.dumps(value) if not isinstance(value, dict) else "{a = 1}"
            lines.append(f"{name} = {text}")
        (self.folder / "codetape.toml").write_bytes(
            self._mangled("\n".join(lines), rng).encode("utf-8", "surrogatepass")
        )
        return rng.choice(
            (["config"], ["list"], ["run", "x", "--model", "tape:demo", "--sandbox", "tape:demo"], ["spend"], ["trust"])
        )

    def tapes(self, rng: random.Random) -> list[str]:
        """A tape that was changed, hashed again in half of the attempts."""
        rows = json.loads(json.dumps(self.rows))
        for _ in range(rng.randrange(1, 4)):
            row = rng.choice(rows)
            (self._mutate_payload if "event" in row and rng.random() < 0.7 else self._mutate)(row, rng)
        if rng.random() < 0.5:
            rehash(rows)
        text = "".join(
            json.dumps(row, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n" for row in rows
        )
        if rng.random() < 0.2:
            text = self._mangled(text, rng)
        (self.folder / "fuzzed.tape.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
        return [*self._reading(rng, "fuzzed.tape.jsonl")]

    def databases(self, rng: random.Random) -> list[str]:
        """A database that was changed: by a cell, or by a byte."""
        path = self.folder / "fuzzed.db"
        path.write_bytes(self.pristine)
        if rng.random() < 0.3:
            data = bytearray(self.pristine)
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(bytes(data[: len(data) if rng.random() < 0.8 else rng.randrange(len(data))]))
        else:
            self._change_cells(path, rng)
        verb, *more = self._reading(rng, "last")
        words = [verb, *more] if verb != "verify" else ["verify", "--all"]
        return [*words, "--db", "fuzzed.db"]

    def _change_cells(self, path: Path, rng: random.Random) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        triggers = [
            (name, sql) for name, sql in db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        ]
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        for _ in range(rng.randrange(1, 4)):
            table = rng.choice(
                ("events", "events", "blobs", "sessions", "leases", "call_rows", "test_run_rows", "build_rows")
            )
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            value = rng.choice(
                (
                    *(v for v in VALUES if not isinstance(v, list | dict)),
                    b"\x00\xff",
                    b"",
                    1e308,
                    json.dumps(rng.choice(VALUES)),
                )
            )
            with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeError):
                db.execute(
                    f"UPDATE {table} SET {rng.choice(columns)} = ? WHERE rowid = (SELECT rowid FROM {table} ORDER BY random() LIMIT 1)",
                    (value,),
                )
        for _, sql in triggers:
            db.execute(sql)
        db.close()

    def _reading(self, rng: random.Random, name: str) -> list[str]:
        verb = rng.choice(READING)
        if verb == "diff":
            return [verb, name, "t.tape.jsonl"]
        if verb == "backtest":
            return [
                verb,
                rng.choice(("rules", "limits")),
                name,
                *(["--max-iterations", "1,2"] if rng.random() < 0.5 else []),
            ]
        more = {
            "whatif": ["--prompts", "current"],
            "export": rng.choice(([], ["-o", "out"], ["--markdown"], ["--pytest"])),
        }
        return [verb, name, *more.get(verb, []), *(["--json"] if rng.random() < 0.3 and verb != "export" else [])]

    def _mutate(self, value: dict, rng: random.Random) -> None:
        place = value
        while place:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
                place = inner
                continue
            if rng.random() < 0.15 and isinstance(place, dict):
                del place[key]
            else:
                place[key] = rng.choice(VALUES)
            return

    def _mutate_payload(self, row: dict, rng: random.Random) -> None:
        event = row["event"] if isinstance(row["event"], dict) else row
        payload = event.get("payload")
        self._mutate(payload if isinstance(payload, dict) and payload else event, rng)

    def _mangled(self, text: str, rng: random.Random) -> str:
        if rng.random() < 0.6 or not text:
            return text
        at = rng.randrange(len(text))
        return (
            text[:at]
            + rng.choice(("", "\x00", "{" * 3000, "\ud800", "'", '"', "\n", "\ufeff", "NaN", "9" * 5000))
            + text[at + rng.randrange(3) :]
        )


def rehash(rows: list[dict]) -> None:
    """Give the events of a tape the hashes that cover what they say now, as far as that can be done."""
    from codetape.domain.canonical import canonical, sha256
    from codetape.eventlog.stored_event import GENESIS, envelope

    previous = GENESIS
    for row in rows:
        event = row.get("event")
        if not isinstance(event, dict):
            continue
        with contextlib.suppress(KeyError, TypeError, ValueError):
            event["prev_hash"] = previous
            names = ("session", "seq", "kind", "version", "at")
            event["hash"] = sha256(envelope(*(event[n] for n in names), canonical(event["payload"]), previous))
            previous = event["hash"]


KINDS = ("commands", "tasks", "settings", "tapes", "databases")


def fuzz(kind: str, seed: int, *, attempts: int = 10**9, seconds: float = 1e9) -> tuple[int, list[Broken]]:
    """Make attempts of one kind until their number or time is up; return how many, and what broke."""
    home, begun, count, broken = Path.cwd(), time.monotonic(), 0, list[Broken]()
    given, nothing = sys.stdin, io.StringIO()
    folder = Path(tempfile.mkdtemp(prefix="codetape-fuzz-"))
    state = os.environ.copy()
    os.environ.update(XDG_CONFIG_HOME=str(folder / "config"), HOME=str(folder), COLUMNS="100", NO_COLOR="1")
    for name in [n for n in os.environ if n.startswith(("CODETAPE_", "OPENAI_", "ANTHROPIC_"))]:
        del os.environ[name]
    try:
        os.chdir(folder)
        maker = Fuzz(folder)
        while count < attempts and time.monotonic() - begun < seconds:
            number = seed * 1_000_000 + count
            maker.reset()
            words = getattr(maker, kind)(random.Random(number))
            count += 1
            sys.stdin = nothing
            if why := attempt(words):
                broken.append(Broken(kind, number, tuple(words), why))
    finally:
        sys.stdin = given
        os.chdir(home)
        os.environ.clear()
        os.environ.update(state)
        shutil.rmtree(folder, ignore_errors=True)
    return count, broken


def main() -> int:
    """Fuzz every kind, each for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", choices=KINDS)
    given = parser.parse_args()
    kinds, found = given.kind or KINDS, 0
    for kind in kinds:
        count, broken = fuzz(kind, given.seed, seconds=given.seconds / len(kinds))
        found += len(broken)
        print(f"{kind}: {count} attempts, {len(broken)} broke", flush=True)
        for one in broken[:20]:
            print(f"  seed {one.seed}: {' '.join(map(repr, one.words))[:300]}\n    {one.why}", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
