"""What one does with recorded sessions on the command line: replay, resume, verify, export, import, list, show."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.e2e.test_cli import ROOT
from tests.helpers.forked import codetape

REPLAYS = ROOT / "replays"


def session_of(name):
    return json.loads((REPLAYS / f"{name}.tape.jsonl").read_text().splitlines()[0])["session"]


@pytest.fixture
def db(tmp_path):
    done = codetape("import", *map(str, sorted(REPLAYS.glob("*.tape.jsonl"))), "--db", "x.db")
    assert done.returncode == 0, done.stderr
    return "x.db"


def test_a_tape_comes_out_as_it_went_in(db):
    session = session_of("orders")
    done = codetape("export", session[:8], "-o", "out.tape.jsonl", "--db", db, "--json")
    assert json.loads(done.stdout)["session"] == session
    assert Path("out.tape.jsonl").read_bytes() == (REPLAYS / "orders.tape.jsonl").read_bytes()
    assert codetape("export", session, "-o", "-", "--db", db).stdout == (REPLAYS / "orders.tape.jsonl").read_text()
    again = codetape("import", "out.tape.jsonl", "--db", db, "--json")
    assert json.loads(again.stdout)["imported"][0]["added"] == 0


def test_one_bad_tape_among_good_ones_and_nothing_is_imported():
    shutil.copy(REPLAYS / "orders.tape.jsonl", "good.tape.jsonl")
    Path("bad.tape.jsonl").write_text(Path("good.tape.jsonl").read_text()[:-100])
    done = codetape("import", "good.tape.jsonl", "bad.tape.jsonl", "--db", "y.db")
    assert done.returncode == 1
    assert "bad.tape.jsonl, line" in done.stderr
    assert not Path("y.db").exists()


def test_everything_imported_is_sound_and_a_change_is_found(db):
    done = codetape("verify", "--all", "--db", db, "--json")
    value = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert all(one["sound"] for one in value["verified"])
    assert len(value["verified"]) == 6
    other = sqlite3.connect(db)
    other.execute("DROP TRIGGER events_update")
    other.execute("UPDATE events SET at = '2020-01-01T00:00:00Z' WHERE seq = 7")
    other.commit()
    other.close()
    done = codetape("verify", "--all", "--db", db)
    assert done.returncode == 1
    assert done.stderr.count(":7 (") == 6
    shown = codetape("show", "last", "--events", "--db", db)
    assert shown.returncode == 0
    assert ":7 was edited" in shown.stderr
    assert len(shown.stdout.splitlines()) >= 7
    assert codetape("list", "--db", db).returncode == 0


def test_a_head_that_was_kept_tells_a_tail_that_was_cut(db):
    session = session_of("orders")
    head = json.loads((REPLAYS / "orders.tape.jsonl").read_text().splitlines()[21])["event"]["hash"]
    assert codetape("verify", session, "--head", head, "--db", db).returncode == 0
    other = sqlite3.connect(db)
    (trigger,) = other.execute("SELECT sql FROM sqlite_master WHERE name = 'events_delete'").fetchone()
    other.execute("DROP TRIGGER events_delete")
    other.execute("DELETE FROM events WHERE session = ? AND seq > 17", (session,))
    other.execute(trigger)
    other.commit()
    other.close()
    assert "codetape list" in codetape("verify", session, "--db", db).stderr  # the list still says how long it was
    codetape("verify", "--all", "--rebuild", "--db", db)  # whoever cuts a tail can do that too
    assert codetape("verify", session, "--db", db).returncode == 0
    done = codetape("verify", session, "--head", head, "--db", db)
    assert done.returncode == 1
    assert "tail was cut" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("verify",), 2, "--all"),
        (("verify", "--all", "--head", "abc"), 2, "--head"),
        (("verify", "demo", "--head", "xyz"), 2, "no hash"),
        (("verify", "nowhere", "--db", "x.db"), 2, "no database"),
        (("import", "nowhere.tape.jsonl"), 2, "cannot be read"),
        (("replay", "nowhere.tape.jsonl"), 2, "no tape"),
        (("replay", "demo", "--pin"), 2, "--sandbox live"),
        (("replay", "demo", "--prompts", "nowhere"), 2, "no prompt pack"),
        (("replay", "demo", "--sandbox", "other"), 2, "live"),
    ],
)
def test_bad_input_gets_one_line(words, code, said):
    done = codetape(*words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_another_model_or_pack_is_a_fork(db):
    for words in (("--model", "openai:other"), ("--prompts", "mine")):
        done = codetape("resume", "last", *words, "--db", db)
        assert done.returncode == 2
        assert "it is a fork" in done.stderr
    assert "fork" not in codetape("resume", "last", "--db", db, env={"CODETAPE_MODEL": "openai:other"}).stderr


def test_a_session_that_has_ended_says_so(db):
    session = session_of("orders")
    assert "nothing to resume" in codetape("resume", session, "--db", db).stderr
    failed = session_of("tills-of-three-makes")
    assert "(--max-iterations) above 3" in codetape("resume", failed, "--db", db).stderr


@pytest.mark.sandbox
def test_a_shipped_tape_executed_again_is_the_same(bubblewrap):
    tapes = [str(REPLAYS / f"{name}.tape.jsonl") for name in ("demo", "orders")]
    # with the recorded versions: the newest ones of today are others one day
    done = codetape("replay", *tapes, "--sandbox", "live", "--pin", "--json")
    value = json.loads(done.stdout)["replays"]
    assert done.returncode == 0, done.stdout
    elsewhere = "run, under another hash seed, time zone, folder and order,"
    assert [one["purpose"] for one in value[0]["executed"]] == ["build", "vet", "run", "run", "run", "run", elsewhere]
    assert all(not one["differences"] for one in value[0]["executed"] + value[1]["executed"])


def test_from_python():
    import codetape as api
    from codetape.errors import UsageError

    tape = api.open_tape(REPLAYS / "orders.tape.jsonl")
    assert tape.result.succeeded
    assert tape.task.id == "orders"
    assert api.replay(tape).run.head == tape.head
    with pytest.raises(UsageError, match="no tape"):
        api.open_tape("nowhere.tape.jsonl")


def test_resume_from_python():
    import codetape as api
    from codetape.errors import UsageError
    from tests.support import ADD, ADD_TESTS, SUBTRACT, HostSandbox, generate, plan

    answers = {
        "plan": [plan()],
        "code": [SUBTRACT],
        "tests": [ADD_TESTS],
        "second_opinion": ['{"opinions": []}'],
        "diagnose": ["{"],
    }
    failed, model = generate(answers, store="y.db", max_iterations=1)
    assert failed.status == "failed"
    model._answers["code"] = [ADD]
    with pytest.raises(UsageError, match="above 1"):
        api.resume(failed.session, store="y.db", model=model, sandbox=HostSandbox())
    again = api.resume("last", store="y.db", model=model, sandbox=HostSandbox(), max_iterations=3)
    assert again.succeeded
    with pytest.raises(UsageError, match="nothing to resume"):
        api.resume("last", store="y.db", model=model, sandbox=HostSandbox())
