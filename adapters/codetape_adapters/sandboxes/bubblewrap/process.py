"""Starting a sandbox's process and reading its output: bwrap's arguments, its pipes, its limits, its end."""

import json
import os
import selectors
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from codetape.domain.report import Exit
from codetape.domain.script_args import INPUTS
from codetape.domain.task import Resources
from codetape_adapters.sandboxes.bubblewrap.cgroups import Cgroup
from codetape_adapters.sandboxes.execution import report_parser
from codetape_adapters.sandboxes.execution.limits import WORK


@dataclass
class Started:
    """A running bwrap, and the pipes it writes to."""

    process: subprocess.Popen[bytes]
    cgroup: Cgroup | None
    pipes: dict[str, int]
    data: dict[str, bytearray] = field(default_factory=dict)

    def kill(self) -> None:
        """Kill the whole tree."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.cgroup:
            self.cgroup.kill()


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

    def stop(self) -> None:
        """Kill every process that was started, and every later one."""
        with self._lock:
            self._stopped = True
            for started in self._started:
                started.kill()


def release(started: Started, gate: int) -> None:
    """Put the sandbox into its control group, then let it continue."""
    info = b""
    fd = started.pipes.pop("info")
    try:
        while part := os.read(fd, 4096):
            info += part
        child = json.loads(info)["child-pid"] if info else None
        if started.cgroup and child:
            started.cgroup.add(child)
    except (OSError, ValueError, KeyError):
        started.kill()
    finally:
        os.close(fd)
        with suppress(OSError):
            os.write(gate, b"x")
        os.close(gate)


def isolation(limits: Resources, binds: list[str], folder: str = WORK) -> list[str]:
    """Return bwrap's arguments: namespaces, mounts, rights. No variables: other users can read a command line."""
    disk = str(limits.disk_mb << 20)
    merged = [part for name in ("bin", "sbin", "lib", "lib64") for part in _system(name)]
    return [
        "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--disable-userns", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", "sandbox",
        "--new-session", "--die-with-parent", "--as-pid-1", "--clearenv",
        "--size", str(64 << 20), "--perms", "1777", "--tmpfs", "/tmp",  # noqa: S108 - the sandbox's own
        "--ro-bind", "/usr", "/usr", *merged,
        "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/alternatives", "/etc/alternatives",
        "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(16 << 20), "--tmpfs", "/dev/shm",  # noqa: S108 - likewise
        "--dir", "/var", "--size", disk, "--perms", "0777", "--tmpfs", "/var/outputs",
        "--size", disk, "--perms", "0777", "--tmpfs", folder,
        *binds,
        "--chdir", folder, "--remount-ro", "/", "--remount-ro", "/dev",
    ]  # fmt: skip


def _system(name: str) -> list[str]:
    """Return the arguments for a top-level folder of the system: the same link, or a bind."""
    path = Path("/") / name
    if path.is_symlink():
        return ["--symlink", str(path.readlink()).lstrip("/"), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def stage_binds(stage: Path, folder: str) -> list[str]:
    """Return the arguments that bind a job's files and samples, read-only."""
    binds: list[str] = []
    for file in sorted((stage / "work").iterdir()):
        binds += ["--ro-bind", str(file), f"{folder}/{file.name}"]
    return [*binds, "--ro-bind", str(stage / "inputs"), INPUTS]


def memory_file(data: bytes) -> int:
    """Return a descriptor of a file in memory that holds the data."""
    fd = os.memfd_create("seccomp")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


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
