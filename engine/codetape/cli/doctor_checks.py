"""What `doctor` looks at. Each check says one thing, with its remedy; none shows a secret."""

import os
import platform
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from codetape.errors import CodetapeError
from codetape.runtime import plugins

SERVERS = {"ollama": 11434, "lmstudio": 1234, "llamacpp": 8080, "vllm": 8000}
KEYS = ("OPENAI_API_KEY",)
MIN_FREE_MB = 500


@dataclass(frozen=True)
class DoctorFinding:
    """What one check found. ``needed`` ones keep the demo from executing when they are bad."""

    name: str
    status: Literal["well", "note", "bad"]
    says: str
    remedy: str = ""
    needed: bool = False


def examine(db: str, base_url: str | None) -> list[DoctorFinding]:
    """Run every check."""
    checks: tuple[Callable[[], Any], ...] = (_python, _uv, _sandbox, _environment, _namespaces, _cgroups, _docker)
    found = [check() for check in checks]
    return [*found, _database(Path(db)), *_keys(), *_servers(base_url), *_adapters(), _disk()]


def _python() -> DoctorFinding:
    return DoctorFinding("Python", "well", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _uv() -> DoctorFinding:
    try:
        from uv import find_uv_bin

        path = str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        path = shutil.which("uv") or ""
    if not path:
        return DoctorFinding("uv", "bad", "not found", "Install it: `pip install uv`.", needed=True)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - our own uv
    return DoctorFinding("uv", "well", done.stdout.strip().partition(" (")[0])


def _sandbox() -> DoctorFinding:
    """The canary: the whole isolation, through the exact argv of an execution."""
    try:
        sandbox: Any = plugins.sandbox("bubblewrap")
        sandbox.check()
    except CodetapeError as error:
        step = getattr(error, "step", "")
        return DoctorFinding("bubblewrap", "bad", f"{error.message} (step: {step})", error.remedy, needed=True)
    return DoctorFinding("bubblewrap", "well", "its canary is well: isolated, filtered, without rights")


def _environment() -> DoctorFinding:
    import asyncio

    from codetape.domain.job import BuildSpec

    try:
        sandbox = plugins.sandbox("bubblewrap")
        built = asyncio.run(sandbox.build(BuildSpec(python_version=sandbox.facts().python)))
    except CodetapeError as error:
        return DoctorFinding("environment", "bad", error.message, error.remedy, needed=True)
    return DoctorFinding("environment", "well", f"{getattr(built, 'image', '')} can be had")


def _namespaces() -> DoctorFinding:
    limit = Path("/proc/sys/user/max_user_namespaces")
    if limit.exists() and limit.read_text().strip() == "0":
        return DoctorFinding(
            "user namespaces", "bad", "switched off", "Set user.max_user_namespaces above 0.", needed=True
        )
    apparmor = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if apparmor.exists() and apparmor.read_text().strip() == "1":
        return DoctorFinding("user namespaces", "note", "restricted by AppArmor", "Install the distribution's bubblewrap and apparmor-profiles.")  # fmt: skip
    return DoctorFinding("user namespaces", "well", "allowed")


def _cgroups() -> DoctorFinding:
    sandbox: Any = plugins.sandbox("bubblewrap")
    if getattr(sandbox, "bounded", False):
        return DoctorFinding("control groups", "well", "memory, processes and CPU of a whole tree are bounded")
    return DoctorFinding("control groups", "note", "not to be had: memory is bounded for each process, not for the tree", "Run as root, or use the docker sandbox.")  # fmt: skip


def _docker() -> DoctorFinding:
    if shutil.which("docker") is None:
        return DoctorFinding("docker", "note", "not installed; nothing needs it")
    done = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, check=False, timeout=20)  # noqa: S607 - the user's docker  # fmt: skip
    version = done.stdout.strip()
    return DoctorFinding("docker", "well" if version else "note", f"daemon {version}" if version else "its daemon does not answer; nothing needs it")  # fmt: skip


def _database(path: Path) -> DoctorFinding:
    if not path.exists():
        folder = next(p for p in (path.parent, *path.absolute().parents) if p.exists())
        if not os.access(folder, os.W_OK):
            return DoctorFinding(
                "database", "bad", f"{path} cannot be made", "Choose another place with --db.", needed=True
            )
        return DoctorFinding("database", "well", f"{path} is not there yet; the first run makes it")
    try:
        store: Any = plugins.store(str(path))
        count = len(store.sessions()[0])
    except CodetapeError as error:
        return DoctorFinding("database", "bad", error.message, error.remedy, needed=True)
    if not os.access(path, os.W_OK):
        return DoctorFinding("database", "bad", f"{path} cannot be written", "Check its permissions, or give another with --db.", needed=True)  # fmt: skip
    with sqlite3.connect(path) as connection:
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    if said != "ok":
        return DoctorFinding("database", "bad", f"{path} is damaged: {said}", "Export what can be read, and begin another.", needed=True)  # fmt: skip
    return DoctorFinding("database", "well", f"{path}: healthy, schema {version}, {count} sessions")


def _keys() -> Iterator[DoctorFinding]:
    for name in KEYS:
        there = bool(os.environ.get(name))
        remedy = "" if there else "Set it to use that provider; a local server needs none."
        yield DoctorFinding(name, "well" if there else "note", "set" if there else "not set", remedy)


def _servers(base_url: str | None) -> Iterator[DoctorFinding]:
    places = {name: ("127.0.0.1", port) for name, port in SERVERS.items()}
    if base_url:
        try:
            parts = urlsplit(base_url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            host, port = "", 0
        if host:
            places = {"--base-url": (host, port), **places}
        else:
            yield DoctorFinding("server --base-url", "bad", f"{base_url!r} is no address", "Give http://HOST:PORT/v1.")
    for name, (host, port) in places.items():
        answers = _answers(host, port)
        how = f"--model {name}:NAME" if name in SERVERS else ""
        yield DoctorFinding(f"server {name}", "well" if answers else "note", f"{'answers' if answers else 'does not answer'} on port {port}", how)  # fmt: skip


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _adapters() -> Iterator[DoctorFinding]:
    """Third-party adapters that do not load are named; the others work all the same."""
    for kind in ("models", "sandboxes", "stores"):
        for name, point in plugins.available(kind).items():
            try:
                point.load()
            except Exception as error:  # noqa: BLE001 - another's module may raise anything
                said = f"does not load: {type(error).__name__}: {error}"
                yield DoctorFinding(
                    f"{kind} {name}", "note", said, f"Repair or remove the package that has {point.value}."
                )


def _disk() -> DoctorFinding:
    free = shutil.disk_usage(Path.cwd()).free >> 20
    if free < MIN_FREE_MB:
        return DoctorFinding("disk", "bad", f"{free} MB free", "Free some space.", needed=True)
    return DoctorFinding("disk", "well", f"{free >> 10} GB free")
