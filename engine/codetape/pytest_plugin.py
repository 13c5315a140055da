"""Tapes as tests: ``pytest --codetape replays/`` replays every tape strictly; `codetape_session` is for your own
assertions.

    @pytest.mark.codetape("replays/*.tape.jsonl")
    def test_it_stays_cheap(codetape_session):
        assert codetape_session.result.total_output_tokens < 10_000

Loaded by every pytest of its environment, so it imports nothing of codetape until a tape is met.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from codetape.api import RecordedSession

_SUFFIX = ".tape.jsonl"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --codetape."""
    group = parser.getgroup("codetape")
    group.addoption("--codetape", action="store_true", help=f"Collect *{_SUFFIX} files, and replay each strictly.")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "codetape(*patterns): run the test once a tape that matches, below the root folder, as codetape_session.",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a tape where --codetape is given."""
    if file_path.name.endswith(_SUFFIX) and parent.config.getoption("--codetape"):
        return TapeFile.from_parent(parent, path=file_path)
    return None


class TapeFile(pytest.File):
    """A tape: one test, named by its task."""

    def collect(self) -> Iterable[pytest.Item]:
        """Give the one test."""
        yield TapeItem.from_parent(self, name=_task(self.path))


class TapeItem(pytest.Item):
    """The strict replay of one tape."""

    def runtest(self) -> None:
        """Replay it. Raises Divergence or CorruptTape."""
        from codetape.api import replay

        replay(self.path)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what differs, without a traceback."""
        from codetape.errors import CodetapeError, Divergence
        from codetape.text.escape import safe

        error = excinfo.value
        if isinstance(error, Divergence):
            return safe(f"{self.path.name} diverges at seq {error.seq}, layer {error.layer}\n{error.message}")
        if isinstance(error, CodetapeError):
            return safe(str(error))
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Say where the test is, and what it is called."""
        return self.path, None, f"replay: {self.name}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a marked test each tape that its patterns match."""
    if "codetape_session" not in metafunc.fixturenames:
        return
    root = metafunc.config.rootpath
    patterns = [p for mark in metafunc.definition.iter_markers("codetape") for p in mark.args]
    if not patterns:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} uses codetape_session without @pytest.mark.codetape(PATTERN, ...)."
        )
    if wrong := [p for p in patterns if not isinstance(p, str) or not p or Path(p).is_absolute()]:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {wrong[0]!r} is no pattern below the root folder.")
    tapes = sorted({path for pattern in patterns for path in root.glob(pattern)})
    if not tapes:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: no tape below {root} matches {', '.join(patterns)}.")
    metafunc.parametrize("codetape_session", tapes, ids=[p.name.removesuffix(_SUFFIX) for p in tapes], indirect=True)


@pytest.fixture
def codetape_session(request: pytest.FixtureRequest) -> RecordedSession:
    """A recorded session: its events, state and result, checked."""
    from codetape.api import open_tape
    from codetape.errors import CodetapeError
    from codetape.text.escape import safe

    try:
        return open_tape(request.param)
    except CodetapeError as error:
        pytest.fail(safe(str(error)), pytrace=False)


def _task(path: Path) -> str:
    """Return the task's name, from the tape's second line; the file's where that cannot be read."""
    try:
        with path.open(encoding="utf-8") as lines:
            lines.readline(1 << 20)
            name = json.loads(lines.readline(1 << 20))["event"]["payload"]["task_id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        name = path.name.removesuffix(_SUFFIX)
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in str(name)[:80])
