"""Docker images for executions: a base, a layer of system packages that many share, and the Python packages on top.

Python packages are resolved and unpacked by uv on the host, wheels only and hashed, for the image's platform, and
copied in: no package's code runs anywhere, and one more package never runs apt again. An image is named by what was
asked for.
"""

import fcntl
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import docker

from codetape.domain.canonical import canonical, sha256
from codetape.domain.job import BuildSpec
from codetape.domain.lock import pins
from codetape.errors import SandboxUnavailable
from codetape.ports import BuildRejected, Built, StoredImage
from codetape_adapters.sandboxes.docker.build_commands import layered
from codetape_adapters.sandboxes.docker.client import LABEL, translated
from codetape_adapters.sandboxes.execution.uv_lock import install, locked, without_addresses

_PROBE = (
    "import sys,os,json,platform;print(json.dumps({'executable':sys.executable,'prefix':sys.base_prefix,"
    "'version':'%d.%d'%sys.version_info[:2],'machine':platform.machine(),'libc':os.confstr('CS_GNU_LIBC_VERSION') "
    "if 'CS_GNU_LIBC_VERSION' in os.confstr_names else ''}))"
)
_VERSIONED = re.compile(r"^python:3\.\d+(-[a-z0-9]+)?$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NO_SUCH = re.compile(
    r"E: (?:Unable to locate package|Package '?)\s*([a-z0-9][a-z0-9+.-]*)|E: Package '([^']+)' has no installation "
    r"candidate"
)


@dataclass(frozen=True)
class Base:
    """A base image: the name it was requested by, its id, and the Python in it."""

    name: str
    id: str
    executable: str
    prefix: str
    version: str
    platform: str


class Images:
    """The images of one engine. Safe for several processes at once: one builds, the others wait and find it."""

    def __init__(self, client: docker.DockerClient, cache: Path, network: str) -> None:
        self._client, self._network = client, network
        self.folder = self._folder = cache / "docker"
        self._folder.mkdir(exist_ok=True)
        self._bases: dict[str, Base] = {}

    def base(self, name: str, version: str = "") -> Base:
        """Find a base image, pulling it if need be, and look at its Python. Raises SandboxUnavailable."""
        if version and _VERSIONED.match(name):
            name = re.sub(r"3\.\d+", version, name, count=1)
        if name not in self._bases:
            with translated("base image"):
                self._bases[name] = self._probed(name, self._base_image(name))
        base = self._bases[name]
        if version and base.version != version:
            raise SandboxUnavailable(
                f"The base image {name} has Python {base.version}, and {version} is asked for.",
                remedy="Name another base: --sandbox docker:IMAGE, or another --python.", step="base image",
            )  # fmt: skip
        return base

    def _base_image(self, name: str) -> Any:
        try:
            return self._client.images.get(name)
        except docker.errors.ImageNotFound:
            try:
                return self._client.images.pull(name) if ":" in name else self._client.images.pull(name, tag="latest")
            except docker.errors.APIError as error:
                reason = " ".join(str(error.explanation or error).split())[:300]
                raise SandboxUnavailable(
                    f"The base image {name} is not here, and cannot be pulled: {reason}",
                    remedy=f"`docker pull {name}`, or name another: --sandbox docker:IMAGE.",
                    step="base image",
                ) from error

    def _probed(self, name: str, image: Any) -> Base:
        record = self._folder / f"base-{image.id.removeprefix('sha256:')[:16]}.json"
        try:
            value = json.loads(record.read_text("utf-8"))
        except (OSError, ValueError):
            value = self._probe(name, image)
            record.write_text(json.dumps(value), encoding="utf-8")
        return Base(
            name,
            image.id,
            value["executable"],
            value["prefix"],
            value["version"],
            _platform(value["machine"], value["libc"]),
        )

    def _probe(self, name: str, image: Any) -> dict[str, str]:
        try:
            output = self._client.containers.run(
                image.id, ["python3", "-I", "-S", "-c", _PROBE], remove=True, network_mode="none", user="1000:1000",
                cap_drop=["ALL"], security_opt=["no-new-privileges"], read_only=True, entrypoint=[], labels={LABEL: "probe"},
                mem_limit="256m", pids_limit=32,
            )  # fmt: skip
            value: dict[str, str] = json.loads(output)
        except (docker.errors.ContainerError, docker.errors.APIError, ValueError) as error:
            raise SandboxUnavailable(
                f"The base image {name} has no python3 that runs: {' '.join(str(error).split())[:200]}",
                remedy="Name one that has: --sandbox docker:python:3.12-slim.",
                step="base image",
            ) from error
        return value

    # ---- building

    def ready(self, spec: BuildSpec) -> str | None:
        """Return the lock of a built image, or None."""
        with translated("image"):
            try:
                image = self._client.images.get(f"{spec.name}:latest")
            except docker.errors.ImageNotFound:
                return None
        file = self._lock_of(spec.name, image.id)
        try:
            lock = file.read_text("utf-8")
            os.utime(file)  # when it was last used
        except OSError:
            return None  # built with another cache: building again reuses the engine's layers
        return lock

    def _lock_of(self, name: str, image: str) -> Path:
        return self._folder / f"{name}-{image.removeprefix('sha256:')[:16]}.lock"

    def stored(self) -> list[StoredImage]:
        """Return the images with our label, and the layers of system packages below them."""
        images = []
        with translated("images"):
            for image in self._client.images.list(filters={"label": LABEL}):
                labels = image.labels or {}
                for tag in image.tags:
                    name = tag.removesuffix(":latest")
                    packages = tuple(labels.get(f"{LABEL}.packages", "").split())
                    file = self._lock_of(name, image.id)
                    try:
                        used, lock = file.stat().st_mtime, file.read_text("utf-8")
                        packages = tuple(sorted(pins(lock)))
                    except OSError:
                        used = _created(image)
                    size = int(image.attrs.get("Size", 0))
                    images.append(
                        StoredImage(name, tag, "docker", size, packages, used, labels.get(f"{LABEL}.base", ""))
                    )
        return images

    def remove(self, tag: str) -> bool:
        """Remove an image by its tag; False where another image or a container is based on it."""
        with translated("images"):
            try:
                self._client.images.remove(tag, force=False)
            except docker.errors.APIError:
                return False
        for file in self._folder.glob(f"{tag.removesuffix(':latest')}-*.lock"):
            file.unlink(missing_ok=True)
        return True

    def build(self, spec: BuildSpec, base: Base) -> Built | BuildRejected:
        """Find the image, or build it. Raises SandboxUnavailable where registry, engine or disk fail."""
        if (lock := self.ready(spec)) is not None:
            return Built(image=spec.name, lock=lock, cached=True)
        with self._locked(spec.name):
            if (lock := self.ready(spec)) is not None:
                return Built(image=spec.name, lock=lock, cached=True)
            return self._build(spec, base)

    def _build(self, spec: BuildSpec, base: Base) -> Built | BuildRejected:
        folder = self._folder / f".{spec.name}-{token_hex(4)}"
        try:
            folder.mkdir()
            options = ["--python-version", base.version, "--python-platform", base.platform]
            lock = locked(spec, options)
            if isinstance(lock, BuildRejected):
                return lock
            target = folder / "lib" / f"python{base.version}" / "site-packages"
            target.mkdir(parents=True)
            if refusal := install(lock, folder / "lock.txt", spec, [*options, "--target", str(target)]):
                return refusal
            lower_image = self._system(spec, base)
            if isinstance(lower_image, str) and spec.commands:
                with translated("commands"):
                    lower_image = layered(self._client, lower_image, base.executable, spec.commands, self._network)
            if isinstance(lower_image, BuildRejected):
                return lower_image
            record = f"# base {base.name} {base.id}\n{without_addresses(lock)}"
            refusal = self._layer(spec, base, lower_image, folder)
            if refusal:
                return refusal
            with translated("image"):
                image = self._client.images.get(f"{spec.name}:latest")
            self._lock_of(spec.name, image.id).write_text(record, encoding="utf-8")
            return Built(image=spec.name, lock=record, cached=False)
        except OSError as error:
            raise SandboxUnavailable(
                f"The image's files could not be written: {error.strerror}.",
                remedy="Check the cache's disk.",
                step="build",
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _system(self, spec: BuildSpec, base: Base) -> str | BuildRejected:
        """Return the image below the Python packages: the base, or a shared layer with these system packages."""
        if not spec.system_packages:
            return base.id
        key = sha256(canonical({"base": base.id, "packages": sorted(spec.system_packages)}))[:12]
        tag = f"codetape-system-{key}:latest"
        with self._locked(tag.replace(":", "-")), translated("system packages"):
            existing = self._client.images.list(name=tag)
            if existing:
                return str(existing[0].id)
            names = " ".join(sorted(spec.system_packages))
            dockerfile = (
                f"FROM {base.id}\nUSER 0:0\nENV DEBIAN_FRONTEND=noninteractive\n"
                f"RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends -- {names} && rm -rf "
                "/var/lib/apt/lists/*\n"
            )
            labels = {LABEL: "system", f"{LABEL}.packages": names}
            try:
                image, _ = self._client.images.build(
                    fileobj=_context(dockerfile, None), custom_context=True, tag=tag, rm=True, forcerm=True, pull=False,
                    labels=labels, network_mode=self._network,
                )  # fmt: skip
            except docker.errors.BuildError as error:
                return _apt_refusal(error, spec)
            return str(image.id)

    def _layer(self, spec: BuildSpec, base: Base, lower_image: str, folder: Path) -> BuildRejected | None:
        dockerfile = (
            f"FROM {lower_image}\nUSER 0:0\nCOPY env /opt/env\n"
            f"RUN {base.executable} -I -S -m compileall -q -f --invalidation-mode unchecked-hash /opt/env/lib || true\n"
            "RUN grep -q :1000: /etc/passwd || echo sandbox:x:1000:1000::/tmp:/bin/sh >> /etc/passwd\n"
            f"ENTRYPOINT []\n"
        )
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(base.executable)
        home = str(Path(base.executable).parent)
        (folder / "pyvenv.cfg").write_text(
            f"home = {home}\ninclude-system-site-packages = false\nversion = {base.version}\n", encoding="utf-8"
        )
        labels = {LABEL: "image", f"{LABEL}.packages": " ".join(spec.packages), f"{LABEL}.base": base.name}
        with translated("build"):
            try:
                self._client.images.build(
                    fileobj=_context(dockerfile, folder), custom_context=True, tag=f"{spec.name}:latest", rm=True,
                    forcerm=True, pull=False, labels=labels, network_mode="none",
                )  # fmt: skip
            except docker.errors.BuildError as error:
                log = _log(error)
                if "no space left" in log:
                    raise SandboxUnavailable(
                        f"The image could not be built: {log[-300:]}",
                        remedy="Free some space: `codetape images prune`.",
                        step="build",
                    ) from error
                return BuildRejected("unknown", log[-2000:])
        return None

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self._folder / f".{name}.lock").open("w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _created(image: Any) -> float:
    """Return when an image was made, in seconds since 1970; 0 where the engine does not say."""
    try:
        return datetime.fromisoformat(str(image.attrs["Created"])[:19] + "+00:00").timestamp()
    except (KeyError, ValueError):
        return 0.0


def _platform(machine: str, libc: str) -> str:
    """Return uv's name of a platform: the newest manylinux that the image's C library serves, or musl."""
    name, _, version = libc.partition(" ")
    if name != "glibc":
        return f"{machine}-unknown-linux-musl"
    minor = int(version.partition(".")[2] or 17)
    return f"{machine}-manylinux_2_28" if minor >= 28 else f"{machine}-manylinux2014"


def _context(dockerfile: str, env: Path | None) -> io.BytesIO:
    """Return a build context as an archive: owned by root, readable by all, with nothing else of the host in it."""
    stream = io.BytesIO()

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        member.mtime = 1704067200
        return member

    with tarfile.open(fileobj=stream, mode="w") as archive:
        data = dockerfile.encode()
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(data)
        archive.addfile(plain(member), io.BytesIO(data))
        if env is not None:
            archive.add(env, "env", filter=plain)
    stream.seek(0)
    return stream


def _log(error: docker.errors.BuildError) -> str:
    lines = [str(part.get("stream") or part.get("error") or "") for part in error.build_log if isinstance(part, dict)]
    plain = _COLOUR.sub("", "".join(lines))  # the engine colours what a command writes to standard error
    return " ".join(plain.split())[-6000:] or str(error)


def _apt_refusal(error: docker.errors.BuildError, spec: BuildSpec) -> BuildRejected:
    """Read why apt refused. Raises SandboxUnavailable where the cause is not the request: disk, base or network."""
    log = _log(error)
    missing = {name for match in _NO_SUCH.findall(log) for name in match if name in spec.system_packages}
    if missing:
        return BuildRejected("not_found", log[-2000:], tuple(sorted(missing)))
    if "No space left" in log or "no space left" in log:
        raise SandboxUnavailable(
            f"The disk is full: {log[-300:]}",
            remedy="Free some space: `codetape images prune`.",
            step="system packages",
        ) from error
    if "apt-get: not found" in log:
        raise SandboxUnavailable(
            "The base image has no apt-get: system packages need a Debian or Ubuntu base.",
            remedy="Name one: --sandbox docker:python:3.12-slim.",
            step="system packages",
        ) from error
    if "Unable to fetch" in log or "Failed to fetch" in log or "Could not resolve" in log or "Temporary failure" in log:
        raise SandboxUnavailable(
            f"The registry of system packages cannot be reached: {log[-300:]}",
            remedy="Check the network (CODETAPE_DOCKER_BUILD_NETWORK=host uses the host's), then resume.",
            step="system packages",
        ) from error
    return BuildRejected("conflict", log[-2000:], tuple(sorted(spec.system_packages)))
