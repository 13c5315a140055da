"""A control group for one execution, where they are available: limits that bind the whole process tree.

Version 1 (memory, pids and cpu hierarchies) and version 2 are both supported. Where neither is writable there is no
group, and the report says that the tree's memory was not bounded.
"""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codetape.domain.task import Resources
from codetape_adapters.process_identity import is_abandoned

ROOT = Path("/sys/fs/cgroup")
_PREFIX = "codetape-"


@dataclass(frozen=True)
class Cgroup:
    """The folders of one group: one for each hierarchy of version 1, or a single one."""

    folders: tuple[Path, ...]

    @classmethod
    def create(cls, name: str, limits: Resources, root: Path = ROOT) -> "Cgroup | None":
        """Make a group with these limits, or return None where that cannot be done here."""
        version_2 = (root / "cgroup.controllers").exists()
        root = delegated(root) if version_2 else root
        kinds = ("memory", "pids") if whole_cpus(limits) else ("memory", "pids", "cpu")
        parents = [root] if version_2 else [root / kind for kind in kinds]
        if not all(p.is_dir() for p in parents):
            return None
        group = cls(tuple(p / f"{_PREFIX}{name}" for p in parents))
        try:
            if version_2:
                _enable(root)
            for folder in group.folders:
                folder.mkdir()
            for file, value in _settings(limits, version_2=version_2):
                _write(group, file, value)
        except OSError:
            group.remove()
            return None
        return group

    @classmethod
    def sweep(cls, root: Path = ROOT) -> int:
        """Kill and remove the groups of processes that were killed; return how many folders there were."""
        parents = [root, delegated(root), *(root / kind for kind in ("memory", "pids", "cpu"))]
        left = [
            folder
            for parent in parents
            if parent.is_dir()
            for folder in parent.glob(f"{_PREFIX}*")
            if is_abandoned(folder.name.removeprefix(_PREFIX))
        ]
        for folder in left:
            cls((folder,)).remove()
        return len(left)

    def add(self, pid: int) -> None:
        """Put a process in; its later children are in too."""
        with ThreadPoolExecutor(len(self.folders)) as pool:  # each write waits for the kernel's grace period
            list(
                pool.map(lambda folder: (folder / "cgroup.procs").write_text(str(pid), encoding="utf-8"), self.folders)
            )

    def kill(self) -> None:
        """Kill everything in the group."""
        for pid in self._pids():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def oom_killed(self) -> bool:
        """Whether the kernel killed something for its memory."""
        return self._counter("memory.oom_control", "oom_kill") + self._counter("memory.events", "oom_kill") > 0

    def forks_refused(self) -> bool:
        """Whether the limit on processes was met."""
        return self._counter("pids.events", "max") > 0

    def remove(self) -> None:
        """Remove the group, once it is empty."""
        for folder in self.folders:
            for _ in range(100):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    self.kill()
                    time.sleep(0.01)

    def _pids(self) -> Iterator[int]:
        for folder in self.folders[:1]:
            with suppress(OSError):
                yield from map(int, (folder / "cgroup.procs").read_text("utf-8").split())

    def _counter(self, file: str, name: str) -> int:
        for folder in self.folders:
            with suppress(OSError, ValueError):
                for line in (folder / file).read_text("utf-8").splitlines():
                    key, _, value = line.partition(" ")
                    if key == name:
                        return int(value)
        return 0


def whole_cpus(limits: Resources) -> int:
    """Return the number of CPUs where it is a whole one, else 0: pinning a process to whole CPUs costs nothing.

    Version 1 has a hierarchy of its own for shares of a CPU, and each hierarchy that a process joins costs
    milliseconds.
    """
    cpus = float(limits.cpus)
    return int(cpus) if cpus == int(cpus) else 0


def delegated(root: Path, own: Path = Path("/proc/self/cgroup")) -> Path:
    """Return the group of version 2 below which this process may make groups: the root where it may, or the nearest one
    above its own that was handed to its user with memory and processes, as systemd does for a user's own services."""
    if os.access(root / "cgroup.procs", os.W_OK):
        return root
    with suppress(OSError, StopIteration):
        line = next(line for line in own.read_text("utf-8").splitlines() if line.startswith("0::/"))
        group = root / line.removeprefix("0::/")
        for parent in group.parents:
            if parent == root or root not in parent.parents:
                break
            handed_down = (parent / "cgroup.subtree_control").read_text("utf-8").split()
            if os.access(parent / "cgroup.procs", os.W_OK) and {"memory", "pids"} <= {*handed_down}:
                return parent
    return root


def _enable(root: Path) -> None:
    """Hand the controllers down to groups below the root."""
    enabled = set((root / "cgroup.subtree_control").read_text("utf-8").split())
    missing = {"memory", "pids", "cpu"} - enabled
    if missing & {"memory", "pids"}:
        (root / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in sorted(missing)), encoding="utf-8")
    elif missing:  # whole CPUs bind without it
        with suppress(OSError):
            (root / "cgroup.subtree_control").write_text("+cpu", encoding="utf-8")


def _settings(limits: Resources, *, version_2: bool) -> list[tuple[str, str]]:
    memory, processes = str(limits.memory_mb << 20), str(limits.processes + 4)
    quota = max(1000, int(float(limits.cpus) * 100_000))
    if version_2:
        return [
            ("memory.max", memory),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", processes),
            ("cpu.max", f"{quota} 100000"),
        ]
    return [
        ("memory.limit_in_bytes", memory),
        ("memory.memsw.limit_in_bytes", memory),
        ("pids.max", processes),
        *([] if whole_cpus(limits) else [("cpu.cfs_quota_us", str(quota))]),
    ]


def _write(group: Cgroup, file: str, value: str) -> None:
    optional = file in ("memory.swap.max", "memory.oom.group", "memory.memsw.limit_in_bytes", "cpu.max")
    for folder in group.folders:
        if (folder / file).exists():
            (folder / file).write_text(value, encoding="utf-8")
            return
    if not optional:
        raise FileNotFoundError(file)
