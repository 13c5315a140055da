"""Fork servers: a sandbox in which pytest is imported and nothing runs; each of its forks becomes a sandbox of its own.

What starts with pytest takes 150 ms to import it. A fork has it, and isolates itself as a fresh bubblewrap does
(`guest/isolated_forks.py`): it shares namespaces, file systems and rights with no other. A server is one for each environment and
set of variables, since what Python reads at its start cannot be changed later. It never runs a job, and never holds anything
of one. Where the first fork does not pass the sandbox's self-test there are none, and every program starts in a fresh bubblewrap.
"""

import atexit
import json
import os
import queue
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from codetape.domain.script_args import INPUTS
from codetape.errors import SandboxUnavailable
from codetape_adapters.process_identity import owned_name
from codetape_adapters.sandboxes.bubblewrap.cgroups import Cgroup
from codetape_adapters.sandboxes.bubblewrap.launch import Place, Program, checked, isolation, spawn, writable
from codetape_adapters.sandboxes.bubblewrap.process import Started, pump
from codetape_adapters.sandboxes.execution import seccomp
from codetape_adapters.sandboxes.execution.self_test import LIMITS as SELF_TEST_LIMITS
from codetape_adapters.sandboxes.execution.self_test import PASSED
from codetape_adapters.sandboxes.guest import ENV, HARNESS

MOST = 4  # servers of this process at once; each holds some 30 MB
IDLE_SECONDS = 60  # after which one that nobody uses is ended
READY_SECONDS = 30
OF_A_JOB = ("CODETAPE_DESELECT", "CODETAPE_REVERSE")  # read when the tests begin, not when Python does
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class Forked:
    """A fork of a server: no child of this process, so it is held by a descriptor."""

    pidfd: int

    def kill(self) -> None:
        """Kill it: it is process 1 of its namespace."""
        with suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll()

    def close(self) -> None:
        """Let go of it."""
        os.close(self.pidfd)


@dataclass
class ForkServer:
    """One server. ``folder`` is where files of its jobs are staged."""

    folder: Path
    process: subprocess.Popen[bytes]
    channel: socket.socket
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    def start(self, program: Program, cpus: tuple[int, ...], check: str = "") -> Started | None:
        """Start a program, whose stage lies in this server's folder, in a fork; None where no fork comes of it.

        ``check`` is the text of one that runs in place of the tests.
        """
        checked(program.variables)
        with ExitStack() as undo:
            group = Cgroup.create(owned_name(), program.limits)
            if group:
                undo.callback(group.remove)
            pipes = {name: os.pipe() for name in ("stdout", "stderr", "outcome", "report")}
            for read, _ in pipes.values():
                undo.callback(os.close, read)
            host, guest = socket.socketpair()
            try:
                with host:
                    pid = self._forked(host, guest, self._asked(program, check, bounded=group is not None), pipes)
                    forked = Forked(os.pidfd_open(pid))
                    undo.callback(forked.close)
                    undo.callback(forked.kill)
                    if group:
                        group.add(pid)
                    if cpus:
                        os.sched_setaffinity(pid, cpus)
                    if (said := host.recv(1000)) != b"ready\n":
                        raise OSError(said.decode("utf-8", "replace"))
                    host.sendall(b"x")  # it waited for this
            except OSError:
                return None
            finally:
                guest.close()
                for _, write in pipes.values():
                    os.close(write)
            undo.pop_all()
        return Started(forked, group, {name: read for name, (read, _) in pipes.items()})

    def _asked(self, program: Program, check: str, *, bounded: bool) -> bytes:
        asked = {
            "check": check,
            "targets": program.targets,
            "variables": program.variables,
            "folder": program.folder,
            "stage": program.stage.name if program.stage else "",
            "writable": writable(program.limits, program.folder),
            "settings": program.settings(bounded=bounded),
            "filter": seccomp.program(memory_files=bounded).hex(),
        }
        return json.dumps(asked).encode() + b"\n"

    def _forked(
        self, host: socket.socket, guest: socket.socket, asked: bytes, pipes: dict[str, tuple[int, int]]
    ) -> int:
        """Have a fork made, which begins to isolate itself; return which process it is here. Raises OSError."""
        host.settimeout(READY_SECONDS)
        host.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        socket.send_fds(self.channel, [b"f"], [guest.fileno()])
        sent = socket.send_fds(host, [asked], [write for _, write in pipes.values()])
        host.sendall(asked[sent:])
        guest.close()
        said, extra, _, _ = host.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
        found = [data for level, kind, data in extra if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
        if not said or not found:
            raise OSError("the fork server has ended")
        return int(_CREDENTIALS.unpack(found[0])[0])

    def end(self) -> None:
        """Kill the server, which nobody uses or which has ended; a second time does nothing."""
        self.channel.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


_Key = tuple[object, ...]
_Pending = Future[ForkServer | None]


class _Wanted(NamedTuple):
    """A server to start, and where it is awaited."""

    found: _Pending
    place: Place
    program: Program
    runs: Path
    self_test: str


class ForkServers:
    """The servers of this process. Thread-safe; a fork of this process has none."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.close)

    def _reset(self) -> None:
        """Begin again: what a parent started is the parent's."""
        self._lock = threading.Lock()
        self._servers: dict[_Key, _Pending] = {}
        self._wanted: queue.SimpleQueue[_Wanted] | None = None
        self._unusable = False

    @contextmanager
    def of(self, place: Place, program: Program, runs: Path, self_test: str) -> Iterator[ForkServer | None]:
        """Yield a server for programs like this one, which stays while it is used; None where there can be none.

        Its folder is below ``runs``. ``self_test`` is what its first fork runs before any other.
        """
        server = self._taken(place, program, runs, self_test)
        try:
            yield server
        finally:
            if server is not None:
                with self._lock:
                    server.users -= 1
                    server.used = time.monotonic()

    def _taken(self, place: Place, program: Program, runs: Path, self_test: str) -> ForkServer | None:
        variables = {name: value for name, value in program.variables.items() if name not in OF_A_JOB}
        alike = replace(program, variables=variables, targets=())
        key = (place, alike.words, alike.python, alike.environment, alike.folder, runs, *sorted(variables.items()))
        with self._lock:
            if self._unusable:
                return None
            found = self._servers.pop(key, None)
            if found is None:
                found = Future()
                self._start(_Wanted(found, place, alike, runs, self_test))
            self._servers[key] = found  # the last one asked for is the last one
            self._end_some(keep=found)
        server = found.result()
        with self._lock:
            if server is None or server.process.poll() is not None:
                self._unusable = self._unusable or server is None
                if self._servers.get(key) is found:
                    del self._servers[key]
                    if server is not None:
                        server.end()
                return None
            server.users += 1
        return server

    def _start(self, wanted: "_Wanted") -> None:
        """Have a server started by a thread that stays: bwrap dies with the thread that started it."""
        if self._wanted is None:
            self._wanted = queue.SimpleQueue()
            threading.Thread(target=self._keep, args=(self._wanted,), daemon=True, name="fork servers").start()
        self._wanted.put(wanted)

    def _keep(self, queued: "queue.SimpleQueue[_Wanted]") -> None:
        while True:
            try:
                wanted = queued.get(timeout=IDLE_SECONDS / 2)
            except queue.Empty:
                self.end_idle()
                continue
            try:
                wanted.found.set_result(started(wanted.place, wanted.program, wanted.runs, wanted.self_test))
            except Exception:  # noqa: BLE001 - whatever it is, who waits for it starts fresh
                wanted.found.set_result(None)

    def _end_some(self, keep: _Pending | None = None) -> None:
        """End what is idle, and the longest unused of too many."""
        now = time.monotonic()
        for key, found in list(self._servers.items()):
            server = found.result() if found.done() else None
            if found is keep or server is None or server.users:
                continue
            if len(self._servers) > MOST or now - server.used > IDLE_SECONDS:
                del self._servers[key]
                server.end()

    def end_idle(self) -> None:
        """End those that nobody has used for a while."""
        with self._lock:
            self._end_some()

    @property
    def pids(self) -> list[int]:
        """The processes of those that run."""
        with self._lock:
            servers = [found.result() for found in self._servers.values() if found.done()]
        return [server.process.pid for server in servers if server is not None]

    @property
    def running(self) -> int:
        """How many there are."""
        return len(self.pids)

    def close(self) -> None:
        """End them all."""
        with self._lock:
            for found in self._servers.values():
                if found.done() and (server := found.result()) is not None:
                    server.end()
            self._servers.clear()


def started(place: Place, program: Program, runs: Path, self_test: str) -> ForkServer | None:
    """Start a server, and look whether its forks are isolated; None where they are not."""
    folder = runs / owned_name()
    for part in (folder, folder / "self-test", folder / "self-test" / "work", folder / "self-test" / "inputs"):
        part.mkdir(mode=0o711, parents=True)
        part.chmod(0o711 if part == folder else 0o755)
    ours, theirs = socket.socketpair()
    with theirs:
        binds = [*place.binds(program.python, program.environment), "--ro-bind", str(folder), INPUTS]
        isolated = [*isolation(SELF_TEST_LIMITS, binds, program.folder), "--uid", "0", "--gid", "0", "--cap-add", "ALL"]
        variables = {**program.variables, "PYTHONPATH": HARNESS, "CODETAPE_SOCKET": str(theirs.fileno())}
        command = [f"{ENV}/bin/python", *program.words]
        server = ForkServer(folder, spawn(place, isolated, command, variables, [theirs.fileno()]), ours)
    ours.settimeout(READY_SECONDS)
    try:
        if ours.recv(3) == b"up\n" and _passes(server, program, self_test):
            return server
    except BaseException as error:
        server.end()
        if isinstance(error, OSError | SandboxUnavailable):
            return None
        raise
    server.end()
    return None


def _passes(server: ForkServer, program: Program, self_test: str) -> bool:
    check = replace(program, limits=SELF_TEST_LIMITS, stage=server.folder / "self-test")
    running = server.start(check, (), self_test)
    if running is None:
        return False
    try:
        pump(running, SELF_TEST_LIMITS, time.monotonic())
        return PASSED in running.data["stdout"]
    finally:
        running.end()


FORK_SERVERS = ForkServers()
"""One a process: its sandboxes share it."""
