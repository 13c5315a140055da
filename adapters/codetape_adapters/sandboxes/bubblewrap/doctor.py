"""What `codetape doctor` looks at for the embedded sandbox."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from codetape.domain.job import BuildSpec
from codetape.domain.task import UNBOUND
from codetape.errors import CodetapeError, SandboxUnavailable
from codetape.ports import BuildRejected, DoctorFinding, Sandbox


def isolation(sandbox: Sandbox) -> DoctorFinding:
    """The self-test: the whole isolation, through the exact arguments of an execution."""
    try:
        sandbox.facts()
    except SandboxUnavailable as error:
        return DoctorFinding("bubblewrap", "bad", f"{error.message} (step: {error.step})", error.remedy, needed=True)
    except CodetapeError as error:
        return DoctorFinding("bubblewrap", "bad", error.message, error.remedy, needed=True)
    return DoctorFinding("bubblewrap", "well", "self-test passed: isolated, filtered, without rights")


def environment(sandbox: Sandbox) -> DoctorFinding:
    """Whether the simplest environment can be built."""
    try:
        built = asyncio.run(sandbox.build(BuildSpec(python_version=sandbox.facts().python)))
    except CodetapeError as error:
        return DoctorFinding("environment", "bad", error.message, error.remedy, needed=True)
    if isinstance(built, BuildRejected):
        return DoctorFinding("environment", "bad", built.message, "Check the package index settings.", needed=True)
    return DoctorFinding("environment", "well", f"{built.image} is available")


def machine(*, bounded: bool) -> Iterator[DoctorFinding]:
    """What the kernel allows: user namespaces, and control groups."""
    yield _namespaces()
    if bounded:
        yield DoctorFinding("control groups", "well", "memory, processes and CPU of a whole tree are bounded")
    else:
        says = (
            "unavailable to this user. Bound all the same: the memory of each process, the CPUs, the number of processes, "
            f"the size of every file system. Not bound: {' and '.join(UNBOUND)}"
        )
        remedy = "Start codetape by `systemd-run --user --scope`, run it as root, or use the docker sandbox."
        yield DoctorFinding("control groups", "note", says, remedy)


def _namespaces() -> DoctorFinding:
    limit = Path("/proc/sys/user/max_user_namespaces")
    if limit.exists() and limit.read_text(encoding="utf-8").strip() == "0":
        remedy = "Set user.max_user_namespaces above 0."
        return DoctorFinding("user namespaces", "bad", "switched off", remedy, needed=True)
    apparmor = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if apparmor.exists() and apparmor.read_text(encoding="utf-8").strip() == "1":
        remedy = "Install the distribution's bubblewrap and apparmor-profiles."
        return DoctorFinding("user namespaces", "note", "restricted by AppArmor", remedy)
    return DoctorFinding("user namespaces", "well", "allowed")
