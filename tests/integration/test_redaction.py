"""Secrets put everywhere a secret can be, and looked for in every byte that was written."""

import base64
import json
import os
import re
import textwrap
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape.domain.report import Frame, Report, TestResult
from codetape.errors import ModelUnavailable, UsageError
from codetape.eventlog.fold import fold
from codetape.playback import tape_file
from codetape.ports import Reply
from codetape.runtime.redaction import Redactor, find_keys, read_patterns
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


# ---- spelled in other ways

PLAIN = "sk-proj-Ab/c+9.d_e~F\"g\\h'iJ"


def spelled(draw, sign):
    code = ord(sign)
    ways = [
        sign,
        f"%{code:02x}",
        f"%{code:02X}",
        f"\\u{code:04x}",
        f"\\u{code:04X}",
        f"\\x{code:02x}",
        f"\\{code:03o}",
        f"\\\\u{code:04x}",
    ]
    return draw(st.sampled_from([*ways, *([f"\\{sign}"] if not sign.isalnum() else [])]))


@st.composite
def other_spellings(draw):
    kind = draw(st.sampled_from(["escaped", "hex", "base64"]))
    if kind == "escaped":
        return "".join(spelled(draw, sign) for sign in PLAIN)
    if kind == "hex":
        gap, text = draw(st.sampled_from(["", " ", ":", "\n", "\r\n  "])), PLAIN.encode().hex()
        return gap.join(text[at : at + 2] for at in range(0, len(text), 2)).upper() if draw(st.booleans()) else text
    before, after = draw(st.binary(max_size=7)), draw(st.binary(max_size=7))
    encode = draw(st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
    text, width = encode(before + PLAIN.encode() + after).decode(), draw(st.integers(4, 76))
    return draw(st.sampled_from(["\n", "\r\n", "\\n", "\n    "])).join(textwrap.wrap(text, width))


@settings(max_examples=200)
@given(other_spellings(), st.text("ab %\\\n", max_size=6), st.text("ab %\\\n", max_size=6))
def test_no_way_to_spell_a_secret_gets_past(spelling, before, after):
    redacted = Redactor({"MY_KEY": PLAIN}).text(f"{before} {spelling} {after}")
    assert "[redacted:MY_KEY]" in redacted
    assert not reads_as_the_secret(redacted)


def reads_as_the_secret(text):
    """Decode what is there in the ways that a reader could."""
    unescaped = re.sub(r"\\+u00(..)|\\+x(..)|%(..)", lambda m: chr(int(next(filter(None, m.groups())), 16)) if re.fullmatch("[0-9a-fA-F]{2}", next(filter(None, m.groups()))) else m[0], text)  # fmt: skip
    dense = "".join(text.split()).replace("\\n", "")
    runs = re.findall(r"[A-Za-z0-9+/_-]{16,}", dense)
    decoded = [base64.b64decode(run[at:].replace("-", "+").replace("_", "/")[: (len(run) - at) // 4 * 4]) for run in runs for at in range(4)]  # fmt: skip
    return PLAIN in text or PLAIN in unescaped or PLAIN.encode().hex() in dense.replace(":", "").lower() or any(PLAIN.encode() in one for one in decoded)  # fmt: skip


@pytest.mark.parametrize("size", range(8, len(PLAIN)))
def test_a_secret_that_a_cut_goes_through_is_gone_on_both_sides(size):
    redactor = Redactor({"MY_KEY": PLAIN})
    assert redactor.text(f"key: {PLAIN[:size]}") == "key: [redacted:MY_KEY]"
    assert redactor.text(f"{PLAIN[-size:]} and more") == "[redacted:MY_KEY] and more"


def test_what_a_reply_spells_out_is_redacted_when_it_is_read():
    """JSON's own escapes: the plan that is read from the reply holds no key."""
    escaped = "".join(f"\\u{ord(sign):04x}" for sign in PLAIN)
    redacted = Redactor({"MY_KEY": PLAIN}).text(f'{{"description": "{escaped}"}}')
    assert json.loads(redacted) == {"description": "[redacted:MY_KEY]"}


def test_looking_for_spellings_takes_little_where_there_are_none():
    redactor = Redactor({f"KEY_{n}": f"{PLAIN}{n:04}" for n in range(20)})
    text = ("def f(x):\n    return x % 7, '\\n', 'aGVsbG8gd29ybGQ='\n" * 40_000)[: 2 << 20]
    begun = time.process_time()
    assert redactor.text(text) == text
    assert time.process_time() - begun < 20


@pytest.mark.parametrize("pattern", ["(a+)+$", r"(\w+\s*)+=", "(a|a)*b", r"\s*\s*\s*\s*x", "(x+x+)+y"])
def test_no_pattern_of_a_users_hangs(pattern):
    """Python's own engine would take longer than a life for most of these; this test would not end."""
    redactor = Redactor(patterns=read_patterns({"mine": pattern}))
    text = "a" * 100_000 + " " * 50_000 + "x" * 100_000 + "!"
    assert redactor.text(text)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", "[z-a]", "a{5000}", "", "a*"])
def test_a_pattern_that_cannot_be_is_refused_in_a_line(pattern):
    with pytest.raises(UsageError, match="The pattern mine ") as refused:
        read_patterns({"mine": pattern})
    assert "\n" not in str(refused.value)
