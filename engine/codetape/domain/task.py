"""The task and the configuration of a session, with every default resolved; pinned by SessionStarted."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from codetape.domain.frozen_model import Count, FrozenModel, Hash

InputType = Literal["str", "int", "float", "bool", "file", "directory"]
OutputType = Literal["str", "int", "float", "bool", "file", "directory", "datetime", "timedelta"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
"""The name of an input or output: it becomes a flag and a file's name. A tape may come from anywhere, so it is checked
here too."""
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.\d{1,2}$")]
SOLUTION_FILE = "solution.py"
TEST_FILE = "test_solution.py"
ANCHOR_FILE = "test_anchors.py"
USER_FILE = "test_user.py"
OUTPUT_FILE = "test_outputs.py"
ORACLE_FILE = "test_oracle.py"


FileName = Annotated[str, StringConstraints(pattern=r"^[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,119}$")]
"""The name of a file as its owner gave it: no path, not hidden, without control characters."""


class Sample(FrozenModel):
    """A file or folder given as an example of an input: its head for prompts, its hash for the tape.

    ``encoding`` is what the head was read as, where that is not UTF-8. ``file`` is the name that it has, and keeps in
    the sandbox; empty where that is none for it, or on older tapes: then it has the input's.
    """

    path: str
    sha256: Hash
    size: Count
    head: str
    encoding: Annotated[str, Field(exclude_if=lambda value: not value)] = ""
    file: Annotated[FileName | Literal[""], Field(exclude_if=lambda value: not value)] = ""


class Input(FrozenModel):
    """A declared input: a command-line flag of the script. A scalar may have a sample value."""

    name: Name
    type: InputType
    value: str | None = None
    sample: Sample | None = None


OutputName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9]{1,10}){0,2}$")]


class Output(FrozenModel):
    """A declared output: one file of that name, which may have an ending, under /var/outputs."""

    name: OutputName
    type: OutputType


class Task(FrozenModel):
    """What a user asks for: prompt, constraints, inputs, outputs, tests."""

    id: str
    prompt: str
    data_schema: str = ""
    constraints: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    tests: str = ""
    oracle: str = ""
    tags: tuple[str, ...] = ()


class Resources(FrozenModel):
    """Limits of one execution. They bind the whole process tree where cgroups are available."""

    cpus: str = Field(default="1", pattern=r"^\d{1,4}(\.\d{1,4})?$")
    memory_mb: int = Field(default=1024, ge=64, le=1 << 20)
    wall_seconds: int = Field(default=120, ge=1, le=86400)
    processes: int = Field(default=128, ge=8, le=32768)
    disk_mb: int = Field(default=256, ge=1, le=1 << 20)
    output_kb: int = Field(default=1024, ge=16, le=1 << 20)


UNBOUND = ("the memory of all processes together", "the number of files")
"""What only a control group bounds: without one each process has its limit, and each file system its size."""


class SandboxFacts(FrozenModel):
    """What a sandbox offers: the model is told it, and decisions depend on it.

    ``evaluates`` says that it runs jobs of the purpose ``evaluate``: the claims of tests, without what they expect;
    ``confirms`` that a run can be made once more, under other conditions: a recording cannot.
    """

    name: str
    python: str
    system_packages: bool = False
    commands: bool = False
    tree_memory_bounded: bool = False
    network: bool = False
    base: str = ""
    why: str = ""
    evaluates: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    confirms: Annotated[bool, Field(exclude_if=lambda value: value)] = True

    @property
    def unbound(self) -> tuple[str, ...]:
        """What no limit binds there, in words."""
        return () if self.tree_memory_bounded else UNBOUND


class Config(FrozenModel):
    """Everything that decisions depend on besides the task, with every default resolved.

    ``server`` is the model's address, without name and password: empty for the provider's own, None where it is
    unknown. ``api`` and ``adapter`` say which API is spoken there, and by what. ``strict_examples`` has a person decide
    on an example that two readers of the task take for wrong;
    ``min_strength`` is the share of mutants that the tests must notice before a session succeeds.
    """

    model: str
    server: str | None = None
    api: str = ""
    adapter: str = ""
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
    strict_examples: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    min_strength: Annotated[float, Field(ge=0, le=1, exclude_if=lambda value: not value)] = 0.0
    sandbox: SandboxFacts


Grade = Literal["oracle", "self"]
