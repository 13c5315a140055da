"""A process that ends what its engine leaves behind: bwrap dies with its parent, but not before it has said so.

Where the engine is killed while bwrap makes its namespaces, a process is left that waits for ever for another that is
gone. Each bwrap bears a mark of its engine among its variables, which the sandboxed program does not get; when the
engine's end of a pipe closes, the guardian kills what bears it.
"""

import os
import secrets
import sys
import threading
from contextlib import suppress

MARK = "CODETAPE_ENGINE"
_CODE = f"""
import os, signal, sys, time
mark = b"{MARK}=" + sys.stdin.readline().strip().encode()
sys.stdin.read()
for _ in range(30):
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark in open("/proc/" + name + "/environ", "rb").read().split(bytes(1)):
                os.kill(int(name), signal.SIGKILL)
        except OSError:
            pass
    time.sleep(0.1)
"""


class _Guardian:
    """The guardian of this process, started with the first bwrap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe, self._owner, self._mark = -1, 0, ""

    def marked(self) -> dict[str, str]:
        """Return the variable that a process of this engine must bear; its guardian is there when this returns."""
        with self._lock:
            if self._owner != os.getpid():  # a fork has no guardian of its own yet
                self._owner, self._mark = os.getpid(), secrets.token_hex(16)
                with suppress(OSError):  # without one the sandbox works all the same
                    self._start()
        return {MARK: self._mark}

    def _start(self) -> None:
        reading, self._pipe = os.pipe()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _CODE],
                {"PATH": "/usr/bin:/bin"},
                file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), *((os.POSIX_SPAWN_DUP2, null, n) for n in (1, 2))],
                setsid=True,
            )
            os.write(self._pipe, f"{self._mark}\n".encode())
        finally:
            os.close(reading)
            os.close(null)


GUARDIAN = _Guardian()
"""One a process: its sandboxes share it."""
