"""Locking and installing packages with uv, wheels only."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

from codetape.domain.job import BuildSpec
from codetape.domain.package_names import bare, package_name
from codetape.errors import SandboxUnavailable
from codetape.ports import BuildRejected


def uv() -> str:
    """Return the uv to use: the dependency's, else the system's."""
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        if found := shutil.which("uv"):
            return found
    raise SandboxUnavailable("There is no uv here.", remedy="Install it: `pip install uv`.", step="uv")


BUILD_SECONDS = 900
_ADDRESS = re.compile(r"(?:https?|file)://\S+")
_NOT_FOUND = re.compile(
    r"Because ([A-Za-z0-9._-]+) was not found in the (?:package registry|cache|provided)|there are no versions of "
    r"([A-Za-z0-9._-]+)"
)
_NO_WHEEL = re.compile(
    r"([A-Za-z0-9._-]+)(?:[=<>!~]=?[^\s,]+(?:,[=<>!~]+[^\s,]+)*)? (?:(?:has|have) no (?:usable )?wheels"
    r"|can't be installed because it is marked as `--no-build`)"
    r"|Wheels are (?:required|available) for `([^`]+)`|building source distributions (?:for `([^`]+)` )?is disabled"
)
_NETWORK = ("error sending request", "dns error", "Failed to fetch", "connection", "timed out", "Connection", "network")


def locked(spec: BuildSpec, options: list[str]) -> str | BuildRejected:
    """Return names, versions and hashes of all that the environment needs, wheels only."""
    # names of a tape from elsewhere: a line of this file could also be an option, or a place to fetch from
    wanted = "\n".join(package_name(name) for name in spec.all_packages) + "\n"
    fixed = ["--no-build", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    return run_uv(["pip", "compile", "-", *fixed, *options], spec, wanted)


def install(lock: str, file: Path, spec: BuildSpec, options: list[str]) -> BuildRejected | None:
    """Install exactly what a lock says; the lock is written to ``file`` for it."""
    file.write_text(lock, encoding="utf-8")
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
            encoding="utf-8",
            errors="replace",
            timeout=BUILD_SECONDS,
            env=build_environment(os.environ),
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxUnavailable(
            f"The build of {spec.name} took more than {BUILD_SECONDS} s.",
            remedy="Check the package registry.",
            step="build",
        ) from error
    return done.stdout if done.returncode == 0 else refusal(done.stderr, spec)


def refusal(stderr: str, spec: BuildSpec) -> BuildRejected:
    """Read why uv refused. Raises SandboxUnavailable where it could not do its work at all."""
    message = " ".join(_ADDRESS.sub("[registry]", stderr).split())[:2000]
    requested = {bare(p): p for p in spec.packages}
    if "No solution found" not in message and "--no-build" not in message and "is disabled" not in message:
        if "No space left" in message:
            raise SandboxUnavailable(f"The disk is full: {message[:300]}", remedy="Free some space.", step="build")
        why = "cannot be reached" if any(word in message for word in _NETWORK) else "failed"
        raise SandboxUnavailable(
            f"The package registry or uv {why}: {message[:400]}",
            remedy="Check the network and the index settings, then resume.",
            step="build",
        )
    wheelless = [name for match in _NO_WHEEL.findall(message) for name in match if bare(name or "-") in requested]
    if wheelless:
        return BuildRejected("no_wheel", message, tuple(sorted({bare(n) for n in wheelless})))
    missing = [name for match in _NOT_FOUND.findall(message) for name in match if bare(name or "-") in requested]
    if missing:
        return BuildRejected("not_found", message, tuple(sorted({bare(n) for n in missing})))
    if _NO_WHEEL.search(message):
        return BuildRejected("no_wheel", message, ())
    named = tuple(n for n in requested if re.search(rf"(?<![\w-]){re.escape(n)}(?![\w-])", message))
    return BuildRejected("conflict", message, named)


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
    places = [
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(host.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf",
    ]
    if named := host.get("PIP_CONFIG_FILE"):
        places.append(Path(named))
    parser = configparser.RawConfigParser()
    try:
        parser.read(places)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    sections = [s for s in ("global", "install") if parser.has_section(s)]
    return {key: value for section in sections for key, value in parser.items(section)}
