"""Python environments for executions: built by uv from wheels only, kept in a cache under their image's name.

A package's code never runs on the host: nothing is built from source, bytecode is compiled inside the sandbox,
and an environment's Python is never started outside it. The lock holds names, versions and hashes, never an address.
"""

import configparser
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codetape.commands import BuildSpec
from codetape.errors import SandboxUnavailable
from codetape.packages import bare, package_name
from codetape.ports import BuildRejected, Built, StoredImage
from codetape_adapters.sandboxes.host import SANDBOX_UID, Interpreter, is_root, uv

BUILD_SECONDS = 900
_ADDRESS = re.compile(r"(?:https?|file)://\S+")
_NOT_FOUND = re.compile(r"Because ([A-Za-z0-9._-]+) was not found in the (?:package registry|cache|provided)|there are no versions of ([A-Za-z0-9._-]+)")  # fmt: skip
_NO_WHEEL = re.compile(r"([A-Za-z0-9._-]+)(?:==\S+)? (?:has no usable wheels|has no wheels|can't be installed because it is marked as `--no-build`)|building source distributions (?:for `([^`]+)` )?is disabled")  # fmt: skip
_NETWORK = ("error sending request", "dns error", "Failed to fetch", "connection", "timed out", "Connection", "network")  # fmt: skip


class Environments:
    """The cache of environments. Safe for several processes at once: one builds, the others wait and find it."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "environments"
        self._folder.mkdir(exist_ok=True)
        if is_root():
            self._folder.chmod(0o755)

    def path(self, spec: BuildSpec, python: Interpreter) -> Path:
        """Return where an environment lies, or would: it belongs to one interpreter, which its links lead to."""
        key = hashlib.sha256(f"{python.executable} {python.version}".encode()).hexdigest()[:8]
        return self._folder / f"{spec.name}-{key}"

    def ready(self, spec: BuildSpec, python: Interpreter) -> str | None:
        """Return the lock of a finished environment; None where there is none."""
        file = self.path(spec, python) / "ready.json"
        try:
            record = json.loads(file.read_text())
            os.utime(file)  # when it was last used
        except (OSError, ValueError):
            return None
        return str(record["lock"])

    def images(self) -> list[StoredImage]:
        """Return the environments that are there."""
        found = []
        for file in sorted(self._folder.glob("*/ready.json")):
            with suppress(OSError, ValueError, KeyError):
                record, place = json.loads(file.read_text()), file.parent
                size = sum(p.lstat().st_size for p in place.rglob("*") if not p.is_dir())
                names = tuple(
                    sorted(word for line in record["lock"].splitlines() if "==" in (word := line.split(" ")[0]))
                )
                found.append(StoredImage(record["name"], place.name, "bubblewrap", size, names, file.stat().st_mtime))
        return found

    def remove(self, key: str) -> bool:
        """Remove an environment; False where it is being built or looked at."""
        place = self._folder / key
        with self._locked(key):
            if place.parent != self._folder or not (place / "ready.json").is_file():
                return False
            gone = self._folder / f".{key}.gone"
            place.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        (self._folder / f".{key}.lock").unlink(missing_ok=True)
        return True

    def build(
        self, spec: BuildSpec, python: Interpreter, compile_inside: Callable[[Path], None]
    ) -> Built | BuildRejected:
        """Find the environment, or build it. Raises SandboxUnavailable where the registry or disk fails."""
        if (lock := self.ready(spec, python)) is not None:
            return Built(image=spec.name, lock=lock, cached=True)
        with self._locked(self.path(spec, python).name):
            if (lock := self.ready(spec, python)) is not None:
                return Built(image=spec.name, lock=lock, cached=True)
            return self._build(spec, python, compile_inside)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self._folder / f".{name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _build(
        self, spec: BuildSpec, python: Interpreter, compile_inside: Callable[[Path], None]
    ) -> Built | BuildRejected:
        target = self.path(spec, python)
        fresh = self._folder / f".{target.name}.fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            made = self._install(spec, python, fresh)
            if isinstance(made, BuildRejected):
                return made
            _hand_over(fresh, SANDBOX_UID)
            compile_inside(fresh)
            _hand_over(fresh, 0)
            (fresh / "ready.json").write_text(json.dumps({"name": spec.name, "lock": made}))
            fresh.rename(target)
        except OSError as error:
            raise SandboxUnavailable(f"The environment could not be written: {error.strerror}.", remedy="Check the cache's disk.", step="build") from error  # fmt: skip
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return Built(image=spec.name, lock=made, cached=False)

    def _install(self, spec: BuildSpec, python: Interpreter, fresh: Path) -> str | BuildRejected:
        run_uv(["venv", "--quiet", "--no-project", "--python", str(python.executable), str(fresh)], spec)
        target = ["--python", str(fresh / "bin" / "python")]
        lock = locked(spec, target)
        if isinstance(lock, BuildRejected):
            return lock
        return install(lock, fresh / "lock.txt", spec, target) or without_addresses(lock)


def locked(spec: BuildSpec, options: list[str]) -> str | BuildRejected:
    """Return names, versions and hashes of all that the environment needs, wheels only."""
    # names of a tape from elsewhere: a line of this file could also be an option, or a place to fetch from
    wanted = "\n".join(package_name(name) for name in spec.all_packages) + "\n"
    fixed = ["--no-build", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    return run_uv(["pip", "compile", "-", *fixed, *options], spec, wanted)


def install(lock: str, file: Path, spec: BuildSpec, options: list[str]) -> BuildRejected | None:
    """Install exactly what a lock says; the lock is written to ``file`` for it."""
    file.write_text(lock)
    fixed = ["pip", "install", "--quiet", "--no-build", "--no-deps", "--require-hashes", "--link-mode", "copy"]
    done = run_uv([*fixed, *options, "-r", str(file)], spec)
    return done if isinstance(done, BuildRejected) else None


def without_addresses(lock: str) -> str:
    """Return a lock that names no registry."""
    return _ADDRESS.sub("", lock)


def run_uv(arguments: list[str], spec: BuildSpec, text: str = "") -> str | BuildRejected:
    """Run uv; return what it printed, or why it refused. Raises SandboxUnavailable where it could not do its work."""
    try:
        done = subprocess.run(  # noqa: S603 - our own uv, and names that were checked
            [uv(), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            env=build_environment(os.environ),
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxUnavailable(f"The build of {spec.name} took more than {BUILD_SECONDS} s.", remedy="Check the package registry.", step="build") from error  # fmt: skip
    return done.stdout if done.returncode == 0 else refusal(done.stderr, spec)


def refusal(stderr: str, spec: BuildSpec) -> BuildRejected:
    """Read why uv refused. Raises SandboxUnavailable where it could not do its work at all."""
    message = " ".join(_ADDRESS.sub("[registry]", stderr).split())[:2000]
    requested = {bare(p): p for p in spec.packages}
    if "No solution found" not in message and "--no-build" not in message and "is disabled" not in message:
        if "No space left" in message:
            raise SandboxUnavailable(f"The disk is full: {message[:300]}", remedy="Free some space.", step="build")
        why = "cannot be reached" if any(word in message for word in _NETWORK) else "failed"
        raise SandboxUnavailable(f"The package registry or uv {why}: {message[:400]}", remedy="Check the network and the index settings, then resume.", step="build")  # fmt: skip
    missing = [name for match in _NOT_FOUND.findall(message) for name in match if bare(name or "-") in requested]
    if missing:
        return BuildRejected("not_found", message, tuple(sorted({bare(n) for n in missing})))
    wheelless = [name for match in _NO_WHEEL.findall(message) for name in match if bare(name or "-") in requested]
    if wheelless or _NO_WHEEL.search(message):
        return BuildRejected("no_wheel", message, tuple(sorted({bare(n) for n in wheelless})))
    named = tuple(n for n in requested if re.search(rf"(?<![\w-]){re.escape(n)}(?![\w-])", message))
    return BuildRejected("conflict", message, named)


def _hand_over(folder: Path, owner: int) -> None:
    """Give the tree to the sandbox's user for compiling, or take it back and make it read-only for all."""
    if not is_root():
        return
    for place, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            path = os.path.normpath(os.path.join(place, name))  # noqa: PTH118 - half the time of pathlib on large trees
            os.chown(path, owner, owner, follow_symlinks=False)
            if owner == 0 and not os.path.islink(path):  # noqa: PTH114 - likewise
                mode = os.stat(path).st_mode  # noqa: PTH116 - likewise
                os.chmod(path, (mode | 0o444 | (0o111 if mode & 0o100 else 0)) & ~0o022)  # noqa: PTH101 - likewise


def build_environment(host: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    """Return the variables for uv: the host's uv and proxy settings, and pip's in uv's words. No secret beside them."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC")
    found = {k: v for k, v in host.items() if k in kept or k.startswith("UV_") or k.lower().endswith("_proxy")}
    pip = {**_pip_files(host), **{k[4:].lower().replace("_", "-"): v for k, v in host.items() if k.startswith("PIP_")}}
    for theirs, ours in (("index-url", "UV_DEFAULT_INDEX"), ("extra-index-url", "UV_INDEX"), ("cert", "SSL_CERT_FILE")):
        if value := " ".join(_usable(pip.get(theirs, ""))):
            found.setdefault(ours, value)
    if pip.get("find-links"):
        found.setdefault("UV_FIND_LINKS", ",".join(_usable(pip["find-links"])))
    if pip.get("no-index", "").lower() in ("1", "true", "yes"):
        found.setdefault("UV_NO_INDEX", "1")
    found["UV_NO_PROGRESS"], found["UV_NO_CONFIG"] = "1", host.get("UV_NO_CONFIG", "0")
    if found["UV_NO_CONFIG"] == "0":
        del found["UV_NO_CONFIG"]
    return {k: v for k, v in found.items() if v}


def _usable(value: str) -> list[str]:
    """Leave out local places that are not there: pip only warns of them, uv refuses."""
    parts = value.replace(",", " ").split()
    return [p for p in parts if not p.startswith("file://") or Path(p.removeprefix("file://")).exists()]


def _pip_files(host: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    home = Path(host.get("HOME", "/"))
    places = [Path("/etc/pip.conf"), home / ".pip/pip.conf", Path(host.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"]  # fmt: skip
    if named := host.get("PIP_CONFIG_FILE"):
        places.append(Path(named))
    parser = configparser.RawConfigParser()
    try:
        parser.read(places)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    sections = [s for s in ("global", "install") if parser.has_section(s)]
    return {key: value for section in sections for key, value in parser.items(section)}
