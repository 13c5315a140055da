"""Python environments for executions: built by uv from wheels only, kept in a cache under their image's name.

A package's code never runs on the host: nothing is built from source, bytecode is compiled inside the sandbox,
and an environment's Python is never started outside it. The lock holds names, versions and hashes, never an address.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codetape.domain.job import BuildSpec
from codetape.domain.lock import pins
from codetape.errors import SandboxUnavailable
from codetape.ports import BuildRejected, Built, StoredImage
from codetape_adapters.sandboxes.bubblewrap.host import SANDBOX_UID, Interpreter
from codetape_adapters.sandboxes.cache import is_root
from codetape_adapters.sandboxes.execution.uv_lock import install, locked, run_uv, without_addresses


class Environments:
    """The cache of environments. Safe for several processes at once: one builds, the others wait and find it."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "environments"
        self._folder.mkdir(exist_ok=True)
        if is_root():
            self._folder.chmod(0o755)

    def path(self, spec: BuildSpec, python: Interpreter) -> Path:
        """Return an environment's folder, built or not: it belongs to the one interpreter that its links lead to."""
        key = hashlib.sha256(f"{python.executable} {python.version}".encode()).hexdigest()[:8]
        return self._folder / f"{spec.name}-{key}"

    def ready(self, spec: BuildSpec, python: Interpreter) -> str | None:
        """Return the lock of a finished environment; None where there is none."""
        file = self.path(spec, python) / "ready.json"
        try:
            record = json.loads(file.read_text("utf-8"))
            os.utime(file)  # when it was last used
        except (OSError, ValueError):
            return None
        return str(record["lock"])

    def images(self) -> list[StoredImage]:
        """Return the finished environments."""
        images = []
        for file in sorted(self._folder.glob("*/ready.json")):
            with suppress(OSError, ValueError, KeyError):
                record, folder = json.loads(file.read_text("utf-8")), file.parent
                size = sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())
                names = tuple(sorted(pins(record["lock"])))
                images.append(StoredImage(record["name"], folder.name, "bubblewrap", size, names, file.stat().st_mtime))
        return images

    def remove(self, key: str) -> bool:
        """Remove an environment; False where it is being built or looked at."""
        folder = self._folder / key
        with self._locked(key):
            if folder.parent != self._folder or not (folder / "ready.json").is_file():
                return False
            trash = self._folder / f".{key}.gone"
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
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
        with (self._folder / f".{name}.lock").open("w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _build(
        self, spec: BuildSpec, python: Interpreter, compile_inside: Callable[[Path], None]
    ) -> Built | BuildRejected:
        target = self.path(spec, python)
        fresh = self._folder / f".{target.name}.fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            lock = self._install(spec, python, fresh)
            if isinstance(lock, BuildRejected):
                return lock
            # The sandbox's user owns the tree only while it compiles: executions share it and must not change it.
            _hand_over(fresh, SANDBOX_UID)
            compile_inside(fresh)
            _hand_over(fresh, 0)
            (fresh / "ready.json").write_text(json.dumps({"name": spec.name, "lock": lock}), encoding="utf-8")
            fresh.rename(target)
        except OSError as error:
            raise SandboxUnavailable(
                f"The environment could not be written: {error.strerror}.",
                remedy="Check the cache's disk.",
                step="build",
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return Built(image=spec.name, lock=lock, cached=False)

    def _install(self, spec: BuildSpec, python: Interpreter, fresh: Path) -> str | BuildRejected:
        run_uv(["venv", "--quiet", "--no-project", "--python", str(python.executable), str(fresh)], spec)
        target = ["--python", str(fresh / "bin" / "python")]
        lock = locked(spec, target)
        if isinstance(lock, BuildRejected):
            return lock
        return install(lock, fresh / "lock.txt", spec, target) or without_addresses(lock)


def _hand_over(folder: Path, owner: int) -> None:
    """Give the tree to the sandbox's user for compiling, or take it back and make it read-only for all."""
    if not is_root():
        return
    for parent, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            path = os.path.normpath(os.path.join(parent, name))  # noqa: PTH118 - half the time of pathlib on large trees
            os.chown(path, owner, owner, follow_symlinks=False)
            if owner == 0 and not os.path.islink(path):  # noqa: PTH114 - likewise
                mode = os.stat(path).st_mode  # noqa: PTH116 - likewise
                os.chmod(path, (mode | 0o444 | (0o111 if mode & 0o100 else 0)) & ~0o022)  # noqa: PTH101 - likewise
