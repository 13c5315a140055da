"""Whose something is: this process's, and whether another one is still alive."""

import hashlib
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

LEASE_SECONDS = 60


def identity() -> tuple[str, str, int, str]:
    """Return this process as a holder: host, boot id, pid, start time."""
    return socket.gethostname(), _boot(), os.getpid(), _process_start(os.getpid())


def _boot() -> str:
    """Return the kernel's boot id and the PID namespace: a pid means another process in another namespace."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - a link that leads nowhere
    return ""


def _process_start(pid: int) -> str:
    """Return the kernel's start time of a process, so that a reused pid is told apart; empty where it is gone."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return ""


_OWNED = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{8})-(\d{1,10})-(\d{0,20})-[0-9a-f]{12}")


def owned_name() -> str:
    """Return a new name for what this process makes: host, boot, PID namespace, pid and start time are read from it."""
    host, boot, pid, start = identity()
    machine, _, namespace = boot.partition(" ")
    return "-".join((*map(_short, (host, machine, namespace)), str(pid), start, secrets.token_hex(6)))


def is_abandoned(name: str) -> bool:
    """Whether what has this name was made by a process that has certainly ended; False for other names."""
    match = _OWNED.fullmatch(name)
    host, boot, _, _ = identity()
    machine, _, namespace = boot.partition(" ")
    if match is None or match[1] != _short(host) or not machine:
        return False
    if match[2] != _short(machine):
        return True  # the machine has rebooted since
    return match[3] == _short(namespace) and _process_start(int(match[4])) != match[5]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def alive(row: Any, now: float) -> bool:
    """Whether a lease's holder lives: not if its process is gone here, nor after 60 s without a heartbeat.

    ``row`` is (token, held, host, boot, pid, process_start, since, heartbeat).
    """
    _, _, host, boot, pid, process_start, _, heartbeat = row
    if gone(host, boot, pid, process_start):
        return False
    return bool(now - heartbeat < LEASE_SECONDS)


def gone(host: str, boot: str, pid: int, process_start: str) -> bool:
    """Whether a process has certainly ended; False where that cannot be told, as on another host or PID namespace."""
    here = _boot()
    if host != socket.gethostname() or not boot or not here:
        return False
    if boot.partition(" ")[0] != here.partition(" ")[0]:
        return True  # the machine has rebooted since
    return boot == here and _process_start(pid) != process_start
