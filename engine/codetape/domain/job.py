"""An environment to build, and a job to execute, as values. A fingerprint covers everything that the sandbox sees."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from codetape.domain.canonical import canonical, sha256
from codetape.domain.frozen_model import FrozenModel
from codetape.domain.purposes import JobPurpose
from codetape.domain.script_args import flags
from codetape.domain.task import Input, Output, Resources


class BuildSpec(FrozenModel):
    """The environment to build. Its name is the hash of its content."""

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
        """The spec as plain data. An empty base is left out: fingerprints from before there were bases stay valid."""
        return self.model_dump(mode="json", exclude=set() if self.base else {"base"})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the spec."""
        return sha256(canonical(self.detail))


class Conditions(FrozenModel):
    """What a program should not depend on: the hash seed, the time zone (as POSIX writes it), the working folder,
    and the order of tests."""

    hash_seed: int = 0
    timezone: str = "UTC"
    folder: str = "/work"
    reverse: bool = False


USUAL = Conditions()
OTHER = Conditions(hash_seed=20231, timezone="<+1245>-12:45", folder="/srv/elsewhere", reverse=True)
"""Those of a confirming run: each differs from the usual ones."""
ONCE_MORE = OTHER.model_copy(update={"hash_seed": 20233, "reverse": False})
"""Of a run that settles whether what differed lasts: it is another run than the one before."""


class Job(FrozenModel):
    """One execution: files to lay out, tests to run (or a script with arguments), and the limits.

    ``files`` are laid out read-only in the working folder. ``inputs`` with a sample are put below /var/inputs
    under the names of their files; scalar ones are passed as flags by a script job, which reads ``stdin``. ``deselect`` holds pytest node ids. An
    ``evaluate`` job runs no tests: its one target is a file of claims, which a sandbox can evaluate whose facts say so.
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
    conditions: Annotated[Conditions, Field(exclude_if=lambda value: value == USUAL)] = USUAL
    stdin: Annotated[bytes, Field(exclude=True, repr=False)] = b""

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


TEST_PACKAGES = ("pytest",)
IMAGE_POLICY = 1
"""The version of how images are made from a base: part of their names."""


def compute_image_name(
    python_version: str,
    packages: Iterable[str],
    system_packages: Iterable[str] = (),
    commands: Iterable[str] = (),
    *,
    language: str = "python",
    base: str = "",
) -> str:
    """Return an image's name: its requested content, hashed. Order and repetition of packages do not matter."""
    spec = {
        "language": language,
        "python": python_version,
        "packages": sorted(set(packages)),
        "system_packages": sorted(set(system_packages)),
        "commands": list(commands),
        **({"base": base} if base else {}),
        **({"policy": IMAGE_POLICY} if base else {}),
    }
    return f"codetape-{language}-{sha256(canonical(spec))[:12]}"
