"""Processes that are forked of one which has loaded what they need: each is a process of its own, without its start.

What a process costs to start, and what it loads, is tested where that is the point; elsewhere hundreds of starts
would be most of the time.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.helpers.preloaded"])


@contextmanager
def _importable_tests():
    """Let the server of forks, which is started once, import what these tests do."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def started(function, *arguments):
    """Start a function in a process of its own, and return that."""
    process = CONTEXT.Process(target=function, args=arguments)
    with _importable_tests():
        process.start()
    return process


def codetape(*words, env=None, text=None, timeout=120):
    """Run the command line as a user does; return what `subprocess.run` would."""
    with tempfile.TemporaryDirectory() as folder:
        said, given = Path(folder), Path(folder) / "stdin"
        given.write_text(text or "")
        process = started(_command, words, {**os.environ, **(env or {})}, str(Path.cwd()), folder)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        output = [(said / name).read_text("utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(words, process.exitcode, *output)


def _command(words, environment, folder, said):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, (name, flags) in enumerate(
        [("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY | os.O_CREAT), ("stderr", os.O_WRONLY | os.O_CREAT)]
    ):
        os.dup2(os.open(f"{said}/{name}", flags, 0o600), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lasts
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = ["codetape", *words]
    from codetape.cli import main

    main([*words])


def in_a_new_process(*words, env=None, timeout=120):
    """The same in a Python of its own, for what is read when one starts."""
    command = [sys.executable, "-m", "codetape", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, check=False)  # fmt: skip
