"""Secrets put everywhere a secret can be, and looked for in every byte that was written."""

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.report import Frame, Report, TestResult
from codetape.errors import ModelUnavailable
from codetape.eventlog.fold import fold
from codetape.playback import tape_file
from codetape.ports import Reply
from codetape.runtime.redaction import Redactor, find_keys
from codetape.testing import FakeSandbox, passing_report
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.support import ADD, ADD_TESTS, block, generate, opinions, plan

PRINTABLE = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
SECRET = "hunter2/+self-test=9f8e7d6c5b4a"
FORMS = (SECRET.encode(), quote(SECRET, safe="").encode())


def spellings(secret):
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + secret.encode() + b"yy")
        yield encoded[4:-4]


def everything_written(session, store):
    """Return the database's texts unpacked, its raw bytes, the WAL's, and the tape's."""
    import asyncio

    stream = asyncio.run(store.read(session))
    found = [text.encode() for text in stream.texts.values()]
    found += [event.stored_payload.encode() for event in stream.events]
    found += [path.read_bytes() for path in Path().glob("tape.db*")]
    found.append("".join(tape_file.write(session, stream)).encode())
    return found


def leaking(job):
    text = f"token {SECRET} and {base64.b64encode(SECRET.encode()).decode()} and {quote(SECRET, safe='')}"
    if job.purpose == "vet":
        return passing_report(job)
    bad = TestResult(
        id="test_solution.py::test_sum",
        outcome="failed",
        exception="AssertionError",
        message=text,
        traceback=text,
        frames=(Frame(file="solution.py", line=1),),
    )
    return Report(
        exit="tests_failed", whole=True, exit_code=1, collected=(bad.id,), tests=(bad,), stdout=text, stderr=text
    )


def test_a_canary_in_every_place_is_nowhere_on_disk(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    store = SqliteStore("tape.db")
    said = block(f"# {SECRET}\ndef add(a, b):\n    return a - b")
    answers = {
        "plan": [plan(description=SECRET)],
        "code": [said],
        "tests": [ADD_TESTS],
        "second_opinion": [opinions("3")],
        "diagnose": [
            ModelUnavailable(f"401: Incorrect key {SECRET}; Authorization: Bearer abcdefghijklmnop sk-proj-{'a' * 40}")
        ],
    }
    result, model = generate(
        answers,
        f"Use {SECRET} to add.",
        sandbox=FakeSandbox(leaking),
        store=store,
        ask={"constraints": [f"never show {SECRET}"]},
        system_prompt=SECRET,
        env_vars={"X": SECRET},
    )
    assert result.status == "suspended"
    for data in everything_written(result.session, store):
        for form in (*FORMS, *spellings(SECRET), b"abcdefghijklmnop", b"sk-proj-aaaa"):
            assert form not in data
    assert all(SECRET not in m.content for request in model.requests for m in request.messages)
    assert "[redacted:MY_API_KEY]" in result.prompt


def test_the_session_goes_on_with_what_was_written(monkeypatch):
    import asyncio

    monkeypatch.setenv("MY_API_KEY", SECRET)
    store = SqliteStore("tape.db")
    answers = {
        "plan": [plan()],
        "code": [block(f"KEY = '{SECRET}'\n\n\ndef add(a, b):\n    return a + b")],
        "tests": [ADD_TESTS],
    }
    result, _ = generate(answers, store=store)
    assert result.succeeded
    assert "KEY = '[redacted:MY_API_KEY]'" in result.solution.code
    stream = asyncio.run(store.read(result.session))
    monkeypatch.delenv("MY_API_KEY")
    assert fold(stream.events, stream.texts).work.code == result.solution.code


def test_secrets_reach_result_run_and_nothing_else(monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", SECRET)
    sandbox = FakeSandbox()
    result, _ = generate(
        {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}, sandbox=sandbox, secrets=("SHOP_PASSWORD",)
    )
    assert all("SHOP_PASSWORD" not in job.env for job in sandbox.jobs)
    result.run()
    assert sandbox.jobs[-1].env == {"SHOP_PASSWORD": SECRET}
    assert SECRET not in result.model_dump_json()


@given(
    st.text(PRINTABLE, min_size=8, max_size=40).filter(lambda t: t.strip() == t),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_no_spelling_of_a_secret_survives(secret, before, after):
    redactor = Redactor({"A_KEY": secret})
    assert redactor.text(before + secret + after) == redactor.text(before + secret + after)
    assert secret not in redactor.text("-" + secret + "-").replace("[redacted:A_KEY]", "")
    assert quote(secret, safe="") not in redactor.text("-" + quote(secret, safe="") + "-").replace(
        "[redacted:A_KEY]", ""
    )
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret.encode() + b"\0\0").decode()
        assert "[redacted:A_KEY]" in redactor.text(encoded)


def test_records_are_redacted_in_depth():
    redactor = Redactor({"A_KEY": 'quoted"\\secret'})
    report = Report(
        exit="ok",
        whole=True,
        stdout='say quoted"\\secret',
        tests=(TestResult(id="t", outcome="passed", parameters={"x": 'quoted"\\secret'}),),
    )
    text = json.dumps(redactor.model(report).model_dump(mode="json"))
    assert "secret" not in text


@pytest.mark.parametrize(
    "text", ["sk-proj-" + "a1" * 20, "ghp_" + "a1" * 18, "AKIA" + "ABCD" * 4, "-----BEGIN PRIVATE KEY-----"]
)
def test_key_patterns_are_found(text):
    assert find_keys(f"x = '{text}'")
    assert find_keys("def add(a, b): return a + b") == ()


def test_a_key_in_the_script_is_reported_and_left():
    from codetape.cli.summary import as_object

    code = block(f"KEY = 'ghp_{'a1' * 18}'\n\n\ndef add(a, b):\n    return a + b")
    result, _ = generate({"plan": [plan()], "code": [code], "tests": [ADD_TESTS]})
    assert "ghp_" in result.solution.code
    assert as_object(result, 0.0)["keys_seen"] == ["GitHub token"]


def test_short_values_and_paths_are_no_secrets():
    redactor = Redactor.of_environment(
        {"KEYBOARD_KEY": "short", "SSH_AUTH_SOCK": "/usr/bin/env", "A_TOKEN": "longenough1"}
    )
    assert redactor.text("short /usr/bin/env longenough1") == "short /usr/bin/env [redacted:A_TOKEN]"


def test_a_key_echoed_by_a_server_is_cut_from_its_answer(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    result, _ = generate({"plan": [Reply(text=None, refusal=f"your key {SECRET} is odd")]})
    assert SECRET not in result.model_dump_json()
    assert os.environ["OPENAI_API_KEY"] == SECRET
