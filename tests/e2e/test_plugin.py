"""The pytest plugin, as its users run it: a pytest of its own over a folder with tapes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.mark.codetape("replays/*.tape.jsonl")
def test_it_stays_within_its_budget(codetape_session):
    assert codetape_session.result.iterations <= 3, codetape_session.task.id
    assert codetape_session.events[-1].hash == codetape_session.head
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "replays").mkdir()
    for name in ("orders", "retail-weeks"):
        shutil.copy(ROOT / "replays" / f"{name}.tape.jsonl", tmp_path / "replays")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
    return tmp_path


def run(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_each_tape_is_a_test_named_by_its_task(folder):
    done = run(folder, "--codetape", "replays/", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "replays/orders.tape.jsonl::orders PASSED" in done.stdout
    assert "replays/retail-weeks.tape.jsonl::retail-weeks PASSED" in done.stdout


def test_without_the_option_no_tape_is_collected(folder):
    assert run(folder, "replays/").returncode == 5


def test_a_divergence_is_a_readable_failure(folder):
    from codetape.eventlog.events import Decided
    from codetape.playback import tape_file
    from codetape.ports import Stream
    from tests.integration.test_replay import rehashed

    path = folder / "replays" / "orders.tape.jsonl"
    found = tape_file.load(str(path))
    at = next(e.seq for e in found.stream.events if isinstance(e.payload, Decided))

    def forge(event):
        if event.seq != at:
            return event.payload
        return event.payload.model_copy(update={"ledger": {**event.payload.ledger, "iteration": 7}})

    changed = rehashed(found.stream, forge)
    path.write_text("".join(tape_file.write(found.session, Stream(changed.events, changed.texts))))
    done = run(folder, "--codetape", "replays/")
    assert done.returncode == 1
    assert f"orders.tape.jsonl diverges at seq {at}, layer decision" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_bad_tape_is_a_failure_and_not_an_error_of_the_collection(folder):
    (folder / "replays" / "bad.tape.jsonl").write_text("hello\n")
    done = run(folder, "--codetape", "replays/", "-v")
    assert done.returncode == 1
    assert "bad.tape.jsonl::bad FAILED" in done.stdout
    assert "line 1: no JSON" in done.stdout


def test_the_fixture_gives_each_tape_that_the_marker_names(folder):
    (folder / "test_budget.py").write_text(TESTS)
    done = run(folder, "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_it_stays_within_its_budget[orders] PASSED" in done.stdout
    assert "test_it_stays_within_its_budget[retail-weeks] PASSED" in done.stdout


def test_the_fixture_without_its_marker_says_what_is_missing(folder):
    (folder / "test_x.py").write_text("def test_x(codetape_session):\n    pass\n")
    assert "without @pytest.mark.codetape" in run(folder).stdout
    (folder / "test_x.py").write_text(TESTS.replace("*.tape", "none*.tape"))
    assert "no tape below" in run(folder).stdout


def test_the_plugin_loads_nothing_of_codetape_before_a_tape_is_met():
    code = "import sys, codetape.pytest_plugin; print(sorted(m for m in sys.modules if m.startswith(('codetape.', 'pydantic', 'openai'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['codetape.pytest_plugin']"
