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

CALL_SECONDS = 60
BUILD_SECONDS = 1800


def connect(seconds: int = CALL_SECONDS) -> docker.DockerClient:
    """Return a client of the engine. Raises SandboxUnavailable where none answers."""
    with translated("engine"):
        client = _client(seconds)
        client.ping()
        return client


def _client(seconds: int) -> docker.DockerClient:
    named = os.environ.get("DOCKER_CONTEXT")
    host = os.environ.get("DOCKER_HOST")
    if host and not named:
        _knock(host)
        return docker.from_env(timeout=seconds)
    context = ContextAPI.get_context(named) if named else ContextAPI.get_current_context()
    if context is None:
        raise SandboxUnavailable(
            f"There is no Docker context {named!r}.", remedy="`docker context ls` shows them.", step="engine"
        )
    tls: Any = context.TLSConfig or False
    place = str(context.Host)
    _knock(place)
    return docker.DockerClient(base_url=place, tls=tls, timeout=seconds, use_ssh_client=place.startswith("ssh://"))


def _knock(place: str) -> None:
    """Try a local engine's socket before the client does, which leaves its own open where nobody answers. Raises
    OSError."""
    path = place.partition("unix://")[2].replace("//", "/") or place.partition("http+unix://")[2]
    if path:
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(path)


@contextmanager
def translated(step: str) -> Iterator[None]:
    """Turn the engine's errors into ours: one line, and what to do."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise SandboxUnavailable(
            f"Docker has no such image: {_said(error)}", remedy="Pull it, or name another base.", step=step
        ) from error
    except docker.errors.APIError as error:
        said = _said(error)
        remedy = "Free some space: `codetape images prune`." if "no space left" in said else "`docker info` says more."
        raise SandboxUnavailable(f"Docker could not do its work: {said}", remedy=remedy, step=step) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise SandboxUnavailable(_unreachable(error), remedy=_remedy(error), step=step) from error


def _said(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", "") or error).split())[:400]


def _unreachable(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else _said(error)
    return f"The Docker engine cannot be reached: {said}."


def _remedy(error: Exception) -> str:
    if "Permission" in str(error) or "permission denied" in str(error):
        return "This user may not use its socket: add it to the group docker, or set DOCKER_HOST to a rootless engine."
    return "Start it, or set DOCKER_HOST; bubblewrap needs none: --sandbox bubblewrap."


def remove_container(client: Any, name: str, *, seconds: float = 10) -> bool:
    """Kill and remove a container with its volume; whether it is gone. A busy engine refuses while it still dies: asked
    again."""
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
