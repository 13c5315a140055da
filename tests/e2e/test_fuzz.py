"""A short fuzz of what people and strangers hand over, and what longer ones found: `python -m tests.bench.fuzz`."""

import os

import pytest

from tests.bench import fuzz
from tests.helpers.forked import CONTEXT, codetape, started

pytestmark = pytest.mark.slow
ATTEMPTS = {"commands": 2000, "tasks": 100, "settings": 300, "tapes": 200, "databases": 120}


def _fuzzed(kind, seed, attempts, answer):
    answer.put(fuzz.fuzz(kind, seed, attempts=attempts))


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_nothing_that_is_handed_over_ends_in_an_error_of_our_own(kind):
    """In a process of its own: an attempt may close what is the process's."""
    answer = CONTEXT.Queue()
    process = started(_fuzzed, kind, 7, ATTEMPTS[kind], answer)
    count, broken = answer.get(timeout=300)
    process.join()
    assert broken == []
    assert count == ATTEMPTS[kind]


FOUND = {
    "a database that is a pipe": ("list", "--db", "pipe"),
    "a database that is a folder": ("list", "--db", "folder"),
    "a database that is a device": ("show", "last", "--db", "/dev/zero"),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_longer_ones_found_is_a_line_now(name, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    done = codetape(*FOUND[name], timeout=20)
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "codetape's own" not in done.stderr


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (RuntimeError("x"), "codetape's own"),
        (SystemExit(77), "exit code 77"),
        (SystemExit(2), "without a word"),
        (fuzz.Late(), "no end within"),
    ],
)
def test_the_fuzz_sees_what_breaks(monkeypatch, breaks, why):
    """The control: each law, broken on purpose."""
    from codetape.cli.group import cli

    def main(*_, **__):
        raise breaks

    monkeypatch.setattr(cli, "main", main)
    assert why in fuzz.attempt(["list"])
