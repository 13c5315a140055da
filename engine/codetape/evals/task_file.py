"""Files of tasks."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codetape.domain.canonical import well_formed
from codetape.errors import UsageError
from codetape.runtime.text_file import read_text_file

MAX_TASKS = 100_000
MAX_BYTES = 256 << 20  # of a task file
_KNOWN = ("id", "prompt", "inputs", "outputs", "tests", "oracle", "schema", "constraints", "tags")
_PATHS = ("file:", "directory:")
_PATH = re.compile(r"[^\s():=\0]{1,400}\.py")


@dataclass(frozen=True)
class TaskSpec:
    """One line of a task file: the task's id, its prompt, and the options of `generate` that it sets."""

    id: str
    prompt: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_tasks(place: str | Path) -> tuple[TaskSpec, ...]:
    """Read a task file: one JSON object per line, with ``id``, ``prompt`` and further options of `generate`.

    ``tests`` and ``oracle`` are a pytest file's text, or its path; paths are relative to the task file. Raises
    UsageError that names the line where it is no task.
    """
    path = Path(place)
    lines = read_text_file(path, f"The task file {place}", most=MAX_BYTES).split("\n")
    tasks = [
        _task(line, f"{place}, line {number}", path.parent) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not tasks or len(tasks) > MAX_TASKS:
        raise UsageError(f"{place} holds {len(tasks)} tasks; 1 to {MAX_TASKS} are taken.")
    names = [task.id for task in tasks]
    if len({*names}) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"{place} names the task {repeated} twice.", remedy="Give -k for several attempts at each task."
        )
    return tuple(tasks)


def _task(line: str, where: str, folder: Path) -> TaskSpec:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: no JSON: {error}.") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("id", "prompt")):
        raise UsageError(f"{where}: a task is an object with an id and a prompt, both texts.")
    if unknown := sorted(set(value) - set(_KNOWN)):
        raise UsageError(f"{where}: a task has no {', '.join(unknown)}.", remedy=f"Known are: {', '.join(_KNOWN)}.")
    name = value["id"].strip()
    if not name or len(name) > 200 or name != well_formed(name):
        raise UsageError(f"{where}: a task's id has 1 to 200 characters.")
    options = {key: value[key] for key in _KNOWN[2:] if value.get(key) not in (None, "", [], {})}
    for key in ("inputs", "outputs"):
        if key in options:
            options[key] = _mapping(options[key], f"{where}: {key}", folder)
    for key in ("tests", "oracle"):
        if key in options:
            options[key] = _test_text(options[key], f"{where}: {key}", folder)
    if not isinstance(options.get("schema", ""), str | dict):
        raise UsageError(f"{where}: schema is a JSON Schema, or a text.")
    for key in ("constraints", "tags"):
        if not all(isinstance(text, str) for text in _list(options.get(key, []), f"{where}: {key}")):
            raise UsageError(f"{where}: {key} is a list of texts.")
    return TaskSpec(name, value["prompt"], options)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number that JSON has")


def _mapping(value: Any, where: str, folder: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UsageError(f'{where} maps names to types, such as {{"data": "file:till.csv"}}.')
    return {name: _beside(text, folder) for name, text in value.items()}


def _beside(text: str, folder: Path) -> str:
    """Return an input's type with its sample's path made relative to the task file's folder."""
    kind, colon, path = text.partition(":")
    return f"{kind}:{folder / path}" if colon and path and text.startswith(_PATHS) else text


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{where} is a list of texts.")
    return value


def _test_text(value: Any, where: str, folder: Path) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} is a pytest file's text, or its path.")
    if not _PATH.fullmatch(value):
        return value
    return read_text_file(folder / value, f"{where}: {value}")
