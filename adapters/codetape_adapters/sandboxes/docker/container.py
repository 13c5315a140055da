"""One execution in its own container: created, started, filled, read, killed and removed."""

import io
import socket
import struct
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker

from codetape.domain.report import Exit
from codetape.domain.task import Resources
from codetape.errors import SandboxUnavailable
from codetape_adapters.sandboxes.docker.client import owner_labels, remove_container, translated
from codetape_adapters.sandboxes.docker.images import Base
from codetape_adapters.sandboxes.execution import report_parser
from codetape_adapters.sandboxes.execution.limits import GRACE_SECONDS, WORK, rlimits

HARNESS = "/opt/codetape"
_FILES = 100_000  # in each file system that a program may write to
_UNPACK = (
    "import sys,tarfile,os\n"
    "t=tarfile.open(fileobj=sys.stdin.buffer,mode='r|')\n"
    "for m in t:\n"
    "    p='/'+m.name\n"
    "    os.makedirs(os.path.dirname(p),exist_ok=True)\n"
    "    with open(p,'xb') as out: out.write(t.extractfile(m).read())\n"
    "    os.chmod(p,0o444)\n"
    "os.chmod(sys.argv[1],0o1777)\n"  # the engine gives a mount the mode of what lay there; sticky: nobody takes files away
    "print('unpacked')\n"
)


class Container:
    """A container for one execution. It is removed on every way out, and by its label after a kill of this process."""

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        base: Base,
        limits: Resources,
        frames: str,
    ) -> None:
        self._client, self._base, self._limits = client, base, limits
        self._image, self._frames = image, frames
        self._id = ""
        self._attachment: Any = None
        self._killed = False

    def run(
        self,
        command: list[str],
        env: dict[str, str],
        files: dict[str, bytes],
        inputs: Path | None,
        *,
        folder: str = WORK,
        confined: bool,
        report: bool,
    ) -> report_parser.Raw:
        """Run a command with files laid out read-only; return what came of it. Raises SandboxUnavailable."""
        begun = time.monotonic()
        with translated("container"):
            try:
                self._create(command, env, inputs, folder, confined=confined, report=report)
                stream = self._attached()
                self._client.api.start(self._id)
                data: dict[str, bytearray] = {name: bytearray() for name in "oercs"}
                frames = _Frames(stream)
                self._await_ready(frames, data)
                self._fill(files, folder)
                started = time.monotonic()
                self._client.api.kill(self._id, signal="SIGUSR1")
                stopped = self._pump(frames, data, started)
                self._detach()  # before the kill: the engine waits until all output is read, or no reader is attached
                self._kill()
                state = self._state()
            finally:
                self.remove()
        counters = dict(
            part.split("=") for part in bytes(data["s"]).decode("ascii", "replace").split(",") if part.count("=") == 1
        )
        return report_parser.Raw(
            report=bytes(data["r"]) if report else b"",
            outcome=bytes(data["c"]),
            stdout=bytes(data["o"]),
            stderr=bytes(data["e"]),
            stopped=stopped,
            duration_ms=int((time.monotonic() - begun) * 1000),
            tree_memory_bounded=True,
            oom=bool(state.get("OOMKilled")) or counters.get("oom_kill", "0") != "0",
            pids=counters.get("max", "0") != "0",
        )

    def stop(self) -> None:
        """Kill the container, if it runs; the end of its stream wakes the thread that waits for it."""
        self._killed = True
        with suppress(docker.errors.DockerException, OSError):
            self._kill()

    def remove(self) -> None:
        """Remove the container and its volume, and let go of its stream."""
        self._detach()
        if self._id:
            remove_container(self._client, self._id)

    # ---- steps

    def _detach(self) -> None:
        if self._attachment is not None:
            _close(self._attachment)
            self._attachment = None

    def _create(
        self, command: list[str], env: dict[str, str], inputs: Path | None, folder: str, *, confined: bool, report: bool
    ) -> None:
        limits, api = self._limits, self._client.api
        memory, disk = limits.memory_mb << 20, limits.disk_mb << 20
        filter_file = f"{HARNESS}/filter" if confined else ""
        values = {
            **rlimits(limits, bounded=True),
            "max_bytes": disk,
            "max_files": 200,
            "max_depth": 16,
            "reports": int(report),
        }
        # It counts a user's processes on the whole host; pids_limit below counts those of the container.
        del values["RLIMIT_NPROC"]
        settings = ",".join(f"{name}={value}" for name, value in values.items())
        program = [
            self._base.executable,
            "-I",
            "-S",
            "-B",
            "-c",
            self._frames,
            filter_file,
            f"{HARNESS}/init.py",
            settings,
            *command,
        ]
        host = api.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=limits.processes + 4,
            nano_cpus=int(float(limits.cpus) * 1e9),
            ipc_mode="private",
            shm_size=16 << 20,
            log_config=docker.types.LogConfig(type="none"),
            ulimits=[
                docker.types.Ulimit(name="nofile", soft=256, hard=256),
                docker.types.Ulimit(name="core", soft=0, hard=0),
            ],
            tmpfs={
                "/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={64 << 20},nr_inodes={_FILES}",  # noqa: S108 - the container's own
                folder: f"rw,nosuid,nodev,exec,mode=1777,size={disk},nr_inodes={_FILES}",
                "/var/outputs": f"rw,nosuid,nodev,mode=1777,size={disk},nr_inodes={_FILES}",
                HARNESS: f"rw,nosuid,nodev,mode=0755,size={1 << 20}",
            },
        )
        container = api.create_container(
            self._image,
            command=program,
            entrypoint=[],
            user="1000:1000",
            hostname="sandbox",
            working_dir=folder,
            environment=env,
            network_disabled=True,
            labels=owner_labels(),
            host_config=host,
            volumes=["/var/inputs"],
            stdin_open=False,
            stop_signal="SIGKILL",
        )
        self._id = container["Id"]
        if inputs is not None:
            api.put_archive(self._id, "/var/inputs", _archive_of(inputs))
        if self._killed:
            raise SandboxUnavailable("The execution was stopped.", step="container")

    def _attached(self) -> Any:
        """Attach to the container's output before it starts; return the raw socket."""
        self._attachment = self._client.api.attach_socket(self._id, params={"stdout": 1, "stderr": 1, "stream": 1})
        return getattr(self._attachment, "_sock", self._attachment)

    def _await_ready(self, frames: "_Frames", data: dict[str, bytearray]) -> None:
        deadline = time.monotonic() + 30
        while bytes(data["s"]) != b"ready":
            if not frames.take(data, deadline - time.monotonic()) or time.monotonic() > deadline:
                output = bytes(frames.stray[-300:]).decode("utf-8", "replace")
                raise SandboxUnavailable(
                    f"The container did not start: {output or 'no word of why'}",
                    remedy="`docker info` says more.",
                    step="container",
                )
        data["s"].clear()

    def _fill(self, files: dict[str, bytes], folder: str) -> None:
        """Lay the files out as root, which has no capabilities here but owns them: the program cannot change them."""
        api = self._client.api
        command = [self._base.executable, "-I", "-S", "-c", _UNPACK, folder]
        instance = api.exec_create(self._id, command, stdin=True, stdout=True, stderr=True, user="0:0")
        attachment = api.exec_start(instance["Id"], socket=True)
        raw = getattr(attachment, "_sock", attachment)
        raw.settimeout(60)
        raw.sendall(_archive(files))
        raw.shutdown(socket.SHUT_WR)
        output = b""
        while part := raw.recv(1 << 16):
            output += part
        _close(attachment)
        if b"unpacked" not in output:
            raise SandboxUnavailable(f"The job's files could not be laid out: {output[-200:]!r}", step="stage")

    def _pump(self, frames: "_Frames", data: dict[str, bytearray], begun: float) -> Exit | None:
        """Take frames to the end, the time limit or a cap; return why we ended the execution, or None."""
        limits = self._limits
        caps = {
            "o": limits.output_kb << 10,
            "e": limits.output_kb << 10,
            "r": report_parser.MAX_REPORT,
            "c": (limits.disk_mb << 20) + (1 << 20),
            "s": 1 << 16,
        }
        deadline = begun + limits.wall_seconds
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return "timeout"
            try:
                if not frames.take(data, remaining):
                    return None
            except TimeoutError:
                return "timeout"
            for name, cap in caps.items():
                if len(data[name]) > cap:
                    return "output_cap"

    def _kill(self) -> None:
        with suppress(docker.errors.APIError):  # it has ended
            self._client.api.kill(self._id, signal="SIGKILL")
        with suppress(docker.errors.APIError):
            self._client.api.wait(self._id, timeout=GRACE_SECONDS + 25)

    def _state(self) -> dict[str, Any]:
        return dict(self._client.api.inspect_container(self._id)["State"])


def _close(stream: Any) -> None:
    """Close what the engine's client gave, and the socket below it, which it leaves open."""
    for handle in (getattr(stream, "_response", None), stream, getattr(stream, "_sock", None)):
        with suppress(OSError, AttributeError, ValueError):
            handle.close()  # type: ignore[union-attr]  # a missing handle raises AttributeError


class _Frames:
    """Our own frames, unwrapped from the engine's frames on a socket."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._raw, self._body = stream, bytearray(), bytearray()
        self.stray = bytearray()

    def take(self, data: dict[str, bytearray], seconds: float) -> bool:
        """Wait for more and sort it into the channels; False at the end. Raises TimeoutError."""
        self._stream.settimeout(max(0.01, seconds))
        part = self._stream.recv(1 << 18)
        if not part:
            return False
        self._raw += part
        for kind, body in self._engine():
            if kind == 1:
                self._body += body
            else:
                self.stray += body[: 4096 - len(self.stray)]
        while len(self._body) >= 5:
            size = struct.unpack(">I", self._body[1:5])[0]
            if len(self._body) < 5 + size:
                break
            name = chr(self._body[0])
            if name in data:
                data[name] += self._body[5 : 5 + size]
            del self._body[: 5 + size]
        return True

    def _engine(self) -> Iterator[tuple[int, bytes]]:
        while len(self._raw) >= 8:
            kind, size = struct.unpack(">BxxxI", self._raw[:8])
            if len(self._raw) < 8 + size:
                return
            yield kind, bytes(self._raw[8 : 8 + size])
            del self._raw[: 8 + size]


def _archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _archive_of(folder: Path) -> bytes:
    """Return a folder's files as an archive, owned by root and readable by all."""
    stream = io.BytesIO()

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.mode = 0o755 if member.isdir() else 0o444
        return member

    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=plain)
    return stream.getvalue()
