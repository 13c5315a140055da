"""Starting a program in a fresh bubblewrap: its arguments, its pipes, its control group.

What is started is a `Program`; a fork server (`fork_server.py`) takes the same.
"""

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from codetape.domain.script_args import INPUTS
from codetape.domain.task import Resources
from codetape.errors import SandboxUnavailable, UsageError
from codetape_adapters.process_identity import owned_name
from codetape_adapters.sandboxes.bubblewrap.cgroups import Cgroup
from codetape_adapters.sandboxes.bubblewrap.cpus import pinned
from codetape_adapters.sandboxes.bubblewrap.guardian import GUARDIAN
from codetape_adapters.sandboxes.bubblewrap.host import SANDBOX_UID, Interpreter
from codetape_adapters.sandboxes.bubblewrap.process import Bwrap, Started
from codetape_adapters.sandboxes.cache import is_root
from codetape_adapters.sandboxes.execution import seccomp
from codetape_adapters.sandboxes.execution.limits import WORK, rlimits
from codetape_adapters.sandboxes.guest import ENV, FIXED_ENV, HARNESS

TMP_BYTES, SHM_BYTES = 64 << 20, 16 << 20


@dataclass(frozen=True)
class Program:
    """What is started in a sandbox. ``words`` follow the environment's Python, or are a whole command without one; of
    tests, ``targets`` follow those.

    ``variables`` are all that it gets; ``stage`` is the folder on the host with the job's files; ``ships`` says that
    what it leaves in /var/outputs is wanted.
    """

    words: tuple[str, ...]
    python: Interpreter
    limits: Resources
    targets: tuple[str, ...] = ()
    environment: Path | None = None
    writable: bool = False
    stage: Path | None = None
    folder: str = WORK
    variables: dict[str, str] = field(default_factory=lambda: dict(FIXED_ENV))
    reports: bool = False
    ships: bool = False

    def settings(self, *, bounded: bool) -> dict[str, int]:
        """Return what the first process of the sandbox keeps to, by init.py's names."""
        return {
            **rlimits(self.limits, bounded=bounded),
            "max_bytes": self.limits.disk_mb << 20 if self.ships else 0,
            "max_files": 200,
            "max_depth": 16,
        }


@dataclass(frozen=True)
class Place:
    """What every bubblewrap of a cache has: the program bwrap, and the folder with what runs inside."""

    bwrap: Path
    harness: Path

    def binds(self, python: Interpreter, environment: Path | None, *, writable: bool = False) -> list[str]:
        """Return the arguments that bind the interpreter, the environment and the harness."""
        binds: list[str] = []
        if not python.prefix.is_relative_to("/usr"):
            binds += ["--ro-bind", str(python.source), str(python.prefix)]
        if environment:
            binds += ["--bind" if writable else "--ro-bind", str(environment), ENV]
        binds += ["--ro-bind", str(self.harness), HARNESS]
        for name in ("passwd", "group", "hosts"):
            binds += ["--ro-bind", str(self.harness / name), f"/etc/{name}"]
        return binds


def start(place: Place, program: Program, cpus: tuple[int, ...]) -> Started:
    """Start a program in a fresh bwrap, whose first process waits at a pipe until it is in its control group."""
    checked(program.variables)
    group = Cgroup.create(owned_name(), program.limits)
    names = ["stdout", "stderr", "outcome", "info", *(["report"] if program.reports else [])]
    pairs = {name: os.pipe() for name in names}
    gate_read, gate_write = os.pipe()
    writes = {name: pair[1] for name, pair in pairs.items()}
    settings = {
        **program.settings(bounded=group is not None),
        "outcome_fd": writes["outcome"],
        "report_fd": writes.get("report", -1),
        "gate_fd": gate_read,
    }
    words = ",".join(f"{name}={value}" for name, value in settings.items())
    command = [*program.words, *program.targets]
    if program.environment:
        command.insert(0, f"{ENV}/bin/python")
    runner = [str(program.python.executable), "-I", "-S", "-B", f"{HARNESS}/init.py", words, *command]
    variables = {"PYTHONPATH": HARNESS, "CODETAPE_WORK": WORK, **program.variables}
    if program.reports:
        variables["CODETAPE_REPORT_FD"] = str(writes["report"])
    binds = place.binds(program.python, program.environment, writable=program.writable)
    binds += _stage_binds(program.stage, program.folder) if program.stage else []
    filter_fd = memory_file(seccomp.program(memory_files=group is not None))
    isolated = [
        *isolation(program.limits, binds, program.folder),
        *("--disable-userns", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--seccomp", str(filter_fd)),
    ]
    kept = [filter_fd, gate_read, *(writes[name] for name in writes if name not in ("stdout", "stderr"))]
    try:
        process = spawn(
            place, [*isolated, "--info-fd", str(writes["info"])], runner, variables, kept, cpus,
            stdout=writes["stdout"], stderr=writes["stderr"],
        )  # fmt: skip
    except BaseException:
        for fd in (gate_write, *(pair[0] for pair in pairs.values())):
            os.close(fd)
        if group:
            group.remove()
        raise
    finally:
        for fd in (gate_read, filter_fd, *writes.values()):
            os.close(fd)
    started = Started(Bwrap(process), group, {name: pair[0] for name, pair in pairs.items()})
    _release(started, gate_write)
    return started


def spawn(
    place: Place,
    isolated: list[str],
    command: list[str],
    variables: dict[str, str],
    kept: list[int],
    cpus: tuple[int, ...] = (),
    *,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start bwrap. Raises SandboxUnavailable. The descriptors in ``kept`` are passed on, and stay open here too."""
    hidden = b"\0".join(word.encode() for n, v in variables.items() for word in ("--setenv", n, v)) + b"\0"
    variables_fd = memory_file(hidden)  # not on the command line, which every user of this machine can read
    account = {"user": SANDBOX_UID, "group": SANDBOX_UID, "extra_groups": []} if is_root() else {}
    try:
        with pinned(cpus):
            process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - argv made here
                [str(place.bwrap), *isolated, "--args", str(variables_fd), "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=[*kept, variables_fd],
                env={"PATH": "/usr/bin:/bin", **GUARDIAN.marked()},
                cwd="/",
                start_new_session=True,
                **account,  # type: ignore[call-overload]  # keyword arguments by case
            )
            return process
    except (OSError, ValueError) as error:
        raise SandboxUnavailable(
            f"bwrap cannot be started: {error}.", remedy="`codetape doctor` says more.", step="bwrap"
        ) from error
    finally:
        os.close(variables_fd)


def checked(variables: dict[str, str]) -> None:
    """Raise UsageError for a variable that none can be."""
    for name, value in variables.items():
        if "\0" in name + value or "=" in name or not (name + value).isprintable():
            raise UsageError(f"The variable {name!r} holds what no variable can.", remedy="Give printable text.")


def _release(started: Started, gate: int) -> None:
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


def writable(limits: Resources, folder: str) -> list[tuple[str, int, str]]:
    """Return the file systems that a program may write to: path, bytes, mode."""
    disk = limits.disk_mb << 20
    return [
        ("/tmp", TMP_BYTES, "1777"),  # noqa: S108 - the sandbox's own
        ("/dev/shm", SHM_BYTES, "1777"),  # noqa: S108 - likewise
        ("/var/outputs", disk, "0777"),
        (folder, disk, "0777"),
    ]


def isolation(limits: Resources, binds: list[str], folder: str = WORK) -> list[str]:
    """Return bwrap's arguments: namespaces and mounts. No variables: other users can read a command line."""
    merged = [part for name in ("bin", "sbin", "lib", "lib64") for part in _system(name)]
    temporary, shared, *own = (
        ["--perms", mode, "--size", str(size), "--tmpfs", path] for path, size, mode in writable(limits, folder)
    )
    return [
        "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--hostname", "sandbox", "--new-session", "--die-with-parent", "--as-pid-1", "--clearenv",
        *temporary,
        "--ro-bind", "/usr", "/usr", *merged,
        "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/alternatives", "/etc/alternatives",
        "--proc", "/proc", "--dev", "/dev", *shared, "--dir", "/var", *(word for words in own for word in words),
        *binds,
        "--chdir", folder, "--remount-ro", "/", "--remount-ro", "/dev",
    ]  # fmt: skip


def _system(name: str) -> list[str]:
    """Return the arguments for a top-level folder of the system: the same link, or a bind."""
    path = Path("/") / name
    if path.is_symlink():
        return ["--symlink", str(path.readlink()).lstrip("/"), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def _stage_binds(stage: Path, folder: str) -> list[str]:
    """Return the arguments that bind a job's files and samples, read-only."""
    binds: list[str] = []
    for file in sorted((stage / "work").iterdir()):
        binds += ["--ro-bind", str(file), f"{folder}/{file.name}"]
    return [*binds, "--ro-bind", str(stage / "inputs"), INPUTS]


def memory_file(data: bytes) -> int:
    """Return a descriptor of a file in memory that holds the data."""
    fd = os.memfd_create("codetape")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
