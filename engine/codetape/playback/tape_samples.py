"""Samples that travel with a tape: the files that a session's inputs were given, in lines of their own after the texts.

They are on a tape where that is wished, small files alone, and none that seems to hold a key: a sample is what it is, for
its digest is part of the session, so nothing in it can be replaced.
"""

import base64
import binascii
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from codetape.domain.canonical import canonical
from codetape.domain.script_args import MAX_NAME, file_names
from codetape.domain.task import Task
from codetape.errors import CorruptTape, UsageError
from codetape.runtime.redaction import find_keys
from codetape.text.escape import hidden

MAX_SAMPLE, MAX_SAMPLES = 4 << 20, 32 << 20  # bytes of one, and of all on a tape
_NAME = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,119}")


def gather(task: Task, folders: Sequence[Path] = ()) -> tuple[dict[str, bytes], list[str]]:
    """Return a task's samples by the names that they have in the sandbox, and a line for each that is left out."""
    samples: dict[str, bytes] = {}
    left_out = []
    for declared in task.inputs:
        if declared.sample is None:
            continue
        name = file_names(task.inputs)[declared.name]
        data = _found(Path(declared.sample.path), name, declared.sample.sha256, folders)
        if declared.type == "directory":
            left_out.append(f"{declared.name}: a folder does not travel")
        elif data is None:
            left_out.append(f"{declared.name}: {Path(declared.sample.path).name} is not where it was, or has changed")
        elif len(data) > MAX_SAMPLE or sum(map(len, samples.values())) + len(data) > MAX_SAMPLES:
            left_out.append(
                f"{declared.name}: it is larger than {MAX_SAMPLE >> 20} MB, or all are than {MAX_SAMPLES >> 20}"
            )
        elif keys := find_keys(data.decode("utf-8", "replace")):
            left_out.append(f"{declared.name}: it seems to hold a key ({', '.join(keys)})")
        else:
            samples[name] = data
    return samples, left_out


def _found(path: Path, name: str, digest: str, folders: Sequence[Path]) -> bytes | None:
    """Return a sample's bytes from where it was, or from one of the folders, if they are unchanged."""
    for place in (path, *(folder / one for folder in folders for one in (name, path.name))):
        try:
            if place.is_file() and place.stat().st_size <= MAX_SAMPLES:
                data = place.read_bytes()
                if hashlib.sha256(data).hexdigest() == digest:
                    return data
        except OSError:
            continue
    return None


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
    if (
        len(name.encode()) > MAX_NAME
        or not _NAME.fullmatch(name)
        or any(map(hidden, name))
        or (samples and name <= max(samples))
    ):
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
    names = file_names(task.inputs)
    digests = {names[i.name]: i.sample.sha256 for i in task.inputs if i.sample}
    for name, data in samples.items():
        if digests.get(name) != hashlib.sha256(data).hexdigest():
            raise CorruptTape(f"the sample {name} is none of the session's; it was edited or added.")


def put(folder: Path, samples: Mapping[str, bytes]) -> None:
    """Write samples as all that a folder holds, which only its user reads. Raises UsageError where they cannot be
    written: then what was there stays."""
    fresh = folder.with_name(f".{folder.name}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name, data in samples.items():
            with os.fdopen(os.open(fresh / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(data)
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        fresh.replace(folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise UsageError(f"Samples cannot be written to {folder}: {error.strerror}.") from error
