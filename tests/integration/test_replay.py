"""Replays: identical for what was recorded, and a divergence at the first seq and in the right layer for what was changed."""

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from codetape.domain.job import OTHER, USUAL
from codetape.errors import Divergence
from codetape.eventlog.envelope import encode
from codetape.eventlog.events import Blobs, Decided
from codetape.playback import tape_file
from codetape.playback.strict_replay import replay
from codetape.ports import Stream
from tests.property.test_machine import live, worlds

ROOT = Path(__file__).parents[2]
TAPES = sorted((ROOT / "replays").glob("*.tape.jsonl"))


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*_args, **_more):
        raise AssertionError("a replay opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("path", TAPES, ids=lambda p: p.name)
def test_every_shipped_tape_replays_identically_without_a_network(path, no_sockets):
    found = tape_file.load(str(path))
    done = replay(found.stream)
    assert done.run == found.run
    assert done.derived > 5


@given(worlds)
def test_every_session_replays_identically(drawn):
    _, stream, *_ = live(*drawn)
    assert replay(stream).run.head == stream.events[-1].hash


@given(worlds)
def test_a_session_that_was_resumed_replays_identically(drawn):
    result, _, _, store, agent = live(*drawn, 2)
    if result.status == "suspended":
        asyncio.run(agent.aresume("s"))
    elif "iterations" in result.reason:
        asyncio.run(agent.aresume("s", changes={"max_iterations": 4}))
    replay(asyncio.run(store.read("s")))


def rehashed(stream, change):
    """Forge events in a chain that is hashed again."""
    events, head = [], "0" * 64
    for event in stream.events:
        payload = change(event)
        events.append(encode(event.session, event.seq, event.at, payload, head))
        head = events[-1].hash
    return Stream(tuple(events), stream.texts)


def test_a_forged_decision_in_a_chain_hashed_anew_is_found():
    stream = tape_file.load("demo").stream
    target = next(e for e in stream.events if isinstance(e.payload, Decided) and e.payload.about == "run")

    def forge(event):
        if event.seq != target.seq:
            return event.payload
        return event.payload.model_copy(update={"ledger": {**event.payload.ledger, "iteration": 7}})

    with pytest.raises(Divergence) as caught:
        replay(rehashed(stream, forge))
    assert (caught.value.seq, caught.value.layer) == (target.seq, "decision")
    assert "iteration" in str(caught.value)


def test_a_changed_prompt_is_found_at_its_first_request_and_shown():
    stream = tape_file.load("demo").stream
    texts = Blobs(stream.texts)
    pack = dict(stream.events[0].payload.pack)
    pack["diagnose.md"] = texts.put(stream.texts[pack["diagnose.md"]].replace("# What to do", "# What you must do"))

    def change(event):
        return event.payload.model_copy(update={"pack": pack}) if event.seq == 0 else event.payload

    with pytest.raises(Divergence) as caught:
        replay(Stream(rehashed(stream, change).events, texts))
    first = next(e.seq for e in stream.events if e.kind == "Requested" and e.payload.purpose == "diagnose")
    assert (caught.value.seq, caught.value.layer) == (first, "fingerprint")
    assert "+# What you must do" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_logic_attempts", 9),
        ("parameters", {"temperature": 1}),
        ("model", "openai:other"),
        ("max_output_tokens", 999),
    ],
)
def test_a_changed_configuration_is_found(field, value):
    stream = tape_file.load("demo").stream
    texts = Blobs(stream.texts)
    config = json.loads(stream.texts[stream.events[0].payload.config])
    ref = texts.put(json.dumps({**config, field: value}))

    def change(event):
        return event.payload.model_copy(update={"config": ref}) if event.seq == 0 else event.payload

    changed = Stream(rehashed(stream, change).events, texts)
    if field == "max_logic_attempts":
        replay(changed)  # nothing in this run depended on it
        return
    with pytest.raises(Divergence) as caught:
        replay(changed)
    assert (caught.value.seq, caught.value.layer) == (2, "fingerprint")


def test_a_log_that_ends_before_its_session_is_unfinished_wherever_it_ends():
    stream = tape_file.load("demo").stream
    for cut in range(1, len(stream.events)):
        assert replay(replace(stream, events=stream.events[:cut])).unfinished
    assert not replay(stream).unfinished


def test_a_changed_order_is_found_and_said():
    """The requests for tests and for code exchanged: the first of them is found, and where its request is on the tape."""
    stream = tape_file.load("demo").stream
    asked = {e.payload.purpose: e for e in reversed(stream.events) if e.kind == "Requested"}
    code, tests = asked["code"], asked["tests"]

    def exchange(event):
        other = {code.seq: tests, tests.seq: code}.get(event.seq)
        return event.payload if other is None else other.payload.model_copy(update={"call": event.payload.call})

    with pytest.raises(Divergence) as caught:
        replay(rehashed(stream, exchange))
    assert (caught.value.seq, caught.value.layer) == (min(code.seq, tests.seq), "purpose")


def test_a_request_that_is_made_elsewhere_says_where():
    stream = tape_file.load("demo").stream
    codes = [e for e in stream.events if e.kind == "Requested" and e.payload.purpose == "code"]

    def exchange(event):
        other = {codes[0].seq: codes[1], codes[1].seq: codes[0]}.get(event.seq)
        return event.payload if other is None else other.payload.model_copy(update={"call": event.payload.call})

    with pytest.raises(Divergence) as caught:
        replay(rehashed(stream, exchange))
    assert (caught.value.seq, caught.value.layer) == (codes[0].seq, "fingerprint")
    assert f"at seq {codes[1].seq}: the order differs" in str(caught.value)


def of_other_versions(stream, **changes):
    def change(event):
        if event.seq:
            return event.payload
        versions = event.payload.versions.model_copy(update=changes)
        return event.payload.model_copy(update={"versions": versions})

    return rehashed(stream, change)


def forged_iteration(stream):
    target = next(e for e in stream.events if isinstance(e.payload, Decided) and e.payload.about == "run")

    def forge(event):
        if event.seq != target.seq:
            return event.payload
        return event.payload.model_copy(update={"ledger": {**event.payload.ledger, "from_plan": True}})

    return rehashed(stream, forge), target.seq


@pytest.mark.parametrize(
    "version", [{"rules": 0}, {"machine": 0}, {"host_python": "3.8"}, {"templates": "minijinja 0"}]
)
def test_what_other_versions_decide_is_drift_and_the_replay_follows_the_tape(version):
    changed, seq = forged_iteration(tape_file.load("demo").stream)
    done = replay(of_other_versions(changed, **version))
    assert done.drift[0].seq == seq
    assert done.drift[0].layer == "decision"
    with pytest.raises(Divergence, match="Why: .* there, .* here") as caught:
        replay(of_other_versions(changed, **version), rules="current")
    assert caught.value.seq == seq


def test_another_engine_of_the_same_rules_does_not_drift():
    changed, seq = forged_iteration(tape_file.load("demo").stream)
    with pytest.raises(Divergence, match="engine 9 there") as caught:
        replay(of_other_versions(changed, engine="9"))
    assert caught.value.seq == seq


def test_a_changed_rule_of_the_same_version_is_a_divergence(monkeypatch):
    from codetape.rules import classify

    monkeypatch.setattr(classify, "_MASKS", ())  # literals are part of a failure's signature from now on
    with pytest.raises(Divergence) as caught:
        replay(tape_file.load("demo").stream)
    assert caught.value.layer == "decision"


def test_other_prompts_are_a_question_that_one_asks(tmp_path):
    import codetape
    from codetape.runtime.prompt_pack_files import load_pack

    with pytest.raises(Divergence, match="Why: another prompt pack") as caught:
        codetape.replay("demo", prompts="current")  # the tape is older than the present prompts
    assert caught.value.seq == 2
    started = tape_file.load("demo").stream
    pack = {name: started.texts[ref] for name, ref in started.events[0].payload.pack.items()}
    assert set(pack) == set(load_pack())
    for name, text in pack.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert codetape.replay("demo", prompts=tmp_path).derived > 30
    (tmp_path / "diagnose.md").write_text(pack["diagnose.md"] + "\nBe brief.\n")
    with pytest.raises(Divergence, match=r"Why: another prompt pack \(diagnose.md\)") as caught:
        codetape.replay("demo", prompts=tmp_path)
    stream = codetape.open_tape("demo").stream
    assert caught.value.seq == next(
        e.seq for e in stream.events if e.kind == "Requested" and e.payload.purpose == "diagnose"
    )


# ---- executed again


def reruns(change=None, build=None, pin=False):
    """Run the demo's builds and executions again in a sandbox that says what was recorded, but for a change."""
    from codetape.domain.report import Report
    from codetape.playback.reexecute import rerun
    from codetape.ports import Built
    from codetape.testing import FakeSandbox

    found = tape_file.load("demo")
    calls = tape_file.recorded_calls(found.stream)
    reports = {
        c.request.fingerprint: found.stream.texts[c.outcome.report] for c in calls if c.request.effect == "execute"
    }
    lock = next(found.stream.texts[c.outcome.lock] for c in calls if c.request.effect == "build")
    count = [0]

    def execute(job):
        count[0] += 1
        usual = job.model_copy(update={"conditions": USUAL})  # what passed runs under others too
        report = Report.model_validate_json(next(iter(reports.values())) if pin else reports[usual.fingerprint])
        return change(report, count[0]) if change and job.purpose == "run" else report

    sandbox = FakeSandbox(execute, build or (lambda spec: Built(spec.name, lock, cached=True)))

    async def collected():
        return [one async for one in rerun(found.stream, sandbox, pin=pin)]

    return asyncio.run(collected()), sandbox


def test_what_passes_only_under_the_usual_conditions_is_named():
    calls = []

    def change(report, _number):
        calls.append(report)
        passed_twice = [r for r in calls if r.exit == "ok"]
        return report.model_copy(update={"exit": "tests_failed"}) if len(passed_twice) == 2 else report

    done, sandbox = reruns(change)
    assert [one.label for one in done if one.label] == ["nondeterministic"]
    assert "another hash seed" in next(one.purpose for one in done if one.label)
    assert [job.conditions for job in sandbox.jobs].count(OTHER) == 1


def test_what_comes_out_the_same_again_differs_in_nothing():
    done, sandbox = reruns()
    assert [one.label for one in done] == [""] * len(done)
    elsewhere = "run, under another hash seed, time zone, folder and order,"
    assert [one.purpose for one in done] == ["build", "vet", "run", "run", "run", "run", elsewhere]


def flipped(report, nth):
    first = report.tests[0]
    other = first.model_copy(update={"outcome": "failed" if first.outcome == "passed" else "passed"})
    return report.model_copy(update={"tests": (other, *report.tests[1:])})


def test_another_outcome_that_stays_is_drift():
    done, _ = reruns(flipped)
    changed = [one for one in done if one.purpose == "run"]
    assert {one.label for one in changed} == {"drift"}
    assert "recorded" in changed[0].differences[0]


def test_an_outcome_that_changes_from_run_to_run_is_nondeterministic():
    done, _ = reruns(lambda report, nth: flipped(report, nth) if nth % 2 == 0 else report)
    assert {one.label for one in done if one.differences} == {"nondeterministic"}


def test_wording_alone_is_no_difference_of_structure():
    done, _ = reruns(lambda report, nth: report.model_copy(update={"stdout": "another word"}))
    runs = [one for one in done if one.purpose == "run"]
    assert all(not one.differences and one.texts == ("stdout",) for one in runs)
    done, _ = reruns(lambda report, nth: report.model_copy(update={"stdout": report.stdout + " in 0.12s"}))
    assert all("stdout" in one.texts for one in done if one.purpose == "run")


def test_packages_that_differ_from_the_lock_are_named_and_pin_installs_the_recorded():
    from codetape.ports import Built

    def newer(spec):
        return Built(spec.name, "pytest==99.0 --hash=sha256:0", cached=False)

    done, _ = reruns(build=newer)
    assert done[0].label == "drift"
    assert any(d.startswith("pytest: ") and "99.0 now" in d for d in done[0].differences)
    _, sandbox = reruns(pin=True)
    assert all("==" in name for name in sandbox.specs[0].packages)
    assert sandbox.jobs[0].spec == sandbox.specs[0]
