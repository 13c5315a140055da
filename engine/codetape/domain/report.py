"""What a sandbox reports of one execution, and the environment that it ran in."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codetape.domain.frozen_model import Count, FrozenModel, Hash

IDLE = ("skipped", "xfailed", "xpassed")
"""Outcomes that say nothing for the code and nothing against it."""
Exit = Literal["ok", "tests_failed", "collection_error", "timeout", "oom", "pids", "output_cap", "killed"]


class Frame(FrozenModel):
    """One frame of a traceback in the job's own files: file and line."""

    file: str
    line: Count


class Comparison(FrozenModel):
    """The last comparison that a failing assertion made, as representations."""

    op: str
    left: str
    right: str


class TestResult(FrozenModel):
    """One test's outcome, as pytest says it. ``id`` is its node id; texts are raw, capped by the reporter.

    A file that was skipped whole is a result under the file's name; ``message`` says why.
    """

    __test__: ClassVar[bool] = False

    id: str
    outcome: Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed", "unfinished"]
    exception: str = ""
    message: str = ""
    traceback: str = ""
    frames: tuple[Frame, ...] = ()
    comparison: Comparison | None = None
    parameters: dict[str, str] = {}
    duration_ms: Count = 0


class Evaluated(FrozenModel):
    """What the code gave for one blind claim, as data: see `codetape.rules.blind`.

    ``values`` are JSON texts, one an expression; ``raised`` names an exception in their place, its own name first and
    those of the built-in ones that it is. ``turn`` counts evaluations of the same claim under other hash seeds.
    """

    number: Count
    turn: Count = 0
    values: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()
    message: str = ""


class MutantRun(FrozenModel):
    """What became of one mutant: whether it ended by itself, and the claims for which it gave other values."""

    number: Count
    ended: bool
    differing: tuple[Evaluated, ...] = ()


class OutputFile(FrozenModel):
    """One file that the job left under /var/outputs."""

    path: str
    size: Count
    sha256: Hash


class Report(FrozenModel):
    """The outcome of one execution: structure first, texts beside it.

    ``whole`` is true when the reporter listed what it collected, ended every test and finished pytest's session:
    an exit code of 0 without it is a failure. ``warnings`` are pytest's own, on what it did not collect.
    """

    exit: Exit
    whole: bool
    exit_code: Annotated[int, Field(strict=True, ge=-(2**31), le=2**31)] | None = None
    collected: tuple[str, ...] = ()
    tests: tuple[TestResult, ...] = ()
    stdout: str = ""
    stderr: str = ""
    outputs: tuple[OutputFile, ...] = ()
    rejected_outputs: tuple[str, ...] = ()
    tree_memory_bounded: bool = False
    duration_ms: Count = 0
    evaluated: Annotated[tuple[Evaluated, ...], Field(exclude_if=lambda value: not value)] = ()
    mutants: Annotated[tuple[MutantRun, ...], Field(exclude_if=lambda value: not value)] = ()
    warnings: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()

    def outcome_of(self, test: str) -> str:
        """Return a test's outcome, or "absent"."""
        return next((t.outcome for t in self.tests if t.id == test), "absent")

    @property
    def passed(self) -> tuple[str, ...]:
        """Ids of the tests that passed."""
        return tuple(t.id for t in self.tests if t.outcome == "passed")

    @property
    def failing(self) -> tuple[TestResult, ...]:
        """Tests that failed, or did not end."""
        return tuple(t for t in self.tests if t.outcome not in ("passed", *IDLE))


class Environment(FrozenModel):
    """A built image: its name (the requested spec's hash) and what the build resolved it to."""

    name: str
    lock: str = ""
