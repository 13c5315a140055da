"""A sandbox that runs: reading its output, its limits, its end."""

import os
import selectors
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from codetape.domain.report import Exit
from codetape.domain.task import Resources
from codetape_adapters.sandboxes.bubblewrap.cgroups import Cgroup
from codetape_adapters.sandboxes.execution import report_parser


class Handle(Protocol):
    """The first process of a sandbox, as its host holds it."""

    def kill(self) -> None:
        """Kill it; what it started ends with it. One that has ended is no error."""

    def wait(self) -> None:
        """Return once it is gone."""

    def close(self) -> None:
        """Let go of it, once it is gone."""


@dataclass(frozen=True)
class Bwrap:
    """A bwrap that this process started."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill its process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Reap it."""
        self.process.wait()

    def close(self) -> None:
        """Let go of it: nothing is held."""


@dataclass
class Started:
    """A sandbox that runs, and the pipes it writes to."""

    handle: Handle
    cgroup: Cgroup | None
    pipes: dict[str, int]
    data: dict[str, bytearray] = field(default_factory=dict)

    def kill(self) -> None:
        """Kill the whole tree."""
        self.handle.kill()
        if self.cgroup:
            self.cgroup.kill()

    def end(self) -> None:
        """Kill the whole tree, wait until it is gone, and give back what was held for it."""
        self.kill()
        self.handle.wait()
        self.handle.close()
        for fd in self.pipes.values():
            os.close(fd)
        if self.cgroup:  # removing it takes the kernel a while, and nobody needs to wait
            threading.Thread(target=self.cgroup.remove).start()


class Running:
    """The processes of one execution; once it is stopped, a process that starts later is killed at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: list[Started] = []
        self._stopped = False

    def add(self, started: Started) -> None:
        """Register a process; kill it where the execution was stopped before."""
        with self._lock:
            self._started.append(started)
            if self._stopped:
                started.kill()

    def remove(self, started: Started) -> None:
        """Forget a process, before what is held for it is given back."""
        with self._lock:
            self._started.remove(started)

    def stop(self) -> None:
        """Kill every process that was started, and every later one."""
        with self._lock:
            self._stopped = True
            for started in self._started:
                started.kill()


def pump(started: Started, limits: Resources, begun: float) -> Exit | None:
    """Read every pipe to its end or its cap; return why we ended the execution, or None."""
    caps = {
        "stdout": limits.output_kb << 10,
        "stderr": limits.output_kb << 10,
        "report": report_parser.MAX_REPORT,
        "outcome": (limits.disk_mb << 20) + (1 << 20),
    }
    deadline = begun + limits.wall_seconds
    started.data = {name: bytearray() for name in started.pipes}
    with selectors.DefaultSelector() as selector:
        for name, fd in started.pipes.items():
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ, name)
        while selector.get_map():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return "timeout"
            for key, _ in selector.select(remaining):
                data = started.data[key.data]
                part = os.read(key.fd, 1 << 16)  # selected for reading: it does not block
                if not part:
                    selector.unregister(key.fd)
                data += part
                if len(data) > caps[key.data]:
                    return "output_cap"
    return None
