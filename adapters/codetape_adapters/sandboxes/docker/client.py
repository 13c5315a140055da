"""The Docker engine: the one that DOCKER_HOST or the current context names, and what its errors mean to a person."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker.context import ContextAPI

from codetape.errors import SandboxUnavailable
from codetape_adapters.process_identity import identity

LABEL = "codetape"
CALL_SECONDS = 60
BUILD_SECONDS = 1800


def connect(seconds: int = CALL_SECONDS) -> docker.DockerClient:
    """Return a client of the engine. Raises SandboxUnavailable where none answers."""
    with translated("engine"):
        client = _client(seconds)
        client.ping()
        return client


def _client(seconds: int) -> docker.DockerClient:
    context_name = os.environ.get("DOCKER_CONTEXT")
    host = os.environ.get("DOCKER_HOST")
    if host and not context_name:
        _probe_socket(host)
        return docker.from_env(timeout=seconds)
    context = ContextAPI.get_context(context_name) if context_name else ContextAPI.get_current_context()
    if context is None:
        raise SandboxUnavailable(
            f"There is no Docker context {context_name!r}.", remedy="`docker context ls` shows them.", step="engine"
        )
    tls: Any = context.TLSConfig or False
    address = str(context.Host)
    _probe_socket(address)
    return docker.DockerClient(base_url=address, tls=tls, timeout=seconds, use_ssh_client=address.startswith("ssh://"))


def _probe_socket(address: str) -> None:
    """Try a local engine's socket before the client does, which leaks its own where none answers. Raises OSError."""
    path = address.partition("unix://")[2].replace("//", "/") or address.partition("http+unix://")[2]
    if path:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)


@contextmanager
def translated(step: str) -> Iterator[None]:
    """Turn the engine's errors into ours: one line, and what to do."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise SandboxUnavailable(
            f"Docker has no such image: {_reason(error)}", remedy="Pull it, or name another base.", step=step
        ) from error
    except docker.errors.APIError as error:
        reason = _reason(error)
        remedy = (
            "Free some space: `codetape images prune`." if "no space left" in reason else "`docker info` says more."
        )
        raise SandboxUnavailable(f"Docker could not do its work: {reason}", remedy=remedy, step=step) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise SandboxUnavailable(_unreachable(error), remedy=_remedy(error), step=step) from error


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", "") or error).split())[:400]


def _unreachable(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else _reason(error)
    return f"The Docker engine cannot be reached: {reason}."


def _remedy(error: Exception) -> str:
    if "Permission" in str(error) or "permission denied" in str(error):
        return "This user may not use its socket: add it to the group docker, or set DOCKER_HOST to a rootless engine."
    return "Start it, or set DOCKER_HOST; bubblewrap needs none: --sandbox bubblewrap."


def owner_labels() -> dict[str, str]:
    """Return the labels of a container of this process: those of a dead one can be found, and removed."""
    host, boot, pid, start = identity()
    owner = {"host": host, "boot": boot, "pid": str(pid), "start": start}
    return {LABEL: "run", **{f"{LABEL}.{name}": value for name, value in owner.items()}}


def remove_container(client: Any, name: str, *, seconds: float = 30) -> bool:
    """Kill and remove a container with its volume; return whether it is gone.

    A busy engine refuses while the container still dies, so the call is repeated.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            client.api.remove_container(name, v=True, force=True)
        except docker.errors.NotFound:
            return True
        except (docker.errors.DockerException, OSError):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.25)
        else:
            return True
