"""The checks of `doctor`. Each one reports one finding with its remedy, and never shows a secret."""

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from codetape.errors import CodetapeError, SandboxUnavailable, UsageError
from codetape.ports import DoctorFinding
from codetape.runtime import plugins

KEYS = ("OPENAI_API_KEY",)
MIN_FREE_MB = 500


def examine(db: str, base_url: str | None) -> list[DoctorFinding]:
    """Run every check."""
    return [_python(), _uv(), *_sandboxes(), _database(db), *_keys(), *_servers(base_url), *_adapters(), _disk()]


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
    version = subprocess.run(  # noqa: S603 - our own uv
        [path, "--version"], capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    return DoctorFinding("uv", "well", version.stdout.strip().partition(" (")[0])


def _sandboxes() -> Iterator[DoctorFinding]:
    """Each sandbox reports what it needs. One that needs an argument, such as `tape`, is skipped."""
    for name in sorted(plugins.available("sandboxes")):
        try:
            yield from plugins.sandbox(name).doctor()
        except SandboxUnavailable as error:
            yield DoctorFinding(name, "note", error.message, error.remedy)
        except UsageError:
            continue


def _database(db: str) -> DoctorFinding:
    try:
        store = plugins.store(db)
    except CodetapeError as error:
        return DoctorFinding("database", "bad", error.message, error.remedy, needed=True)
    path = Path(store.address)
    if store.address and not path.exists():
        folder = next(p for p in (path.parent, *path.absolute().parents) if p.exists())
        if not os.access(folder, os.W_OK):
            return DoctorFinding(
                "database", "bad", f"{path} cannot be made", "Choose another place with --db.", needed=True
            )
        return DoctorFinding("database", "well", f"{path} is not there yet; the first run makes it")
    try:
        count, damage = len(store.sessions().rows), store.unsound()
    except CodetapeError as error:
        return DoctorFinding("database", "bad", error.message, error.remedy, needed=True)
    if damage:
        return DoctorFinding(
            "database",
            "bad",
            f"{db} is damaged: {damage[0]}",
            "Export what can be read, and begin another.",
            needed=True,
        )
    if store.address and not os.access(path, os.W_OK):
        return DoctorFinding(
            "database",
            "bad",
            f"{path} cannot be written",
            "Check its permissions, or give another with --db.",
            needed=True,
        )
    return DoctorFinding("database", "well", f"{db}: healthy, {count} sessions")


def _keys() -> Iterator[DoctorFinding]:
    for name in KEYS:
        is_set = bool(os.environ.get(name))
        remedy = "" if is_set else "Set it to use that provider; a local server needs none."
        yield DoctorFinding(name, "well" if is_set else "note", "set" if is_set else "not set", remedy)


def _servers(base_url: str | None) -> Iterator[DoctorFinding]:
    servers = plugins.servers()
    places = {name: _place(address) for name, address in servers.items()}
    if base_url:
        host, port = _place(base_url)
        if host:
            places = {"--base-url": (host, port), **places}
        else:
            yield DoctorFinding("server --base-url", "bad", f"{base_url!r} is no address", "Give http://HOST:PORT/v1.")
    for name, (host, port) in places.items():
        answers = _answers(host, port)
        remedy = f"--model {name}:NAME" if name in servers else ""
        yield DoctorFinding(
            f"server {name}",
            "well" if answers else "note",
            f"{'answers' if answers else 'does not answer'} on port {port}",
            remedy,
        )


def _place(address: str) -> tuple[str, int]:
    """Return an address's host and port; an empty host if the address is invalid."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", 0
    return host, port or (443 if parts.scheme == "https" else 80)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _adapters() -> Iterator[DoctorFinding]:
    """Report adapters that fail to load; one broken package does not stop the others."""
    for kind in ("models", "sandboxes", "stores"):
        for name, point in plugins.available(kind).items():
            try:
                point.load()
            except Exception as error:  # noqa: BLE001 - a third-party module may raise anything
                message = f"does not load: {type(error).__name__}: {error}"
                yield DoctorFinding(
                    f"{kind} {name}", "note", message, f"Repair or remove the package that has {point.value}."
                )


def _disk() -> DoctorFinding:
    free = shutil.disk_usage(Path.cwd()).free >> 20
    if free < MIN_FREE_MB:
        return DoctorFinding("disk", "bad", f"{free} MB free", "Free some space.", needed=True)
    return DoctorFinding("disk", "well", f"{free >> 10} GB free")
