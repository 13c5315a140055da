"""Samples that travel with a tape: the files that a session's inputs were given, in lines of their own after the texts.

They are on a tape where that is wished, small files alone, and none that seems to hold a key: a sample is what it is, for
its digest is part of the session, so nothing in it can be replaced.
"""

import base64
import binascii
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from codetape.domain.canonical import canonical
from codetape.domain.sample_digest import sample_digest
from codetape.domain.script_args import MAX_NAME, file_names
from codetape.domain.task import Input, Task
from codetape.errors import CorruptTape, UsageError
from codetape.runtime.redaction import find_keys
from codetape.text.escape import hidden

MAX_SAMPLE, MAX_SAMPLES = 4 << 20, 32 << 20  # bytes of one, and of all on a tape
MAX_FILES, MAX_DEPTH = 1_000, 10  # files, and folders that lie in each other
_INNER = re.compile(r"[^/\x00-\x1f\x7f]{1,120}")
_NAME = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,119}")


def gather(task: Task, folders: Sequence[Path] = ()) -> tuple[dict[str, bytes], list[str]]:
    """Return a task's samples by the names that they have in the sandbox, and a line for each that is left out.

    The files of a folder bear its name before their own: ``folder/file``.
    """
    samples: dict[str, bytes] = {}
    left_out = []
    for declared in task.inputs:
        if declared.sample is None:
            continue
        name, path = file_names(task.inputs)[declared.name], Path(declared.sample.path)
        places = [path, *(folder / one for folder in folders for one in (name, path.name))]
        files = next((found for place in places if (found := files_at(place, name, declared))), {})
        sizes = [len(data) for data in files.values()]
        keys = {kind for data in files.values() for kind in find_keys(data.decode("utf-8", "replace"))}
        if not files:
            left_out.append(f"{declared.name}: {path.name} is not where it was, has changed, or holds too much")
        elif max(sizes) > MAX_SAMPLE or sum(sizes) + sum(map(len, samples.values())) > MAX_SAMPLES:
            left_out.append(
                f"{declared.name}: a file is larger than {MAX_SAMPLE >> 20} MB, or all are than {MAX_SAMPLES >> 20}"
            )
        elif keys:
            left_out.append(f"{declared.name}: it seems to hold a key ({', '.join(sorted(keys))})")
        else:
            samples |= files
    return samples, left_out


def files_at(place: Path, name: str, declared: Input) -> dict[str, bytes]:
    """Return the files of a sample at a place, by their names on a tape; empty where they are not what it was."""
    folder = declared.type == "directory"
    try:
        paths = sorted(p for p in place.rglob("*") if p.is_file()) if folder else [place]
        if len(paths) > MAX_FILES or sum(path.stat().st_size for path in paths) > MAX_SAMPLES:
            return {}
        found = {f"{name}/{path.relative_to(place)}" if folder else name: path.read_bytes() for path in paths}
    except OSError:
        return {}
    named = all(_named(one) for one in found)
    return found if named and declared.sample and _digest(found, declared) == declared.sample.sha256 else {}


def _digest(files: Mapping[str, bytes], declared: Input) -> str:
    folder = declared.type == "directory"
    inner = {name.partition("/")[2] if folder else name: data for name, data in files.items()}
    ordered = sorted(inner, key=PurePosixPath)
    return sample_digest(((name, len(inner[name]), [inner[name]]) for name in ordered), folder=folder)


def _named(name: str) -> bool:
    """Whether a sample may be called so: a file's name, or a path of such names below one."""
    first, *inner = name.split("/")
    parts = all(_INNER.fullmatch(part) and part not in (".", "..") for part in inner)
    short = all(len(part.encode("utf-8", "surrogatepass")) <= MAX_NAME for part in (first, *inner))
    return bool(_NAME.fullmatch(first)) and parts and short and len(inner) < MAX_DEPTH and not any(map(hidden, name))


def lines(samples: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the lines of samples on a tape, in the order of their names."""
    for name, data in sorted(samples.items()):
        yield canonical({"sample": {"data": base64.b64encode(data).decode(), "name": name}}) + "\n"


def read(value: object, samples: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Read a line's sample. Raises CorruptTape for one that no tape has."""
    if (
        not isinstance(value, dict)
        or set(value) != {"data", "name"}
        or not all(isinstance(v, str) for v in value.values())
    ):
        raise CorruptTape("a sample is incomplete, or has more than a sample has.")
    name = value["name"]
    if not _named(name) or len(samples) >= MAX_FILES or (samples and name <= next(reversed([*samples]))):
        raise CorruptTape("a sample has no name that one may have, or stands out of order.")
    try:
        data = base64.b64decode(value["data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptTape(f"the sample {name} is no base 64.") from error
    if len(data) > MAX_SAMPLE or sum(map(len, samples.values())) + len(data) > MAX_SAMPLES:
        raise CorruptTape(f"the sample {name} is larger than samples may be.")
    return name, data


def check(task: Task, samples: Mapping[str, bytes]) -> None:
    """Raise CorruptTape for a sample that is none of the task's, or another than the session was made with."""
    names, left = file_names(task.inputs), dict(samples)
    for declared in task.inputs:
        name = names.get(declared.name, "")
        files = {one: left.pop(one) for one in [*left] if one == name or one.startswith(f"{name}/")}
        if files and declared.sample and _digest(files, declared) != declared.sample.sha256:
            raise CorruptTape(f"the sample {next(iter(files))} is not the session's; it was edited.")
    if left:
        raise CorruptTape(f"the sample {next(iter(left))} is none of the session's; it was added.")


def put(folder: Path, samples: Mapping[str, bytes]) -> None:
    """Write samples as all that a folder holds, which only its user reads. Raises UsageError where they cannot be
    written: then what was there stays."""
    fresh = folder.with_name(f".{folder.name}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name, data in samples.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(fresh / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(data)
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        fresh.replace(folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise UsageError(f"Samples cannot be written to {folder}: {error.strerror}.") from error
