"""The embedded sandbox: bubblewrap with no rights, no network, and no view of the host. Never unconfined.

The self-test runs once a process, through the exact argv of an execution: where the isolation is unavailable,
the adapter refuses, and says which step failed and what to do.
"""

import asyncio
import hashlib
import json
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from math import ceil
from pathlib import Path

from codetape.domain.job import BuildSpec, Job
from codetape.domain.task import Resources, SandboxFacts
from codetape.errors import SandboxUnavailable
from codetape.ports import BuildRejected, Built, DoctorFinding, Execution, Sandbox, StoredImage
from codetape_adapters.process_identity import owned_name
from codetape_adapters.sandboxes.bubblewrap import doctor, launch
from codetape_adapters.sandboxes.bubblewrap.cgroups import Cgroup
from codetape_adapters.sandboxes.bubblewrap.cpus import Cpus
from codetape_adapters.sandboxes.bubblewrap.environment_cache import Environments
from codetape_adapters.sandboxes.bubblewrap.fork_server import FORK_SERVERS, ForkServer
from codetape_adapters.sandboxes.bubblewrap.host import SANDBOX_UID, Interpreter, bwrap, checked_cache, interpreter
from codetape_adapters.sandboxes.bubblewrap.launch import Place, Program
from codetape_adapters.sandboxes.bubblewrap.process import Running, pump
from codetape_adapters.sandboxes.cache import cache_root, is_root
from codetape_adapters.sandboxes.execution import report_parser, staging
from codetape_adapters.sandboxes.execution.limits import Workers, cancellable
from codetape_adapters.sandboxes.execution.self_test import LIMITS as SELF_TEST_LIMITS
from codetape_adapters.sandboxes.execution.self_test import PASSED, self_test
from codetape_adapters.sandboxes.execution.staging import staged
from codetape_adapters.sandboxes.guest import ENV, GUEST_FOLDER, HARNESS_FILES, invocation

_OWN_CHECKS = """
if any(map(os.path.exists, ("/etc/shadow", "/etc/machine-id", "/sys", "/boot", "/run"))): problems.append("host files")
if len([p for p in os.listdir("/proc") if p.isdigit()]) > 5: problems.append("processes")
"""


class BubblewrapSandbox(Sandbox):
    """Runs each job in a fresh bubblewrap. Thread-safe; nothing is shared between executions but read-only files."""

    def __init__(self, cache: Path | None = None) -> None:
        self._cache_override = cache
        self._lock = threading.Lock()
        self._workers = Workers()
        self._interpreters: dict[str, Interpreter] = {}
        self._checked = False

    # ---- the port

    def facts(self) -> SandboxFacts:
        """Say what this sandbox is: wheels only, no system packages."""
        version = ".".join(map(str, sys.version_info[:2]))
        self.check(version)
        return SandboxFacts(name="bubblewrap", python=version, tree_memory_bounded=self.bounded, evaluates=True)

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Find or build the environment."""
        if spec.system_packages:
            return BuildRejected(
                "needs_system_packages", f"System packages need the docker sandbox: {', '.join(spec.system_packages)}."
            )
        if spec.commands:
            return BuildRejected("needs_commands", "Build commands need the docker sandbox.")
        return await asyncio.to_thread(self._build, spec)

    async def execute(self, job: Job) -> Execution:
        """Run a job; on cancellation its processes are killed before this returns."""
        running = Running()
        return await cancellable(self._workers.submit(self._execute, job, running), running.stop)

    def images(self) -> list[StoredImage]:
        """Return the environments in the cache."""
        self.sweep()
        return self._environments.images()

    def remove_image(self, key: str) -> bool:
        """Remove one."""
        return self._environments.remove(key)

    def doctor(self) -> Iterable[DoctorFinding]:
        """Check isolation, environment, and what the kernel allows."""
        with suppress(SandboxUnavailable):  # no cache: the first check below says so
            self.sweep()
        return (doctor.isolation(self), doctor.environment(self), *doctor.machine(bounded=self.bounded))

    def sweep(self) -> None:
        """Remove what processes that were killed have left: control groups with what is in them, staged files."""
        Cgroup.sweep()
        staging.sweep(self.cache / "runs")

    # ---- parts, each made once

    @cached_property
    def cache(self) -> Path:
        """The cache's folder."""
        return checked_cache(self._cache_override or cache_root())

    @cached_property
    def _cpus(self) -> Cpus:
        return Cpus(self.cache / "cpus")

    @cached_property
    def bounded(self) -> bool:
        """Whether limits bind the whole process tree here."""
        group = Cgroup.create(owned_name(), Resources())
        if group is None:
            return False
        group.remove()
        return True

    @cached_property
    def _bwrap(self) -> Path:
        return bwrap(self.cache)

    @property
    def _place(self) -> Place:
        return Place(self._bwrap, self._harness)

    @cached_property
    def _environments(self) -> Environments:
        return Environments(self.cache)

    @cached_property
    def _harness(self) -> Path:
        """The runner, the reporter and a few files of /etc, where the sandbox's user can read them."""
        files = {
            **{name: (GUEST_FOLDER / name).read_text("utf-8") for name in HARNESS_FILES},
            "pytest.ini": "[pytest]\n",
            "passwd": "sandbox:x:1000:1000::/tmp:/bin/sh\n",
            "group": "sandbox:x:1000:\n",
            "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        }
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
        folder = self.cache / f"harness-{digest}"
        if not folder.is_dir():
            fresh = self.cache / f".harness-{secrets.token_hex(6)}"
            fresh.mkdir()
            fresh.chmod(0o755)
            for name, text in files.items():
                (fresh / name).write_text(text, encoding="utf-8")
                (fresh / name).chmod(0o644)
            with suppress(OSError):
                fresh.rename(folder)
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def _interpreter(self, version: str) -> Interpreter:
        with self._lock:
            if version not in self._interpreters:
                self._interpreters[version] = interpreter(version, self.cache)
            return self._interpreters[version]

    # ---- building

    def _build(self, spec: BuildSpec) -> Built | BuildRejected:
        self.check(spec.python_version)
        python = self._interpreter(spec.python_version)

        def compile_inside(environment: Path) -> None:
            limits = Resources(wall_seconds=600, memory_mb=2048, output_kb=4096)
            command = (
                "-I",
                "-S",
                "-m",
                "compileall",
                "-q",
                "-f",
                "--invalidation-mode",
                "unchecked-hash",
                f"{ENV}/lib",
            )
            self._run(Program(command, python, limits, environment=environment, writable=True))

        return self._environments.build(spec, python, compile_inside)

    def check(self, version: str | None = None) -> None:
        """Run the self-test, once. Raises SandboxUnavailable, naming the step and the remedy."""
        if self._checked:
            return
        python = self._interpreter(version or ".".join(map(str, sys.version_info[:2])))
        self.sweep()
        words = (str(python.executable), "-I", "-S", "-c", self_test(_OWN_CHECKS))
        raw = self._run(Program(words, python, SELF_TEST_LIMITS))
        if PASSED not in raw.stdout:
            raise _refusal((raw.stderr + raw.stdout).decode("utf-8", "replace"))
        self._checked = True

    # ---- executing

    def _server(self, job: Job, program: Program) -> AbstractContextManager[ForkServer | None]:
        """Return the fork server for a job's tests. What it is started with is this program's alone: nothing of a package
        or a variable that a job brings runs where rights are not given up yet. The oracle starts fresh, always."""
        if job.purpose in ("script", "evaluate", "oracle") or job.spec.packages or job.env:
            return nullcontext()
        return FORK_SERVERS.of(self._place, program, self.cache / "runs", self_test(_OWN_CHECKS))

    def _program(self, job: Job) -> Program:
        """Return how a job is started; its files are laid out later."""
        python, invoked = self._interpreter(job.spec.python_version), invocation(job)
        return Program(
            invoked.words,
            python,
            job.resources,
            invoked.targets,
            environment=self._environments.path(job.spec, python),
            folder=job.conditions.folder,
            variables=invoked.variables,
            reports=invoked.reports,
            ships=True,
        )

    def _execute(self, job: Job, running: Running) -> Execution:
        built = self._build(job.spec)
        if isinstance(built, BuildRejected):
            raise SandboxUnavailable(
                f"The environment {job.spec.name} is gone, and cannot be built again: {built.message[:300]}",
                step="build",
            )
        python = self._interpreter(job.spec.python_version)
        program, runs = self._program(job), self.cache / "runs"
        with ExitStack() as held:
            server = held.enter_context(self._server(job, program))
            place = server.folder if server else runs
            stage = held.enter_context(staged(place, job, owner=SANDBOX_UID if is_root() else None))
            raw = self._run(replace(program, stage=stage), server=server, running=running)
        return report_parser.read(report_parser.relocated(raw, str(python.prefix)), job)

    def _run(
        self, program: Program, *, server: ForkServer | None = None, running: Running | None = None
    ) -> report_parser.Raw:
        begun = time.monotonic()
        held = self._cpus.take(ceil(float(program.limits.cpus)))
        try:
            forked = server.start(program, held.cpus) if server else None
            started = forked or launch.start(self._place, program, held.cpus)
            if running is not None:
                running.add(started)
            try:
                stopped = pump(started, program.limits, begun)
                started.kill()
                started.handle.wait()
                group = started.cgroup
                return report_parser.Raw(
                    report=bytes(started.data.get("report", b"")),
                    outcome=bytes(started.data["outcome"]),
                    stdout=bytes(started.data["stdout"]),
                    stderr=bytes(started.data["stderr"]),
                    stopped=stopped,
                    duration_ms=int((time.monotonic() - begun) * 1000),
                    tree_memory_bounded=group is not None,
                    oom=group.oom_killed() if group else False,
                    pids=group.forks_refused() if group else False,
                )
            finally:
                if running is not None:
                    running.remove(started)
                started.end()
        finally:
            held.release()


def _refusal(output: str) -> SandboxUnavailable:
    """Return the error for a failed self-test: what is missing, and what to do about it."""
    text = " ".join(output.split())[:300]
    apparmor = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if apparmor.exists() and apparmor.read_text(encoding="utf-8").strip() == "1" and not is_root():
        remedy = (
            "Ubuntu's AppArmor forbids user namespaces to this bwrap: install the distribution's bubblewrap and the "
            "package apparmor-profiles, or add a profile that holds `userns,` for it in /etc/apparmor.d."
        )
        return SandboxUnavailable(f"bubblewrap cannot make a user namespace: {text}", remedy=remedy, step="apparmor")
    limit = Path("/proc/sys/user/max_user_namespaces")
    if limit.exists() and limit.read_text(encoding="utf-8").strip() == "0":
        return SandboxUnavailable(
            "User namespaces are switched off here.",
            remedy="Set user.max_user_namespaces above 0.",
            step="user namespaces",
        )
    if "namespace" in text or "Operation not permitted" in text or "proc" in text:
        remedy = "In a container, start it with user namespaces and /proc unmasked, or use the docker sandbox."
        return SandboxUnavailable(f"bubblewrap cannot isolate here: {text}", remedy=remedy, step="namespaces")
    return SandboxUnavailable(
        f"The sandbox's self-test failed: {text or 'no answer'}",
        remedy="`codetape doctor` says more.",
        step="self-test",
    )


def create() -> BubblewrapSandbox:
    """Make the sandbox."""
    return BubblewrapSandbox()
