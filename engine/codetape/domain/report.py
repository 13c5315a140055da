"""What a sandbox reports of one execution, and the environment that it ran in."""

from typing import ClassVar, Literal

from codetape.domain.canonical import FrozenModel, Hash

Exit = Literal["ok", "tests_failed", "collection_error", "timeout", "oom", "pids", "output_cap", "killed"]


class Frame(FrozenModel):
    """One frame of a traceback in the job's own files: file and line."""

    file: str
    line: int


class Comparison(FrozenModel):
    """The last comparison that a failing assertion made, as representations."""

    op: str
    left: str
    right: str


class TestResult(FrozenModel):
    """One test's outcome. ``id`` is pytest's node id; texts are raw, capped by the reporter."""

    __test__: ClassVar[bool] = False

    id: str
    outcome: Literal["passed", "failed", "error", "skipped", "unfinished"]
    exception: str = ""
    message: str = ""
    traceback: str = ""
    frames: tuple[Frame, ...] = ()
    comparison: Comparison | None = None
    parameters: dict[str, str] = {}
    duration_ms: int = 0


class OutputFile(FrozenModel):
    """One file that the job left under /var/outputs."""

    path: str
    size: int
    sha256: Hash


class Report(FrozenModel):
    """The outcome of one execution: structure first, texts beside it.

    ``whole`` is true when the reporter listed what it collected, ended every test and finished pytest's session:
    an exit code of 0 without it is a failure.
    """

    exit: Exit
    whole: bool
    exit_code: int | None = None
    collected: tuple[str, ...] = ()
    tests: tuple[TestResult, ...] = ()
    stdout: str = ""
    stderr: str = ""
    outputs: tuple[OutputFile, ...] = ()
    rejected_outputs: tuple[str, ...] = ()
    tree_memory_bounded: bool = False
    duration_ms: int = 0

    def outcome_of(self, test: str) -> str:
        """Return a test's outcome, or "absent"."""
        return next((t.outcome for t in self.tests if t.id == test), "absent")

    @property
    def passed(self) -> tuple[str, ...]:
        """Ids of the tests that passed."""
        return tuple(t.id for t in self.tests if t.outcome == "passed")

    @property
    def failing(self) -> tuple[TestResult, ...]:
        """Tests that neither passed nor were skipped."""
        return tuple(t for t in self.tests if t.outcome not in ("passed", "skipped"))


class Environment(FrozenModel):
    """A built image: its name (the requested spec's hash) and what the build resolved it to."""

    name: str
    lock: str = ""
