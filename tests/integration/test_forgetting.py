"""Content that is forgotten, left out, or never written; heads that are kept elsewhere."""

import asyncio
import json
import random
import re
from pathlib import Path

import pytest
import zstandard
from hypothesis import given

from codetape import AutoCoderAgent
from codetape.errors import CorruptTape, LeaseHeld, StoreError, UsageError
from codetape.eventlog.envelope import encode, stored
from codetape.eventlog.events import ContentForgotten
from codetape.eventlog.stored_event import StoredEvent
from codetape.eventlog.structure import legal
from codetape.playback import head_file, tape_file
from codetape.playback.verify import verify
from codetape.ports import Stream
from codetape.runtime.redaction import Redactor, read_patterns
from codetape.testing import FakeSandbox, MemoryStore, ScriptedModel
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.property.test_machine import live, worlds
from tests.support import ADD_TESTS, block, generate, plan

MARK = "".join(random.Random(4).choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=48))
ANSWERS = {"plan": [plan()], "code": [block(f"def add(a, b):\n    return a + b  # {MARK}")], "tests": [ADD_TESTS]}


def made(store, session, prompt=f"Add, {MARK}.", answers=ANSWERS):
    agent = AutoCoderAgent(model=ScriptedModel(answers), sandbox=FakeSandbox(), store=store)
    return asyncio.run(agent.agenerate(prompt, session=session, task="t"))


def everything(folder="."):
    """All that the database's files hold, packed texts unpacked, free pages among it."""
    found = b""
    for path in Path(folder).glob("tape.db*"):
        data = path.read_bytes()
        found += data
        for match in re.finditer(re.escape(b"\x28\xb5\x2f\xfd"), data):
            try:
                found += (
                    zstandard.ZstdDecompressor()
                    .decompressobj()
                    .decompress(data[match.start() : match.start() + 200_000])
                )
            except zstandard.ZstdError:
                continue
    return found


def test_what_is_forgotten_is_nowhere_in_the_files_and_what_is_left_verifies():
    store = SqliteStore("tape.db")
    result = made(store, "gone")
    kept = made(store, "kept", "Add two numbers.", {**ANSWERS, "code": [block("def add(a, b):\n    return a + b")]})
    before = asyncio.run(store.read("gone"))
    assert MARK.encode() in everything()
    erased = asyncio.run(store.forget("gone"))
    assert erased > 5
    assert MARK.encode() not in everything()
    new = SqliteStore("tape.db")
    saved = new.recover("gone")
    done = verify(saved.rows, saved.texts)
    assert done.sound
    assert not done.content
    assert [row.hash for row in saved.rows[:-1]] == [e.hash for e in before.events]
    assert saved.rows[-1].kind == "ContentForgotten"
    row = next(r for r in new.sessions()[0] if r["session"] == "gone")
    assert (row["state"], row["input_tokens"]) == ("succeeded", result.total_input_tokens)
    with pytest.raises(StoreError, match="was forgotten"):
        asyncio.run(new.read("gone"))
    assert asyncio.run(new.read("kept")).events[-1].hash == kept.head
    assert new.unsound() == []
    made(new, "after")
    new.close()


def test_a_fork_keeps_what_it_inherits_and_forgetting_it_too_erases_that():
    store = SqliteStore("tape.db")
    made(store, "parent")
    agent = AutoCoderAgent(model=ScriptedModel(ANSWERS, name="scripted"), sandbox=FakeSandbox(), store=store)
    asyncio.run(agent.afork("parent", "writing_tests", fork="fork"))
    asyncio.run(store.forget("parent"))
    new = SqliteStore("tape.db")
    stream = asyncio.run(new.read("fork"))
    assert any(MARK in text for text in stream.texts.values())
    assert verify([stored(e) for e in stream.events], stream.texts).sound
    asyncio.run(new.forget("fork"))
    assert MARK.encode() not in everything()


def test_a_session_that_is_driven_or_in_a_call_is_not_forgotten():
    store = SqliteStore("tape.db")
    made(store, "a")
    made(store, "b")
    lease = asyncio.run(store.acquire("b"))
    with pytest.raises(LeaseHeld):
        asyncio.run(SqliteStore("tape.db").forget("a"))
    lease.release()
    with pytest.raises(StoreError, match="has .*tape.db open"):
        asyncio.run(SqliteStore("tape.db").forget("a"))  # `store` is open still
    assert asyncio.run(store.read("a")).events[-1].kind == "Succeeded"  # what was refused has changed nothing
    store.close()
    with pytest.raises(StoreError, match="no session"):
        asyncio.run(SqliteStore("tape.db").forget("nothing"))
    asyncio.run(SqliteStore("tape.db").forget("a"))
    asyncio.run(SqliteStore("tape.db").forget("a"))  # again: nothing is left to do
    assert SqliteStore("tape.db").recover("a").rows[-1].kind == "ContentForgotten"


def test_a_tape_without_content_verifies_and_its_forgery_is_found():
    store = MemoryStore()
    result, _ = generate(ANSWERS, f"Add, {MARK}.", store=store, sandbox=FakeSandbox())
    stream = asyncio.run(store.read(result.session))
    lines = list(tape_file.write_without_content(result.session, [stored(e) for e in stream.events]))
    assert MARK not in "".join(lines)
    read = tape_file.parse(lines)
    rows = [row for _, row in read.rows]
    done = verify(rows, {}, content=read.content)
    assert (done.sound, done.content, done.derived, done.head) == (True, False, 0, result.head)
    with pytest.raises(UsageError, match="holds no content"):
        tape_file.read(lines)
    at = next(n for n, row in enumerate(rows) if row.kind == "Decided")
    for edit in (_edited, _illegal):
        assert not verify(edit(rows, stream, at), {}, content=False).sound


def _edited(rows, stream, at):
    row = rows[at]
    return [
        *rows[:at],
        StoredEvent(*row[:5], row.payload.replace('"usable":true', '"usable":false'), *row[6:]),
        *rows[at + 1 :],
    ]


def _illegal(rows, stream, at):
    """The same chain, hashed again, with a decision left out: a move that the machine does not have, or a call that stays open."""
    found, head = [], "0" * 64
    for event in [*stream.events[:at], *stream.events[at + 1 :]]:
        made_ = encode(event.session, len(found), event.at, event.payload, head)
        found.append(stored(made_))
        head = made_.hash
    return found


def test_heads_are_written_checked_and_found_changed(tmp_path):
    file = str(tmp_path / "heads")
    assert head_file.read(file) == {}
    head_file.write(file, {"b": (3, "b" * 64), "a": (1, "a" * 64)})
    assert Path(file).read_text().splitlines()[0].startswith("a 1 aaa")
    known = head_file.read(file)
    assert head_file.check(known, "a", {0: "0" * 64, 1: "a" * 64, 2: "c" * 64}) == []
    assert "made again" in head_file.check(known, "a", {1: "c" * 64})[0][1]
    assert "cut off" in head_file.check(known, "b", {1: "c" * 64})[0][1]
    assert head_file.absent(known, ["a"]) == ["Session b has a head in the file, and is gone."]
    chain = [("p", 0, "1" * 64), ("p", 1, "2" * 64), ("f", 2, "3" * 64)]
    assert (
        head_file.of_chain({"p": (7, "9" * 64), "f": (2, "3" * 64)}, chain) == []
    )  # of a parent a fork holds the beginning alone
    assert "made again" in head_file.of_chain({"p": (1, "9" * 64)}, chain)[0][1]
    assert "cut off" in head_file.of_chain({"f": (5, "3" * 64)}, chain)[0][1]
    Path(file).write_text("a 1 zz\n")
    with pytest.raises(UsageError, match="line 1"):
        head_file.read(file)


def test_a_pattern_is_replaced_wherever_a_text_comes_from():
    store = MemoryStore()
    patterns = {"customer": "ACME-[0-9]{6}"}
    answers = {**ANSWERS, "code": [block("def add(a, b):\n    return a + b  # ACME-123456")]}
    result, model = generate(answers, "Add for ACME-654321.", store=store, sandbox=FakeSandbox(), redact=patterns, ask={"constraints": ["not ACME-111111"]})  # fmt: skip
    stream = asyncio.run(store.read(result.session))
    assert not any("ACME-" in text for text in stream.texts.values())
    assert "[redacted:customer]" in result.solution.code
    assert not any("ACME-" in m.content for r in model.requests for m in r.messages)


@pytest.mark.parametrize(("pattern", "said"), [("(", "no regular expression"), ("a*", "matches the empty text")])
def test_a_pattern_that_is_none_is_refused(pattern, said):
    with pytest.raises(UsageError, match=said):
        read_patterns({"p": pattern})


def test_secrets_and_patterns_go_together():
    redactor = Redactor({"KEY": "abcdefghij"}, read_patterns({"n": "[0-9]{4}"}))
    assert redactor.text("abcdefghij 1234 12") == "[redacted:KEY] [redacted:n] 12"
    assert json.loads(json.dumps(redactor.text("x"))) == "x"


def test_a_session_that_was_stopped_in_a_call_is_closed_and_forgotten():
    store = SqliteStore("tape.db")
    made(store, "whole")
    stream = asyncio.run(store.read("whole"))
    at = next(n for n, e in enumerate(stream.events) if e.kind == "Requested" and n > 3)
    for event in stream.events[: at + 1]:
        asyncio.run(_appended(store, "open", event, stream))
    asyncio.run(store.forget("open"))
    rows = SqliteStore("tape.db").recover("open").rows
    assert [row.kind for row in rows[-3:]] == ["Requested", "CallLost", "ContentForgotten"]
    assert verify(rows, {}).sound


async def _appended(store, session, event, stream):
    from codetape.eventlog.events import refs

    chain = store.recover(session).rows
    lease = await store.acquire(session)
    payload = event.payload
    if hasattr(payload, "call"):
        payload = payload.model_copy(update={"call": payload.call.replace("whole:", f"{session}:")})
    made_ = encode(session, len(chain), event.at, payload, chain[-1].hash if chain else "0" * 64)
    await store.append(made_, {ref: stream.texts[ref] for ref in refs(payload)}, lease)
    lease.release()


def test_what_a_killed_one_left_is_swept_links_stay_and_strangers_tables_too():
    store = SqliteStore("real.db")
    made(store, "a")
    store._db().execute("CREATE TABLE notes (text)")
    store._db().execute("INSERT INTO notes VALUES ('mine')")
    store._db().execute("CREATE VIEW short AS SELECT session FROM sessions")
    store.close()
    Path("real.db").chmod(0o600)
    Path(".codetape-forget-x.db").write_text(MARK)
    Path("tape.db").symlink_to("real.db")
    asyncio.run(SqliteStore("tape.db").forget("a"))
    assert Path("tape.db").is_symlink()
    assert not list(Path().glob(".codetape-forget*"))
    assert Path("real.db").stat().st_mode & 0o777 == 0o600
    new = SqliteStore("tape.db")
    assert new._db().execute("SELECT text FROM notes").fetchall() == [("mine",)]
    assert new._db().execute("SELECT * FROM short").fetchall() == [("a",)]
    assert new._db().execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    new.close()
    assert MARK.encode() not in everything()


def test_a_planted_end_hides_nothing():
    """A chain that says it was forgotten, and holds its texts, is derived all the same; nothing follows such an end."""
    store = MemoryStore()
    result, _ = generate(ANSWERS, store=store, sandbox=FakeSandbox())
    stream = asyncio.run(store.read(result.session))
    last = stream.events[-1]
    end = encode(last.session, last.seq + 1, last.at, ContentForgotten(texts=1), last.hash)
    rows = [*map(stored, stream.events), stored(end)]
    done = verify(rows, stream.texts)
    assert (done.sound, done.content) == (True, True)
    assert done.derived > 3
    after = encode(last.session, end.seq + 1, last.at, last.payload, end.hash)
    assert not verify([*rows, stored(after)], stream.texts).sound
    assert not verify([*rows, stored(after)], {}, content=False).sound
    with pytest.raises(CorruptTape, match="forgotten"):
        tape_file.read(tape_file.write(last.session, Stream((*stream.events, end), stream.texts)))


@given(worlds)
def test_what_is_legal_with_texts_is_legal_without(drawn):
    _, stream, *_ = live(*drawn)
    legal(stream.events)


def test_without_texts_splices_calls_after_the_end_and_empty_successes_are_found():
    store = MemoryStore()
    result, _ = generate(ANSWERS, store=store, sandbox=FakeSandbox())
    events = asyncio.run(store.read(result.session)).events
    asked = next(e for e in events if e.kind == "Requested")
    run = next(n for n, e in enumerate(events) if e.kind == "TestsFinished" and e.payload.purpose == "run")
    none = events[run].payload.model_copy(update={"passed": 0, "failed": 9})
    for payloads, sessions in (
        ([*(e.payload for e in events), asked.payload], None),
        (
            [e.payload for e in events if e.kind not in ("Requested", "Answered", "TestsFinished", "BuildFinished")],
            None,
        ),
        ([*(e.payload for e in events[:run]), none, *(e.payload for e in events[run + 1 :])], None),
        ([e.payload for e in events], ["a"] * 5 + ["b"] * (len(events) - 5)),
    ):
        found, head = [], "0" * 64
        for n, payload in enumerate(payloads):
            found.append(encode(sessions[n] if sessions else events[0].session, n, events[0].at, payload, head))
            head = found[-1].hash
        with pytest.raises(CorruptTape):
            legal(found)


def test_a_pattern_keeps_our_own_words_and_keys_are_found_in_every_spelling():
    store = MemoryStore()
    result, _ = generate(ANSWERS, store=store, sandbox=FakeSandbox(), redact={"p": "pass[a-z]*", "v": r"\\d+\\.\\d+"})
    assert result.succeeded
    for secret in ('pa"ss\\wörd-long', "two\nlines-of-a-key", "/Zx9kQ2wLm8pRt4vYb7n"):
        redactor = Redactor.of_environment({"MY_TOKEN": secret})
        for said in (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret)):
            assert "[redacted:MY_TOKEN]" in redactor.text(said), (secret, said)
