"""The commands that a person lets an image have, each run in a container of its own that becomes the next layer.

A command gets as little as it takes: it is tried as an unprivileged user without network, then as root without it, then
with it. Never more than what package tools need of root's capabilities, no new privileges, the executions' seccomp
filter, bounded memory, processes and time. What a try left behind that failed is thrown away.
"""

import base64
from contextlib import suppress
from typing import Any

import docker

from codetape.ports import BuildRejected
from codetape_adapters.sandboxes.docker.client import BUILD_SECONDS, LABEL, owner_labels, remove_container
from codetape_adapters.sandboxes.execution import seccomp
from codetape_adapters.sandboxes.guest import GUEST_FOLDER

USER, ROOT, OFFLINE = "1000:1000", "0:0", "none"
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID"]
"""What root keeps of its powers for a command: what package tools need to unpack and to own files."""
_MEMORY, _PROCESSES = 4 << 30, 512
_CONFINED = (
    (GUEST_FOLDER / "confined.py").read_text("utf-8")
    + """
import base64, sys
confine(base64.b64decode(sys.argv[1]))
os.chdir("/")
os.execv("/bin/sh", ["sh", "-c", sys.argv[2]])
"""
)


def layered(
    client: docker.DockerClient, image: str, python: str, commands: tuple[str, ...], network: str
) -> str | BuildRejected:
    """Return the id of an image with the commands run on top of another; or how the first one failed that did.

    Raises what the engine raises.
    """
    made: list[str] = []
    for command in commands:
        layer = _layer(client, image, python, command, network)
        if isinstance(layer, BuildRejected):
            for other in reversed(made):
                with suppress(docker.errors.APIError):
                    client.images.remove(other)
            return layer
        made.append(layer)
        image = layer
    return image


def _layer(client: docker.DockerClient, image: str, python: str, command: str, network: str) -> str | BuildRejected:
    said = ""
    for user, net in ((USER, OFFLINE), (ROOT, OFFLINE), (USER, network), (ROOT, network)):
        api = client.api
        container = _created(api, image, [python, "-I", "-S", "-c", _CONFINED, _filter(), command], user, net)
        try:
            api.start(container)
            code = int(api.wait(container, timeout=BUILD_SECONDS)["StatusCode"])
            if code == 0:
                labels = f"LABEL {LABEL}=layer"
                return str(api.commit(container, changes=[labels])["Id"])
            said = api.logs(container, tail=100).decode("utf-8", "replace")
        finally:
            remove_container(client, container)
    return BuildRejected("needs_commands", f"{command}: {' '.join(said.split())[-2000:]}")


def _created(api: Any, image: str, words: list[str], user: str, network: str) -> str:
    host = api.create_host_config(
        network_mode=network,
        cap_drop=["ALL"],
        cap_add=CAPABILITIES if user == ROOT else [],
        security_opt=["no-new-privileges"],
        mem_limit=_MEMORY,
        memswap_limit=_MEMORY,
        pids_limit=_PROCESSES,
        ipc_mode="private",
        log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
    )
    created = api.create_container(
        image, command=words, entrypoint=[], user=user, labels=owner_labels(), host_config=host, stop_signal="SIGKILL"
    )
    return str(created["Id"])


def _filter() -> str:
    return base64.b64encode(seccomp.program()).decode()
