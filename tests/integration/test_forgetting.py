"""Content that is forgotten, left out, or never written; heads that are kept elsewhere."""

import asyncio
import json
import random
import re
from pathlib import Path

import pytest
import zstandard

from codetape import AutoCoderAgent, heads, tape
from codetape.chain import Row, row_of, seal
from codetape.errors import LeaseHeld, StoreError, UsageError
from codetape.redaction import Redactor, read_patterns
from codetape.testing import FakeSandbox, MemoryStore, ScriptedModel
from codetape.verify import verify
from codetape_adapters.stores.sqlite import SqliteStore
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
    saved = new.salvage("gone")
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
    assert verify([row_of(e) for e in stream.events], stream.texts).sound
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
    with pytest.raises(StoreError, match="has tape.db open"):
        asyncio.run(SqliteStore("tape.db").forget("a"))  # `store` is open still
    store.close()
    with pytest.raises(StoreError, match="no session"):
        asyncio.run(SqliteStore("tape.db").forget("nothing"))
    asyncio.run(SqliteStore("tape.db").forget("a"))
    asyncio.run(SqliteStore("tape.db").forget("a"))  # again: nothing is left to do
    assert SqliteStore("tape.db").salvage("a").rows[-1].kind == "ContentForgotten"


def test_a_tape_without_content_verifies_and_its_forgery_is_found():
    store = MemoryStore()
    result, _ = generate(ANSWERS, f"Add, {MARK}.", store=store, sandbox=FakeSandbox())
    stream = asyncio.run(store.read(result.session))
    lines = list(tape.write(result.session, stream, content=False))
    assert MARK not in "".join(lines)
    read = tape.parse(lines)
    rows = [row for _, row in read.rows]
    done = verify(rows, {}, content=read.content)
    assert (done.sound, done.content, done.derived, done.head) == (True, False, 0, result.head)
    with pytest.raises(UsageError, match="holds no content"):
        tape.read(lines)
    at = next(n for n, row in enumerate(rows) if row.kind == "Decided")
    for edit in (_edited, _illegal):
        assert not verify(edit(rows, stream, at), {}, content=False).sound


def _edited(rows, stream, at):
    row = rows[at]
    return [
        *rows[:at],
        Row(*row[:5], row.payload.replace('"usable":true', '"usable":false'), *row[6:]),
        *rows[at + 1 :],
    ]


def _illegal(rows, stream, at):
    """The same chain, hashed anew, with a decision left out: a move that the machine does not have, or a call that stays open."""
    found, head = [], "0" * 64
    for event in [*stream.events[:at], *stream.events[at + 1 :]]:
        made_ = seal(event.session, len(found), event.at, event.payload, head)
        found.append(row_of(made_))
        head = made_.hash
    return found


def test_heads_are_written_checked_and_found_changed(tmp_path):
    file = str(tmp_path / "heads")
    assert heads.read(file) == {}
    heads.write(file, {"b": (3, "b" * 64), "a": (1, "a" * 64)})
    assert Path(file).read_text().splitlines()[0].startswith("a 1 aaa")
    known = heads.read(file)
    assert heads.check(known, "a", {0: "0" * 64, 1: "a" * 64, 2: "c" * 64}) == []
    assert "made anew" in heads.check(known, "a", {1: "c" * 64})[0][1]
    assert "cut off" in heads.check(known, "b", {1: "c" * 64})[0][1]
    assert heads.absent(known, ["a"]) == ["Session b has a head in the file, and is gone."]
    Path(file).write_text("a 1 zz\n")
    with pytest.raises(UsageError, match="line 1"):
        heads.read(file)


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
