"""An event log beside others: what a durable step costs in each, in one run.

    uv venv /tmp/peers && uv pip install --python /tmp/peers . eventsourcing langgraph-checkpoint-sqlite dbos
    PYTHONPATH=. /tmp/peers/bin/python -m tests.bench.stores

Each writes the same steps, one durable commit a step, in WAL mode with full synchronisation as SQLite has it by default:
the event's JSON with the texts that are new in it. Beside that ours compresses texts and keeps each once, chains hashes,
checks lease, order and budgets, and keeps spend, decisions and the list; the others do what they do at such a step. CPU
is that of the process, threads included, in ms a step; a peer that is not installed is left out.
"""

import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
import uuid
from pathlib import Path

from codetape.testing import MemoryStore
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.bench.corpus import session

SESSIONS = 12


def recorded():
    """Return sessions as lists of (event, its new texts)."""
    found = []
    for number in range(SESSIONS):
        memory = MemoryStore()
        session(memory, f"s{number}", number)
        stream, seen, steps = asyncio.run(memory.read(f"s{number}")), set(), []
        from codetape.eventlog.events import refs

        for event in stream.events:
            new = {ref: stream.texts[ref] for ref in refs(event.payload) if ref not in seen}
            seen |= set(new)
            steps.append((event, new))
        found.append(steps)
    return found


def plain(event, texts):
    return json.dumps({"kind": event.kind, "payload": event.stored_payload, "texts": texts}, ensure_ascii=False)


def raw(folder, sessions):
    db = sqlite3.connect(folder / "raw.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE steps (session TEXT, seq INTEGER, data TEXT, UNIQUE (session, seq))")
    for steps in sessions:
        for event, texts in steps:
            db.execute("INSERT INTO steps VALUES (?, ?, ?)", (event.session, event.seq, plain(event, texts)))
    db.close()


def ours(folder, sessions):
    store = SqliteStore(folder / "ours.db")

    async def write():
        for steps in sessions:
            lease = await store.acquire(steps[0][0].session)
            for event, texts in steps:
                await store.append(event, texts, lease)
            lease.release()

    asyncio.run(write())
    store.close()


def eventsourcing(folder, sessions):
    from eventsourcing.persistence import StoredEvent
    from eventsourcing.sqlite import SQLiteAggregateRecorder, SQLiteDatastore

    datastore = SQLiteDatastore(str(folder / "eventsourcing.db"))
    recorder = SQLiteAggregateRecorder(datastore)
    recorder.create_table()
    for steps in sessions:
        name = uuid.uuid4()
        for event, texts in steps:
            recorder.insert_events([StoredEvent(name, event.seq + 1, event.kind, plain(event, texts).encode())])
    datastore.close()


def langgraph(folder, sessions):
    """A checkpoint a step, whose state is that step alone: a graph's usual state, all messages so far, takes more."""
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        for steps in sessions:
            config = {"configurable": {"thread_id": steps[0][0].session, "checkpoint_ns": ""}}
            for event, texts in steps:
                checkpoint = empty_checkpoint()
                checkpoint["channel_values"] = {"step": plain(event, texts)}
                checkpoint["channel_versions"] = {"step": event.seq + 1}
                config = saver.put(config, checkpoint, {"source": "loop", "step": event.seq, "parents": {}}, {"step": event.seq + 1})  # fmt: skip


def dbos(folder, sessions):
    from dbos import DBOS

    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{folder / 'dbos.db'}", "log_level": "ERROR", "console_log_level": "ERROR"})  # fmt: skip

    @DBOS.step()
    def step(data):
        return data

    @DBOS.workflow()
    def run(number):
        for event, texts in sessions[number]:
            step(plain(event, texts))

    DBOS.launch()
    for number in range(len(sessions)):
        run(number)
    DBOS.destroy()


def main():
    sessions = recorded()
    count = sum(map(len, sessions))
    print(f"{SESSIONS} sessions, {count} steps of {sum(len(plain(*s)) for steps in sessions for s in steps) // count:,} characters each\n")  # fmt: skip
    print("| store | CPU a step | of raw's | wall a step | bytes a step |\n|---|---|---|---|---|")
    bare = 0.0
    for name, write in (
        ("sqlite3 itself", raw),
        ("codetape", ours),
        ("eventsourcing", eventsourcing),
        ("LangGraph's SqliteSaver", langgraph),
        ("DBOS, on SQLite", dbos),
    ):
        spent, walls, size = [], [], 0
        try:
            for _ in range(1 if write is dbos else 3):
                with tempfile.TemporaryDirectory() as place:
                    cpu, wall = time.process_time(), time.perf_counter()
                    write(Path(place), sessions)
                    spent.append((time.process_time() - cpu) / count * 1000)
                    walls.append((time.perf_counter() - wall) / count * 1000)
                    size = sum(file.stat().st_size for file in Path(place).iterdir() if file.suffix == ".db")
        except ImportError as error:
            print(f"| {name} | not installed: {error} | | | |")
            continue
        cpu = statistics.median(spent)
        bare = bare or cpu
        print(f"| {name} | {cpu:.2f} ms | {cpu / bare:.1f} | {statistics.median(walls):.2f} ms | {size / count:,.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
