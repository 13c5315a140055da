"""A job's files on the host, before they are bound into a sandbox: readable by its user, and writable by nobody."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codetape.domain.job import Job
from codetape.domain.sample_digest import sample_digest
from codetape.domain.script_args import file_names
from codetape.domain.task import Input
from codetape.errors import SandboxUnavailable, UsageError
from codetape_adapters.process_identity import is_abandoned, owned_name

STDIN = ".stdin"
"""What a script reads as its standard input, beside its inputs: no input's name begins so."""


@contextmanager
def staged(runs: Path, job: Job, *, owner: int | None) -> Iterator[Path]:
    """Lay a job's files out in a fresh folder below ``runs``, which is gone afterwards. Raises SandboxUnavailable."""
    stage = runs / owned_name()
    try:
        try:
            lay_out(stage, job, owner=owner)
        except OSError as error:
            raise SandboxUnavailable(
                f"The job's files could not be laid out: {error}.", remedy="Check the cache's disk.", step="stage"
            ) from error
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def sweep(runs: Path) -> int:
    """Remove what processes that were killed have left below ``runs``, private samples among it; return how much."""
    left = [stage for stage in runs.iterdir() if is_abandoned(stage.name)] if runs.is_dir() else []
    for stage in left:
        for place, folders, _ in os.walk(stage):
            for path in (place, *(os.path.join(place, name) for name in folders)):  # noqa: PTH118 - os.walk gives text
                with suppress(OSError):
                    os.chmod(path, 0o700)  # noqa: PTH101 - likewise
        shutil.rmtree(stage, ignore_errors=True)
    return len(left)


def lay_out(stage: Path, job: Job, *, owner: int | None) -> None:
    """Write the job's files and copies of its samples below ``stage``. Raises UsageError for a changed sample."""
    stage.parent.mkdir(parents=True, exist_ok=True)
    if owner is not None:
        stage.parent.chmod(0o711)
    stage.mkdir(mode=0o700)  # while it fills, nobody else reads the samples in it
    for name in ("work", "inputs"):
        (stage / name).mkdir()
    for name, text in job.files.items():
        (stage / "work" / name).write_text(text, encoding="utf-8")
    names = file_names(job.inputs)
    for declared in job.inputs:
        if declared.sample:
            name = names[declared.name]
            _copy(declared, stage / "inputs" / name)
            if name != declared.name:  # a program may have been told the input's name alone
                (stage / "inputs" / declared.name).symlink_to(name)
    if job.stdin:
        (stage / "inputs" / STDIN).write_bytes(job.stdin)
    _close(stage, owner)


def _copy(declared: Input, target: Path) -> None:
    """Copy a sample. It is the copy whose digest is checked: what is checked is what the script reads."""
    given = declared.sample
    if given is None:
        return
    source, folder = Path(given.path), declared.type == "directory"
    try:
        there = source.is_dir() if folder else source.is_file()
        if not there or sum(file.stat().st_size for file in _files(source)) != given.size:
            raise _changed(declared, given.path)  # not copied first: it may have grown beyond any bound
        if folder:
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        if not str(error.filename or "").startswith(given.path):
            raise  # the disk of the copy, not the sample
        raise UsageError(f"Input {declared.name}: {given.path} cannot be read: {error.strerror}.") from error
    parts = ((str(file.relative_to(target)), file.stat().st_size, _blocks(file)) for file in _files(target))
    if sample_digest(parts, folder=folder) != given.sha256:
        raise _changed(declared, given.path)


def _files(place: Path) -> list[Path]:
    return sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


def _changed(declared: Input, path: str) -> UsageError:
    return UsageError(
        f"The sample of input {declared.name} has changed since the session started: {path}.",
        remedy="Put the old file back, or start a new session.",
    )


def _close(stage: Path, owner: int | None) -> None:
    """Let the sandbox's group read, and nobody else."""
    for place, folders, names in os.walk(stage):
        folder = 0o550 if owner is not None else 0o700  # our own: only its owner can remove what is in it
        for path, mode in ((place, folder), *((os.path.join(place, n), 0o440) for n in names)):  # noqa: PTH118 - os.walk gives text
            if owner is not None:
                os.chown(path, 0, owner)
            os.chmod(path, mode | (0o200 if path == str(stage) else 0))  # noqa: PTH101 - likewise
        folders.sort()
