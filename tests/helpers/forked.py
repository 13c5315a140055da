"""Processes that are forked of one which has loaded what they need: each is a process of its own, without its start.

What a process costs to start, and what it loads, is tested where that is the point; elsewhere hundreds of starts
would be most of the time.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
HASH_SEED = "0"
CONTEXT.set_forkserver_preload(["tests.helpers.preloaded"])


@contextmanager
def _importable_tests():
    """Let the server of forks, which is started once, import what these tests do."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONHASHSEED")}
    os.environ |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": HASH_SEED}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


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
    _become(environment, folder, said)
    sys.argv = ["codetape", *words]
    from codetape.cli import main

    main([*words])


def _become(environment, folder, said):
    """Be a process of this environment in this folder, with standard streams in files of another."""
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


def run_pytest(words, environment, folder, timeout):
    """Run `pytest` with these words as `python -m` would; return its exit code, negative for a signal, None if it took
    longer; its output; and what it reported."""
    with tempfile.TemporaryDirectory() as place:
        said = Path(place)
        (said / "stdin").touch()
        process = started(_pytest, words, environment, str(folder), place)
        process.join(timeout)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
        out, err, report = (
            (said / name).read_bytes() if (said / name).exists() else b"" for name in ("stdout", "stderr", "report")
        )
    return code, out, err, report


def _pytest(words, environment, folder, said):
    """Go on as if Python had just been started: what was registered, and where modules are looked for, is this program's."""
    atexit._clear()
    report = os.open(f"{said}/report", os.O_WRONLY | os.O_CREAT, 0o600)
    os.set_inheritable(report, True)
    _become({**environment, "CODETAPE_REPORT_FD": str(report)}, folder, said)
    time.tzset()
    own = [place for place in sys.path if place not in ("", str(Path(__file__).parents[2]))]
    sys.path[:] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *own]
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "__mp_main__")]:
        del sys.modules[name]
    sys.argv = ["pytest", *words]
    import pytest

    try:
        code = int(pytest.console_main())
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def interruptible():
    """A process that was started in the background inherits that Ctrl-C is ignored; a user's shell does not do that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def in_a_new_process(*words, env=None, timeout=120):
    """The same in a Python of its own, for what is read when one starts."""
    command = [sys.executable, "-m", "codetape", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, check=False)  # fmt: skip
