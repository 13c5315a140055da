"""What a run wants done outside: ask a model, build an environment, execute a job; or a fact recorded.

Requests are values. A fingerprint covers everything that the model or the sandbox can see, and nothing else.
"""

from dataclasses import dataclass
from typing import Any

from codetape.artefacts import Input, JobPurpose, Output, Purpose, Resources
from codetape.canonical import Frozen, canonical, sha256
from codetape.events import Draft
from codetape.flags import flags
from codetape.packages import TEST_PACKAGES, compute_image_name
from codetape.prompts import Message

LENGTH_PARAMETER = "max_completion_tokens"


class Request(Frozen):
    """One ask of a model.

    ``reply_schema`` is a JSON schema, or None where a code block is wanted or the server refuses schemas; then
    ``json_mode`` asks for some JSON object, and the prompt holds the schema. ``older_limit`` says that the server
    knows the limit on output as ``max_tokens`` only.
    """

    model: str
    purpose: Purpose
    messages: tuple[Message, ...]
    reply_schema: dict[str, Any] | None = None
    json_mode: bool = False
    max_output_tokens: int
    older_limit: bool = False
    parameters: dict[str, Any] = {}

    @property
    def detail(self) -> dict[str, Any]:
        """The request without its messages."""
        return self.model_dump(mode="json", exclude={"messages"})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the model sees."""
        return sha256(canonical(self.model_dump(mode="json", exclude={"purpose"})))

    @property
    def input_estimate(self) -> int:
        """Input tokens by rule of thumb: four characters a token."""
        return sum(len(m.content) for m in self.messages) // 4 + 4 * len(self.messages)

    @property
    def reserved_input(self) -> int:
        """Input tokens that a budget reserves: three bytes of UTF-8 a token, the schema among them; rather too many than too few."""
        schema = len(canonical(self.reply_schema).encode()) if self.reply_schema else 0
        return (sum(len(m.content.encode()) for m in self.messages) + schema) // 3 + 4 * len(self.messages)


class BuildSpec(Frozen):
    """The environment that is wanted. Its name is its content, hashed."""

    language: str = "python"
    python_version: str
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    base: str = ""

    @property
    def name(self) -> str:
        """The image's name."""
        return compute_image_name(
            self.python_version,
            self.packages,
            self.system_packages,
            self.commands,
            language=self.language,
            base=self.base,
        )

    @property
    def all_packages(self) -> tuple[str, ...]:
        """What is installed: the packages asked for, and what the tests need."""
        return tuple(sorted({*self.packages, *TEST_PACKAGES}))

    @property
    def detail(self) -> dict[str, Any]:
        """The spec as plain data; without a base where there is none, as before there were any."""
        return self.model_dump(mode="json", exclude=set() if self.base else {"base"})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the spec."""
        return sha256(canonical(self.detail))


class Job(Frozen):
    """One execution: files to lay out, tests to run (or a script with arguments), and the limits.

    ``files`` are laid out read-only in the working folder. ``inputs`` with a sample are put below /var/inputs
    under their names; scalar ones are passed as flags by a script job. ``deselect`` holds pytest node ids.
    """

    purpose: JobPurpose
    spec: BuildSpec
    files: dict[str, str]
    targets: tuple[str, ...] = ()
    deselect: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    resources: Resources = Resources()
    env: dict[str, str] = {}

    @property
    def flags(self) -> tuple[str, ...]:
        """The script's arguments, one word each, never through a shell."""
        return flags(self.inputs)

    @property
    def detail(self) -> dict[str, Any]:
        """The job as plain data, its files by their hashes and its samples without their place on the host."""
        value = self.model_dump(
            mode="json", exclude={"spec": True, "inputs": {"__all__": {"sample": {"path", "head"}}}}
        )
        return {**value, "spec": self.spec.detail, "files": {name: sha256(text) for name, text in self.files.items()}}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the sandbox sees."""
        return sha256(canonical(self.detail))


@dataclass(frozen=True)
class Ask:
    """Ask the model."""

    request: Request


@dataclass(frozen=True)
class Build:
    """Have the environment built, or found."""

    spec: BuildSpec


@dataclass(frozen=True)
class Execute:
    """Run the job in the sandbox."""

    job: Job


@dataclass(frozen=True)
class Record:
    """Append a derived event: nothing is wanted outside."""

    draft: Draft


Command = Ask | Build | Execute | Record
