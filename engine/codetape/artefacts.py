"""What a run works with and what it makes: the task, its configuration, plan, code, reports, findings.

Plain frozen values. The field names that `docs/reference/names.md` lists as the seed's stay as they are.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from codetape.canonical import Frozen, Hash

ErrorType = Literal["environment", "logic", "test_error"]
InputType = Literal["str", "int", "float", "bool", "file", "directory"]
OutputType = Literal["str", "int", "float", "bool", "file", "directory", "datetime", "timedelta"]
Confidence = Literal["oracle", "anchored", "self_tested", "disputed", "untested"]
Exit = Literal["ok", "tests_failed", "collection_error", "timeout", "oom", "pids", "output_cap", "killed"]
Purpose = Literal[
    "plan",
    "code",
    "packages",
    "tests",
    "diagnose",
    "verify_code",
    "second_opinion",
    "fix_tests",
    "verify_tests",
    "replace_package",
]
JobPurpose = Literal["vet", "run", "oracle", "script"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
"""The name of an input or output: it becomes a flag, and a file's name. Checked again here, for a tape may come from anywhere."""
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.\d{1,2}$")]

SOLUTION_FILE = "solution.py"
TEST_FILE = "test_solution.py"
ANCHOR_FILE = "test_anchors.py"
USER_FILE = "test_user.py"
OUTPUT_FILE = "test_outputs.py"
ORACLE_FILE = "test_oracle.py"


# ---- the task and its configuration: pinned by SessionStarted


class Sample(Frozen):
    """A file or folder given as an example of an input: its head for prompts, its hash for the tape."""

    path: str
    sha256: Hash
    size: int
    head: str


class Input(Frozen):
    """A declared input: a command-line flag of the script. A scalar may have a sample value."""

    name: Name
    type: InputType
    value: str | None = None
    sample: Sample | None = None


class Output(Frozen):
    """A declared output: one file of that name under /var/outputs."""

    name: Name
    type: OutputType


class Task(Frozen):
    """What was asked for."""

    id: str
    prompt: str
    data_schema: str = ""
    constraints: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    tests: str = ""
    oracle: str = ""
    tags: tuple[str, ...] = ()


class Resources(Frozen):
    """Limits of one execution. They bind the whole process tree where cgroups can be had."""

    cpus: str = Field(default="1", pattern=r"^\d{1,4}(\.\d{1,4})?$")
    memory_mb: int = Field(default=1024, ge=64, le=1 << 20)
    wall_seconds: int = Field(default=120, ge=1, le=86400)
    processes: int = Field(default=128, ge=8, le=32768)
    disk_mb: int = Field(default=256, ge=1, le=1 << 20)
    output_kb: int = Field(default=1024, ge=16, le=1 << 20)


class SandboxFacts(Frozen):
    """What a sandbox is: stated to the model, and part of what decisions depend on."""

    name: str
    python: str
    system_packages: bool = False
    commands: bool = False
    tree_memory_bounded: bool = False
    network: bool = False
    base: str = ""
    why: str = ""


class Config(Frozen):
    """Everything that decisions depend on beside the task, with every default resolved.

    ``server`` is where the model is reached, without name and password: empty for the provider's own address, None where it is
    not known.
    """

    model: str
    server: str | None = None
    name: str = "auto-coder"
    system_prompt: str = ""
    base_packages: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    resources: Resources = Resources()
    python_version: PythonVersion = "3.11"
    max_iterations: int = Field(default=10, ge=1)
    max_logic_attempts: int = Field(default=1, ge=0)
    max_test_attempts: int = Field(default=1, ge=0)
    skip_tests: bool = False
    env_vars: dict[str, str] = Field(default={}, max_length=1000)
    parameters: dict[str, Any] = {}
    max_output_tokens: int = Field(default=16384, ge=256)
    package_policy: Literal["known", "allow", "allowlist"] = "known"
    allowlist: tuple[str, ...] = ()
    command_policy: Literal["deny", "ask", "allow"] = "deny"
    max_cost: str = Field(default="", pattern=r"^(?:\d{1,7}(?:\.\d{1,12})?)?$")
    max_tokens: int | None = Field(default=None, ge=1)
    max_seconds: int | None = Field(default=None, ge=1)
    sandbox: SandboxFacts


# ---- what a model answers


class Function(Frozen):
    """One entry of a plan's interface: what the tests may call."""

    signature: str
    contract: str


class CodePlan(Frozen):
    """The plan, made before any code."""

    description: str
    approach: str
    packages: tuple[str, ...] = ()
    interface: tuple[Function, ...]
    edge_cases: tuple[str, ...] = ()


class CodeSolution(Frozen):
    """The script, and what it needs."""

    language: str = "python"
    code: str
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()


class Fix(Frozen):
    """One change that a diagnosis asks for: ``old`` text to ``new`` text. An empty ``old`` is an addition."""

    id: str
    old: str
    new: str
    reason: str = ""


class TestFailure(Frozen):
    """One failing test, as diagnosed."""

    __test__: ClassVar[bool] = False

    test_name: str
    error_message: str = ""
    expected_behavior: str = ""
    actual_behavior: str = ""
    root_cause: str
    suggested_fix: str = ""
    error_type: ErrorType
    fixes: tuple[Fix, ...] = ()


class ErrorDiagnosis(Frozen):
    """The failures of one report, and what the environment lacks."""

    failures: tuple[TestFailure, ...]
    needs_language_packages: tuple[str, ...] = ()
    needs_system_packages: tuple[str, ...] = ()
    needs_additional_commands: tuple[str, ...] = ()


class FixVerification(Frozen):
    """Which of the owed fixes a change holds, by their ids."""

    applied_fixes: tuple[str, ...] = ()
    missing_fixes: tuple[str, ...] = ()
    explanation: str = ""

    @property
    def all_fixes_applied(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing_fixes


class Opinion(Frozen):
    """What the specification says of one call, by someone who saw neither code nor test.

    In a reply ``test`` is the label that the prompt gave the call; in a run it is the call itself.
    """

    test: str
    verdict: Literal["value", "exception", "silent"]
    value: str = ""
    words: str = ""


class Opinions(Frozen):
    """The reply of a second opinion."""

    opinions: tuple[Opinion, ...]


class Proposal(Frozen):
    """The distribution that a model proposes for an import; empty for none."""

    module: str
    distribution: str = ""


class Proposals(Frozen):
    """The reply of a packages ask."""

    packages: tuple[Proposal, ...]


class Replacement(Frozen):
    """The reply of a replace_package ask; empty for none."""

    distribution: str = ""
    reason: str = ""


class TestFunctionPatch(Frozen):
    """The new text of one test function, by its name (``Class::test`` for a method)."""

    __test__: ClassVar[bool] = False

    test_name: str
    fixed_code: str


# ---- what a sandbox reports


class Frame(Frozen):
    """One own frame of a traceback: a file of the job and a line."""

    file: str
    line: int


class Comparison(Frozen):
    """The last comparison that a failing assertion made, as representations."""

    op: str
    left: str
    right: str


class TestResult(Frozen):
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


class OutputFile(Frozen):
    """One file that the job left under /var/outputs."""

    path: str
    size: int
    sha256: Hash


class Report(Frozen):
    """The outcome of one execution: structure first, texts beside it.

    ``whole`` holds when the reporter said what it collected, ended every test and finished the session:
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


class Environment(Frozen):
    """A built image: its name (the requested spec's hash) and what the build resolved it to."""

    name: str
    lock: str = ""


# ---- what decisions keep


class Finding(Frozen):
    """What the rules say of one failing test. ``error_type`` is None where they say nothing."""

    test: str
    error_type: ErrorType | None
    rule: str
    signature: str
    exception: str = ""
    message: str = ""
    root_cause: str = ""
    module: str = ""
    judged: Literal["no", "refuted", "upheld", "unjudged"] = "no"
    call: str = ""
    words: str = ""


class Attempts(Frozen):
    """How many applied fixes of each kind one failure has outlived, and the kind it has now."""

    signature: str
    logic: int = 0
    test: int = 0
    error_type: ErrorType | None = None


class Quarantined(Frozen):
    """A test that runs no more, with the reason and, where there are any, the specification's words."""

    test: str
    reason: str
    words: str = ""


class Checkpoint(Frozen):
    """What stood before the present change of code: what a revert goes back to."""

    code: str
    tests: str
    report: Report
    findings: tuple[Finding, ...]


class Question(Frozen):
    """What only a person can decide."""

    kind: Literal["package", "system_package", "command", "example"]
    subject: str
    reason: str
