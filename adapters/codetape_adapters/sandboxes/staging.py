"""A job's files on the host, before they are bound into a sandbox: readable by its user, and writable by nobody."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codetape.artefacts import Input
from codetape.commands import Job
from codetape.errors import SandboxUnavailable, UsageError
from codetape.typed import sample


@contextmanager
def staged(runs: Path, job: Job, *, owner: int | None) -> Iterator[Path]:
    """Lay a job's files out in a fresh folder below ``runs``, which is gone afterwards. Raises SandboxUnavailable."""
    stage = runs / secrets.token_hex(8)
    try:
        try:
            lay_out(stage, job, owner=owner)
        except OSError as error:
            raise SandboxUnavailable(f"The job's files could not be laid out: {error}.", remedy="Check the cache's disk.", step="stage") from error  # fmt: skip
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def lay_out(stage: Path, job: Job, *, owner: int | None) -> None:
    """Write the job's files and copies of its samples below ``stage``. Raises UsageError for a changed sample."""
    stage.parent.mkdir(exist_ok=True)
    if owner is not None:
        stage.parent.chmod(0o711)
    for name in ("work", "inputs"):
        (stage / name).mkdir(parents=True)
    for name, text in job.files.items():
        (stage / "work" / name).write_text(text)
    for declared in job.inputs:
        if declared.sample:
            _copy(declared, stage / "inputs" / declared.name)
    _close(stage, owner)


def _copy(declared: Input, target: Path) -> None:
    given = declared.sample
    if given is None:
        return
    found = sample(declared, Path(given.path))
    if found.sha256 != given.sha256:
        raise UsageError(
            f"The sample of input {declared.name} has changed since the session started: {given.path}.",
            remedy="Put the old file back, or start a new session.",
        )
    if declared.type == "directory":
        shutil.copytree(given.path, target)
    else:
        shutil.copyfile(given.path, target)


def _close(stage: Path, owner: int | None) -> None:
    """Let the sandbox's group read, and nobody else."""
    for place, folders, names in os.walk(stage):
        folder = 0o550 if owner is not None else 0o700  # our own: only its owner can remove what is in it
        for path, mode in ((place, folder), *((os.path.join(place, n), 0o440) for n in names)):  # noqa: PTH118 - os.walk gives text
            if owner is not None:
                os.chown(path, 0, owner)
            os.chmod(path, mode | (0o200 if path == str(stage) else 0))  # noqa: PTH101 - likewise
        folders.sort()
