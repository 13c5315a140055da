"""codetape exec."""

import sys
from typing import TYPE_CHECKING, Any

import click

from codetape.cli.options import allow_build, as_json, database, pairs
from codetape.cli.output import say, say_json
from codetape.errors import UsageError

if TYPE_CHECKING:
    from codetape.runtime.result import GenerateResult


@click.command("exec")
@click.argument("session")
@click.argument("inputs", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--sandbox", default="auto", show_default=True, metavar="NAME", help="Where the script runs.")
@click.option("-o", "folder", metavar="DIR", help="Write outputs that are files there.")
@allow_build
@database
@as_json
def command(
    session: str,
    inputs: tuple[str, ...],
    sandbox: str,
    folder: str | None,
    allow_build: bool,
    db: str,
    as_json: bool,
) -> int:
    """Run a session's verified script on inputs, in its own environment; print what it prints, and its typed outputs.

    A script that reads standard input is given what comes by a pipe or a file.
    """
    import asyncio

    from codetape.api.opening import opened
    from codetape.cli.approval import approving
    from codetape.runtime import plugins
    from codetape.runtime.result import GenerateResult

    store, allowed = opened(db), approving(allowed=allow_build)
    name = store.find(session)
    result = asyncio.run(GenerateResult.load(store, name, sandbox=plugins.sandbox(sandbox), allow_build=allowed))
    arguments = {key.replace("-", "_"): value for key, value in pairs(inputs, "input").items()}
    ran = asyncio.run(result.aexecute(arguments, stdin=_stdin(result)))
    outputs = {key: _shown(key, value, folder) for key, value in ran.outputs.items()}
    if as_json:
        say_json({"session": name, "outputs": outputs, "stdout": ran.stdout})
    else:
        if ran.stdout:
            say(ran.stdout.removesuffix("\n")) if sys.stdout.isatty() else sys.stdout.write(ran.stdout)
        for key, value in outputs.items():
            say(f"{key}: {value}")
    return 0


_READS = ("stdin", "input(", "fileinput")
MAX_STDIN = 256 << 20  # bytes: they are staged as a file


def _stdin(result: "GenerateResult") -> bytes:
    """Return what comes on standard input, for a script that reads it: another one must not wait for it."""
    code = result.solution.code if result.solution else ""
    if sys.stdin is None or sys.stdin.isatty() or not any(word in code for word in _READS):
        return b""
    given = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(given) > MAX_STDIN:
        raise UsageError(
            f"Standard input has more than {MAX_STDIN >> 20} MB.", remedy="Give it as a file, by an input."
        )
    return given


def _shown(name: str, value: Any, folder: str | None) -> Any:
    """Return a scalar unchanged; write a file or directory, and return its path."""
    if not isinstance(value, bytes | dict):
        return value
    if folder is None:
        size = len(value) if isinstance(value, bytes) else sum(map(len, value.values()))
        return f"({size} bytes; -o DIR writes them)"
    files = {name: value} if isinstance(value, bytes) else {f"{name}/{path}": data for path, data in value.items()}
    from pathlib import Path

    root = Path(folder)
    try:
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}.") from error
    return str(root / name)
