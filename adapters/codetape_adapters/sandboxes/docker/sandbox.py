"""The Docker sandbox: other Python versions, system packages, other machines; port and outcomes of the embedded one.

Each execution has its own container: no network, a read-only root, an unprivileged user, no capabilities, no new
privileges, bounded memory, processes, CPU and disk, the embedded sandbox's seccomp filter. Files go in and outputs come
out through streams; nothing of the host is mounted.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import docker

from codetape.domain.job import BuildSpec, Job
from codetape.domain.task import SOLUTION_FILE, Resources, SandboxFacts
from codetape.errors import SandboxUnavailable, UsageError
from codetape.ports import BuildRejected, Built, DoctorFinding, Execution, Sandbox, StoredImage
from codetape_adapters.process_identity import gone
from codetape_adapters.sandboxes.cache import cache_root
from codetape_adapters.sandboxes.docker.client import BUILD_SECONDS, LABEL, connect, remove_container, translated
from codetape_adapters.sandboxes.docker.container import Container
from codetape_adapters.sandboxes.docker.images import Base, Images
from codetape_adapters.sandboxes.execution import report_parser, seccomp, staging
from codetape_adapters.sandboxes.execution.limits import WORK, Workers, cancellable
from codetape_adapters.sandboxes.execution.self_test import PASSED, self_test
from codetape_adapters.sandboxes.execution.staging import staged
from codetape_adapters.sandboxes.guest import ENV, GUEST_FOLDER, HARNESS, HARNESS_FILES, invocation

DEFAULT_BASE = "python:3.12-slim"
_OWN_CHECKS = """
try:
    open("/work/solution.py", "a"); problems.append("read-only files")
except OSError: pass
"""


class DockerSandbox(Sandbox):
    """Runs each job in a fresh container. Thread-safe; several of them share images, not containers."""

    def __init__(self, base: str = "", cache: Path | None = None) -> None:
        self._base_name = base or os.environ.get("CODETAPE_BASE_IMAGE") or DEFAULT_BASE
        self._cache_override = cache
        self._lock = threading.Lock()
        self._workers = Workers()
        self._checked: set[str] = set()

    # ---- the port

    def facts(self) -> SandboxFacts:
        """Say what this sandbox is: which base, which Python; with system packages."""
        base = self._base("")
        self._check(base)
        return SandboxFacts(
            name="docker",
            python=base.version,
            system_packages=True,
            commands=True,
            tree_memory_bounded=True,
            base=base.name,
            evaluates=True,
        )

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Find or build the image."""
        return await asyncio.to_thread(self._build, spec)

    async def execute(self, job: Job) -> Execution:
        """Run a job; on cancellation its container is gone before this returns."""
        running: list[Container] = []

        def stop() -> None:
            for container in running:
                container.stop()

        return await cancellable(self._workers.submit(self._execute, job, running.append), stop)

    def images(self) -> list[StoredImage]:
        """Return the images of this engine that are ours; connecting to it sweeps what dead processes left."""
        return self._images.stored() if self._client else []

    def remove_image(self, key: str) -> bool:
        """Remove one."""
        return self._images.remove(key)

    def doctor(self) -> Iterable[DoctorFinding]:
        """Check whether an engine answers; nothing needs one."""
        try:
            version = str(self._client.version().get("Version", ""))
        except SandboxUnavailable as error:
            return (DoctorFinding("docker", "note", "no engine answers; nothing needs one", error.remedy),)
        return (DoctorFinding("docker", "well", f"engine {version}"),)

    def close(self) -> None:
        """Close the connections to the engine."""
        for name in ("_client", "_builder"):
            if name in self.__dict__:
                self.__dict__[name].close()

    # ---- parts

    @cached_property
    def _client(self) -> docker.DockerClient:
        client = connect()
        sweep(client)
        staging.sweep((self._cache_override or cache_root()) / "docker" / "runs")
        return client

    @cached_property
    def _builder(self) -> docker.DockerClient:
        """A second client, with a longer timeout, for builds and pulls."""
        return connect(BUILD_SECONDS)

    @cached_property
    def _images(self) -> Images:
        network = os.environ.get("CODETAPE_DOCKER_BUILD_NETWORK") or "default"
        return Images(self._builder, self._cache_override or cache_root(), network)

    @cached_property
    def _files(self) -> dict[str, bytes]:
        """The runner, the reporter and the filter, by their place in the container."""
        files = {f"{HARNESS}/{name}": (GUEST_FOLDER / name).read_bytes() for name in HARNESS_FILES}
        return {**files, f"{HARNESS}/pytest.ini": b"[pytest]\n", f"{HARNESS}/filter": self._filter}

    @cached_property
    def _filter(self) -> bytes:
        return seccomp.program()

    @cached_property
    def _frames(self) -> str:
        return (GUEST_FOLDER / "container_init.py").read_text("utf-8")

    def _base(self, version: str, name: str = "") -> Base:
        with self._lock:
            return self._images.base(name or self._base_name, version)

    def _build(self, spec: BuildSpec) -> Built | BuildRejected:
        base = self._base(spec.python_version, spec.base)
        return self._images.build(spec, base)

    def _check(self, base: Base) -> None:
        """Run the self-test, once a base. Raises SandboxUnavailable, naming what is missing."""
        if base.id in self._checked:
            return
        files = {**self._files, f"{WORK}/{SOLUTION_FILE}": b"pass\n"}
        limits = Resources(wall_seconds=60, memory_mb=256)
        container = self._container(base.id, base, limits)
        raw = container.run(
            [base.executable, "-I", "-S", "-c", self_test(_OWN_CHECKS)], {}, files, None, confined=True, report=False
        )
        if PASSED not in raw.stdout:
            output = (raw.stdout + raw.stderr + raw.outcome).decode("utf-8", "replace").strip()[-300:]
            raise SandboxUnavailable(
                f"The container's self-test failed: {output or 'no answer'}",
                remedy="`docker info` says more.",
                step="self-test",
            )
        self._checked.add(base.id)

    def _container(self, image: str, base: Base, limits: Resources) -> Container:
        return Container(self._client, image, base, limits, self._frames)

    def _execute(self, job: Job, register: Callable[[Container], None]) -> Execution:
        built = self._build(job.spec)
        if isinstance(built, BuildRejected):
            raise SandboxUnavailable(
                f"The image {job.spec.name} is gone, and cannot be built again: {built.message[:300]}", step="build"
            )
        base = self._base(job.spec.python_version, job.spec.base)
        for name, value in job.env.items():
            if "\0" in name + value or "=" in name or not (name + value).isprintable():
                raise UsageError(f"The variable {name!r} holds what no variable can.", remedy="Give printable text.")
        started_by, folder = invocation(job), job.conditions.folder
        files = {**self._files, **{f"{folder}/{name}": text.encode() for name, text in job.files.items()}}
        container = self._container(f"{job.spec.name}:latest", base, job.resources)
        register(container)
        with staged(self._images.folder / "runs", job, owner=None) as stage:
            inputs = stage / "inputs" if any(i.sample for i in job.inputs) else None
            command = [f"{ENV}/bin/python", *started_by.words, *started_by.targets]
            raw = container.run(
                command, started_by.variables, files, inputs, folder=folder, confined=True, report=started_by.reports
            )
        return report_parser.read(report_parser.relocated(raw, base.prefix), job)


def sweep(client: docker.DockerClient) -> int:
    """Remove the containers of processes of this machine that are gone; return how many."""
    removed = 0
    with translated("sweep"):
        for container in client.containers.list(all=True, filters={"label": f"{LABEL}=run"}, ignore_removed=True):
            labels: dict[str, Any] = container.labels
            owner = [labels.get(f"{LABEL}.{name}", "") for name in ("host", "boot", "pid", "start")]
            if gone(owner[0], owner[1], int(owner[2] or 0), owner[3]):
                removed += remove_container(client, container.id)
    return removed


def create(base: str = "") -> DockerSandbox:
    """Make the sandbox; ``base`` names its base image."""
    return DockerSandbox(base)
