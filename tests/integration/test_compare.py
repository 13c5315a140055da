"""Two sessions compared: where they diverge, why, and everything that differs, aligned by state and iteration."""

import asyncio
import json
from pathlib import Path

import pytest

from codetape.playback import tape_file
from codetape.playback.diff import compare
from codetape.testing import MemoryStore
from tests.e2e.test_cli import ROOT
from tests.helpers.forked import codetape
from tests.integration.test_forks import fork
from tests.support import ADD, ADD_TESTS, SUBTRACT, diagnosis, failure, generate, opinions, plan

ANSWERS = {
    "plan": [plan()], "code": [SUBTRACT, ADD], "tests": [ADD_TESTS], "second_opinion": [opinions("3", "4")],
    "diagnose": [diagnosis(failure("test_sum", fixes=[("a - b", "a + b")]))],
}  # fmt: skip


@pytest.fixture
def pair():
    """A session that needed two runs, and its fork with a remark, that needs one."""
    store = MemoryStore()
    parent, _ = generate(ANSWERS, store=store)
    child, _ = fork(store, parent.session, "coding", say="Mind the sign.")
    return [asyncio.run(store.read(r.session)) for r in (parent, child)]


def test_a_session_is_the_same_as_itself():
    stream = tape_file.load("demo").stream
    found = compare(stream, stream)
    assert found.parting is None
    assert (found.prompts, found.answers, found.code, found.runs, found.verdicts) == ((), (), "", (), ())


def test_the_same_run_made_twice_is_the_same_whatever_its_name_and_time():
    streams = []
    for _ in range(2):
        store = MemoryStore()
        result, _ = generate(ANSWERS, store=store)
        streams.append(asyncio.run(store.read(result.session)))
    found = compare(*streams)
    assert found.answers == found.prompts == ()
    assert found.code == found.tests == ""


def test_a_fork_parts_where_it_was_forked(pair):
    found = compare(*pair)
    at = next(e.seq for e in pair[1].events if e.kind == "SessionForked")
    assert (found.parting.seq_a, found.parting.why) == (at, "it is where one was forked")
    first = found.prompts[0]
    assert first.where == "code after run 0"
    assert "+- Mind the sign." in first.diff or "Mind the sign." in first.diff
    assert ("iterations", "2", "1") in found.verdicts
    assert any(name.startswith("run 1") for name, _, _ in found.runs)
    assert {name: new for name, _, new in found.tokens}["diagnose"] == 0
    assert [c.where for c in found.answers][:1] == ["code after run 0"]


def test_both_forms_and_the_page():
    names = [str(ROOT / "replays" / f"{n}.tape.jsonl") for n in ("demo", "tills-of-three-makes")]
    value = json.loads(codetape("diff", *names, "--json").stdout)
    assert value["parting"]["what"] == "the task"
    assert value["verdicts"][0] == ["status", "succeeded", "failed"]
    done = codetape("diff", *names, "--html", "page.html")
    assert "compared" in done.stdout
    page = Path("page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "://" not in page.split("<h2>")[0]
    assert "&lt;" in page
    assert "same, event by event" in codetape("diff", "demo", "demo").stdout
    assert codetape("diff", "demo", "nowhere.tape.jsonl").returncode == 2


def test_a_page_shows_what_came_from_outside_and_runs_none_of_it():
    from tests.integration.test_hostile_tapes import with_first

    evil = "<script>alert(1)</script>\x1b[2J"
    stream = with_first(task=lambda t: t.update(prompt=evil + t["prompt"]))
    with open("evil.tape.jsonl", "w", encoding="utf-8") as file:
        file.writelines(tape_file.write(stream.events[-1].session, stream))
    codetape("diff", "demo", "evil.tape.jsonl", "--html", "page.html")
    page = Path("page.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "\x1b" not in page
