"""Limits of one execution, and stopping what runs."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from codetape.domain.task import Resources

WORK = "/work"
GRACE_SECONDS = 5
T = TypeVar("T")


async def cancellable(running: Coroutine[Any, Any, T], stop: Callable[[], None]) -> T:
    """Await what runs in a thread; on cancellation stop it, and wait until it is gone."""
    work = asyncio.ensure_future(running)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop()
        with suppress(Exception):
            await work
        raise


def rlimits(limits: Resources, *, bounded: bool) -> dict[str, int]:
    """Return the limits of each process; without a control group one on its memory too."""
    found = {
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_CPU": limits.wall_seconds + GRACE_SECONDS,
        "RLIMIT_FSIZE": limits.disk_mb << 20,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }
    return found if bounded else {**found, "RLIMIT_AS": limits.memory_mb << 20}
