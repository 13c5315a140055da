"""Declared inputs and outputs: read from what a caller gives, and from what a script leaves. Strict both ways."""

import codecs
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from codetape.domain.sample_digest import sample_digest
from codetape.domain.task import Input, InputType, Output, OutputType, Sample
from codetape.errors import ScriptFailed, UsageError
from codetape.text.escape import hidden

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")
OUTPUT_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9]{1,10}){0,2}$")
_FILE = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,119}")
HEAD_LINES, HEAD_BYTES = 20, 2048
MAX_TEXT = 100 << 10  # bytes of a scalar: it becomes one argument of a program
MAX_INPUT = 1 << 30  # bytes of one input file or folder
_BY_CLASS = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    Path: "file",
    datetime: "datetime",
    timedelta: "timedelta",
}


def _named(name: str, kind: str) -> str:
    if not (OUTPUT_NAME if kind == "output" else NAME).match(name):
        ending = "; an ending such as .csv may follow" if kind == "output" else ""
        raise UsageError(
            f"{name!r} cannot name an {kind}.",
            remedy=f"Use letters, digits, _ and -, beginning with a letter or _{ending}.",
        )
    return name


def read_inputs(given: Mapping[str, Any] | None) -> tuple[Input, ...]:
    """Read declarations: a type (``"int"``, ``int``), a type with a sample (``"int:5"``, ``"file:PATH"``), a Path, or an
    input as another session has it."""
    names = [name.replace("-", "_") for name in given or {}]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise UsageError(
            f"Two inputs would both be {twice[0]}.", remedy="Give them names that differ in more than - and _."
        )
    if {"help", "h"} & set(names):
        raise UsageError("An input cannot be called help or h: every script has that flag.")
    return tuple(_input(_named(name, "input"), spec) for name, spec in (given or {}).items())


def _input(name: str, spec: Any) -> Input:
    if isinstance(spec, Input):
        return spec
    if isinstance(spec, Path):
        kind, value = ("directory" if spec.is_dir() else "file"), str(spec)
    elif isinstance(spec, type):
        kind, value = _BY_CLASS.get(spec, spec.__name__), ""
    else:
        kind, colon, value = str(spec).partition(":")
        if colon and not value and kind in ("file", "directory"):
            raise UsageError(f"Input {name} names no {kind}.", remedy=f"Give {kind}:PATH.")
    if kind not in get_args(InputType):
        known = ", ".join(get_args(InputType))
        raise UsageError(f"Input {name} has the unknown type {kind!r}.", remedy=f"Known are: {known}.")
    if not value:
        return Input.model_validate({"name": name, "type": kind})
    return with_value(Input.model_validate({"name": name, "type": kind}), value)


def with_value(declared: Input, value: Any) -> Input:
    """Return the input with a value given: checked against its type; a file or folder is hashed."""
    if declared.type in ("file", "directory"):
        return declared.model_copy(update={"sample": sample(declared, Path(str(value)))})
    return declared.model_copy(update={"value": _scalar(declared, value)})


def _scalar(declared: Input, value: Any) -> str:
    text = str(value)
    if len(text.encode("utf-8", "replace")) > MAX_TEXT:
        raise UsageError(
            f"Input {declared.name} is longer than an argument may be ({MAX_TEXT >> 10} KB).",
            remedy="Give it as a file.",
        )
    if "\0" in text:
        raise UsageError(f"Input {declared.name} holds a NUL character, which no argument can.")
    try:
        parse(declared.type, text)
    except ValueError as error:
        raise UsageError(f"Input {declared.name} is no {declared.type}: {text[:60]!r}.") from error
    return text


def sample(declared: Input, path: Path) -> Sample:
    """Read a sample: its head for prompts, its hash for the tape. Raises UsageError where it cannot be read."""
    kind = "folder" if declared.type == "directory" else "file"
    try:
        there = path.is_dir() if declared.type == "directory" else path.is_file()
        if not there:
            raise UsageError(f"Input {declared.name}: there is no {kind} {path}.")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if (size := sum(p.stat().st_size for p in files)) > MAX_INPUT:
            raise UsageError(f"Input {declared.name} is larger than {MAX_INPUT >> 20} MB.")
        parts = ((str(f.relative_to(path)), f.stat().st_size, _blocks(f)) for f in files)
        digest = sample_digest(parts, folder=path.is_dir())
        head, encoding = _head(path, files)
        file = path.resolve().name if path.name in ("", "..") else path.name
        named = file if _FILE.fullmatch(file) and not any(map(hidden, file)) else ""
        return Sample(path=str(path), sha256=digest, size=size, head=head, encoding=encoding, file=named)
    except OSError as error:
        raise UsageError(f"Input {declared.name}: {path} cannot be read: {error.strerror}.") from error


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


def _head(path: Path, files: list[Path]) -> tuple[str, str]:
    """Return the beginning of a sample as text, and what it was read as where that is not UTF-8."""
    if path.is_dir():
        return "\n".join(f"{f.relative_to(path)} ({f.stat().st_size} bytes)" for f in files[:HEAD_LINES]), ""
    with path.open("rb") as stream:
        data = stream.read(HEAD_BYTES)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if (kind := _format(data, path.suffix.lower())) or (b"\0" in data and not wide):
        return f"({kind or 'binary'}, {path.stat().st_size} bytes)", ""
    for encoding in ("utf-16",) if wide else ("utf-8", "cp1252", "latin-1"):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(data)  # its end may be cut within a character
        except UnicodeDecodeError:
            continue
        return "\n".join(text.splitlines()[:HEAD_LINES]), "" if encoding == "utf-8" else encoding
    return f"(neither text nor UTF-16, {path.stat().st_size} bytes)", ""


_SIGNATURES = (
    (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf", "7-zip"),
    (b"PAR1", "Parquet"), (b"ARROW1", "Arrow IPC"), (b"Obj\x01", "Avro"), (b"ORC", "ORC"), (b"\x89HDF\r\n", "HDF5"),
    (b"SQLite format 3\0", "an SQLite database"), (b"%PDF-", "PDF"), (b"\x89PNG", "PNG"), (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"), (b"RIFF", "RIFF (WAV, WebP or AVI)"), (b"\xd0\xcf\x11\xe0", "an old Office document"), (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "zip"),
)  # fmt: skip
"""What files begin with that are no text, and what they are, as the command `file` would say."""
_ZIPS = {".xlsx": "an Excel workbook", ".docx": "a Word document", ".ods": "an OpenDocument spreadsheet", ".npz": "NumPy arrays", ".jar": "a jar"}  # fmt: skip


def _format(data: bytes, ending: str) -> str:
    """Return what kind of file begins so; empty for none that is known."""
    name = next((name for begin, name in _SIGNATURES if data.startswith(begin)), "")
    return f"{_ZIPS[ending]}, zip" if name == "zip" and ending in _ZIPS else name


def read_outputs(given: Mapping[str, Any] | None) -> tuple[Output, ...]:
    """Read declarations: a type's name, or the Python type."""
    found = []
    for name, spec in (given or {}).items():
        kind = _BY_CLASS.get(spec, spec.__name__) if isinstance(spec, type) else str(spec)
        if kind not in get_args(OutputType):
            known = ", ".join(get_args(OutputType))
            raise UsageError(f"Output {name} has the unknown type {kind!r}.", remedy=f"Known are: {known}.")
        found.append(Output.model_validate({"name": _named(name, "output"), "type": kind}))
    return tuple(found)


def parse(kind: InputType | OutputType, text: str) -> Any:
    """Read one scalar. "False" is False, and nothing but True and False (in any case) is a bool. Raises ValueError."""
    if kind == "str":
        return text
    stripped = text.strip()
    if kind == "bool":
        if stripped.lower() not in ("true", "false"):
            raise ValueError(f"{stripped!r} is neither True nor False")
        return stripped.lower() == "true"
    if kind == "int":
        return int(stripped)
    if kind == "float":
        return float(stripped)
    if kind == "datetime":
        return datetime.fromisoformat(stripped)
    if kind == "timedelta":
        return timedelta(seconds=float(stripped))
    raise ValueError(f"{kind} is no scalar")


def collect(declared: tuple[Output, ...], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the outputs by name: scalars as Python values, a file as bytes, a directory as {path: bytes}.

    Raises ScriptFailed, naming every output that is missing or not of its type.
    """
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for output in declared:
        try:
            found[output.name] = _output(output, files)
        except KeyError:
            wrong.append(f"{output.name} is missing")
        except (ValueError, OverflowError) as error:
            wrong.append(f"{output.name} is no {output.type} ({str(error)[:80]})")
    if wrong:
        raise ScriptFailed(f"The script ended well, but of its outputs {'; '.join(wrong)}.")
    return found


def _output(output: Output, files: Mapping[str, bytes]) -> Any:
    if output.type == "directory":
        inside = {path.partition("/")[2]: data for path, data in files.items() if path.startswith(f"{output.name}/")}
        if not inside and output.name not in files:
            raise KeyError(output.name)
        return inside
    data = files[output.name]
    if output.type == "file":
        return data
    text = data.decode()
    return parse(output.type, text if output.type != "str" else text.removesuffix("\n"))
