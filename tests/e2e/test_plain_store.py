"""A second, plain store makes every command and every function of the API work: what the port says is all that they use."""

import json

import pytest

import codetape
from codetape import AutoCoderAgent, api
from codetape.cli import COMMANDS, main
from codetape.domain.budget import Limit
from codetape.errors import ContentGone, SessionNotFound
from codetape.testing import FakeSandbox, ScriptedModel
from tests.helpers import plain_store
from tests.support import ADD, ADD_TESTS, plan

DB = "plain:here"
ANSWERS = {"plan": [plan("def add(a: int, b: int) -> int")], "code": [ADD], "tests": [ADD_TESTS]}


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    """The adapter is a package of its own, found by its entry point."""
    info = tmp_path / "site" / "plain_store-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-store\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[codetape.stores]\nplain = tests.helpers.plain_store:create\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plain_store.forget_all()


@pytest.fixture
def run(capsys):
    def call(*words, code=0):
        with pytest.raises(SystemExit) as ended:
            main([*words])
        said = capsys.readouterr()
        assert ended.value.code == code, (words, said.out, said.err)
        return said.out

    return call


def recorded(run):
    """A session of the demo's tape and a fork of it, in the plain store."""
    run("import", "demo", "--db", DB)
    return plain_store.create("here").find("last")


def test_reading_commands(run, tmp_path):
    session = recorded(run)
    at = ("--db", DB)
    assert [row["session"] for row in json.loads(run("list", "--json", *at))["sessions"]] == [session]
    for words in (
        ("show", "last"), ("show", "last", "--events"), ("show", "last", "--prompts"), ("show", session[:6], "--code"),
        ("show", "last", "--diff"), ("diff", "last", "demo"), ("replay", "last"), ("verify", "last"), ("verify", "--all"),
        ("spend",), ("spend", "last", "--by", "state"), ("why", "last"), ("audit", "last"), ("scan",),
        ("backtest", "rules"), ("backtest", "limits", "--max-iterations", "1,2"),
        ("whatif", "--set", "max_logic_attempts=2"), ("check", "--set", "max_logic_attempts=2", "--dry-run"),
        ("view", "--export", str(tmp_path / "list.html")), ("view", "last", "--export", str(tmp_path / "one.html")),
        ("images", "list"), ("prompts", "export", str(tmp_path / "pack"), "--from", "last"),
    ):  # fmt: skip
        assert run(*words, *at), words
    for number, words in enumerate(
        (("--format", "tape"), ("--format", "jsonl"), ("--format", "csv"), ("--pytest",), ("--no-content",))
    ):
        file = tmp_path / f"out-{number}"
        run("export", "last", "-o", str(file), *words, *at)
        assert file.read_text()
    run("verify", str(tmp_path / "out-0"))


def test_commands_that_run_sessions(run, tmp_path):
    recorded(run)
    at = ("--db", DB, "--sandbox", "tape:demo")
    run("demo", *at)
    failed = json.loads(run("run", "Add two numbers.", "--model", "tape:demo", "--json", *at, code=1))
    assert failed["status"] == "suspended"
    run("resume", failed["session"], *at, code=1)
    assert json.loads(run("fork", "last", "--at", "planning", "--json", *at, code=1))["status"] == "suspended"
    run("prompts", "export", str(tmp_path / "pack"), "--from", "last", "--db", DB)
    (tmp_path / "pack" / "code.md").write_text((tmp_path / "pack" / "code.md").read_text() + "\nTake care.\n")
    asked = ("check", "--prompts", str(tmp_path / "pack"), "--max-tokens", "10", "--base-url", "http://127.0.0.1:9/v1")
    assert "budget" in run(*asked, *at, code=101)
    run("doctor", "--db", DB)
    assert len(plain_store.create("here").sessions().rows) >= 4
    run("forget", failed["session"], "--yes", "--db", DB)
    run("exec", "nobody", "--db", DB, code=1)


def test_no_command_is_left_out():
    """Those that take no database are named here; the others are run above."""
    without = {"config", "trust"}
    above = {"list", "show", "diff", "replay", "verify", "spend", "why", "audit", "scan", "backtest", "whatif", "check", "images", "view",
             "prompts", "export", "import", "demo", "run", "resume", "fork", "doctor", "forget", "exec"}  # fmt: skip
    assert above | without == {*COMMANDS}


def agent(store, **settings):
    return AutoCoderAgent(model=ScriptedModel(ANSWERS), sandbox=FakeSandbox(), store=store, **settings)


def test_budgets_of_a_session_a_label_and_the_store_are_kept():
    store = plain_store.create("here")
    first = agent(store).generate("Add two numbers.", tags=["nightly"])
    assert first.succeeded
    spent = sum(row["input_tokens"] + row["output_tokens"] for row in store.sessions().rows)
    for settings in (
        {"max_tokens": 10},
        {"limits": (Limit("tag:nightly", tokens=spent + 10),)},
        {"limits": (Limit("database", tokens=spent + 10),)},
    ):
        done = agent(store, **settings).generate("Add two numbers.", tags=["nightly"])
        assert done.status == "suspended"
        assert "budget" in done.reason
    assert agent(store, limits=(Limit("tag:weekly", tokens=10**6),)).generate("Add.", tags=["weekly"]).succeeded


def test_every_function_of_the_api(run, tmp_path):
    session = recorded(run)
    store = plain_store.create("here")
    at = {"store": DB}
    made = api.run("Add two numbers.", agent(DB))
    assert made.succeeded
    assert {one.session for one in api.sessions(**at)} == {session, made.session}
    assert api.open_tape(session, **at).result.succeeded
    assert api.replay(session, **at).derived > 30
    assert api.diff(session, made.session, **at).parting is not None
    assert [one.session for one in api.whatif(session, changes={"max_iterations": 3}, **at)] == [session]
    assert [changed.kind for changed in api.backtest_rules(session, **at)] == ["Succeeded run"]
    assert api.backtest_limits(session, max_iterations=[1], **at)
    assert api.spend(**at).total.calls == len(list(api.calls(where=codetape.Filter(forks=True), **at)))
    assert api.why(session, **at).chain
    assert api.audit(session, **at).sound
    assert "def test" in api.pytest_file(session, **at)
    assert api.tape_lines(session, **at).events == 51
    assert api.verify(everything=True, **at).sound
    forked = api.fork(made.session, "writing_tests", model=ScriptedModel(ANSWERS), sandbox=FakeSandbox(), **at)
    assert forked.parent == made.session
    report = api.check(
        made.session, prompts="current", changes={"max_logic_attempts": 3}, model=ScriptedModel(ANSWERS),
        sandbox=FakeSandbox(), **at,
    )  # fmt: skip
    assert report.verdict in ("unaffected", "inconclusive")
    (tmp_path / "tasks.jsonl").write_text('{"id": "one", "prompt": "Add two numbers."}\n')
    batch = api.run_tasks(tmp_path / "tasks.jsonl", agent(DB), attempts=2)
    assert [attempt.solved for attempt in batch.attempts] == [True, True]
    assert api.run_tasks(tmp_path / "tasks.jsonl", agent(DB), attempts=2).found == 2
    assert api.import_tapes("demo", **at)[0]["added"] == 0
    assert api.forget(session, **at) > 0
    with pytest.raises(ContentGone):
        api.open_tape(session, **at)
    with pytest.raises(SessionNotFound):
        api.resume("nobody", **at)
    assert store.unsound() == []
