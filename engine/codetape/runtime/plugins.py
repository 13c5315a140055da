"""Adapters by name, found by entry point; the built-in ones by the same path as everyone's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from codetape.errors import SandboxUnavailable, UsageError
from codetape.ports import BuildRejected, Built, DoctorFinding, Execution, Model, Sandbox, Store, StoredImage, complete

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from codetape.domain.job import BuildSpec, Job
    from codetape.domain.task import SandboxFacts

_ONE = {"models": "model", "sandboxes": "sandbox", "stores": "store"}


def available(kind: str) -> dict[str, EntryPoint]:
    """Return the adapters of a kind (models, sandboxes, stores) by name."""
    return {point.name: point for point in _points(f"codetape.{kind}", tuple(sys.path))}


@cache
def _points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return a group's entry points, looked up once for each path: what is installed on it is read file by file."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


def _create(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    known = available(kind)
    if name not in known:
        listed = ", ".join(sorted(known)) or "none is installed"
        raise UsageError(f"There is no {_ONE[kind]} adapter {name!r}.", remedy=f"Known are: {listed}.")
    try:
        factory = known[name].load()
    except Exception as error:  # another's module may raise anything; the other adapters work all the same
        raise UsageError(
            f"The adapter {name!r} ({known[name].value}) does not load: {type(error).__name__}: {error}.",
            remedy="Repair or remove its package.",
        ) from error
    return factory(*arguments, **options)


def servers() -> dict[str, str]:
    """Return the usual address of each local server that is a model adapter's, by the adapter's name."""
    found: dict[str, str] = {}
    for point in _points("codetape.servers", tuple(sys.path)):
        found |= {str(name): str(address) for name, address in dict(point.load()).items()}
    return found


def same_adapter(spec: str, other: str) -> bool:
    """Whether two models are one adapter's: it has servers and APIs of its own."""
    return spec.partition(":")[0] == other.partition(":")[0]


def check_model(spec: str) -> None:
    """Raise UsageError for a text that names no model, or a model of an adapter that is not installed."""
    adapter, colon, name = spec.partition(":")
    if not colon or not name:
        raise UsageError(f"{spec!r} names no model.", remedy="Give ADAPTER:NAME, such as openai:gpt-5-mini.")
    if adapter not in (known := available("models")):
        raise UsageError(f"There is no model adapter {adapter!r}.", remedy=f"Known are: {', '.join(sorted(known))}.")


def model(spec: str, options: Mapping[str, Any] | None = None) -> Model:
    """Return the model that ``ADAPTER:NAME`` names, such as ``openai:gpt-5-mini``."""
    check_model(spec)
    adapter, _, name = spec.partition(":")
    return complete(_create("models", adapter, name, **dict(options or {})))


def sandbox(name: str, *, system_packages: bool = False) -> Sandbox:
    """Return the sandbox that ``NAME`` or ``NAME:PLACE`` names.

    ``auto`` takes the embedded one; or docker, where system packages are needed or the embedded one is unavailable. Its
    facts then say why.
    """
    if name == "auto":
        return _chosen(system_packages=system_packages)
    adapter, _, place = name.partition(":")
    made: Sandbox = _create("sandboxes", adapter, *([place] if place else []))
    return made


def _chosen(*, system_packages: bool) -> Sandbox:
    if system_packages:
        return FallbackSandbox(_create("sandboxes", "docker"), "the task needs system packages")
    embedded: Sandbox = _create("sandboxes", "bubblewrap")
    try:
        embedded.facts()
    except SandboxUnavailable as error:
        if "docker" not in available("sandboxes"):
            raise
        other: Sandbox = _create("sandboxes", "docker")
        try:
            other.facts()
        except SandboxUnavailable as too:
            raise SandboxUnavailable(
                f"{error.message} Nor docker: {too.message}", remedy=error.remedy, step=error.step
            ) from error
        return FallbackSandbox(other, f"bubblewrap is unavailable: {error.message}")
    return embedded


class FallbackSandbox(Sandbox):
    """A sandbox that was chosen in place of another, with the reason among its facts."""

    def __init__(self, sandbox: Sandbox, why: str) -> None:
        self._sandbox, self._why = sandbox, why

    def facts(self) -> SandboxFacts:
        """Say what the sandbox is, and why it was chosen."""
        return self._sandbox.facts().model_copy(update={"why": self._why})

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Have the environment built, or find it."""
        return await self._sandbox.build(spec)

    async def execute(self, job: Job) -> Execution:
        """Run a job."""
        return await self._sandbox.execute(job)

    def images(self) -> list[StoredImage]:
        """Return the environments that are kept."""
        return self._sandbox.images()

    def remove_image(self, key: str) -> bool:
        """Remove one."""
        return self._sandbox.remove_image(key)

    def doctor(self) -> Iterable[DoctorFinding]:
        """Check what the sandbox needs of the machine."""
        return self._sandbox.doctor()


def store(name: str) -> Store:
    """Return the store that ``ADAPTER:PLACE``, or the path of an SQLite database, names."""
    adapter, colon, place = name.partition(":")
    if colon and adapter in available("stores"):
        named: Store = _create("stores", adapter, place)
        return named
    plain: Store = _create("stores", "sqlite", name)
    return plain


@cache
def store_for_reading(name: str) -> Store:
    """Return a store that is only read, opened once a process: of those that work on many sessions together."""
    return store(name).for_reading()
