"""Limits of one execution, and stopping what runs."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from codetape.domain.task import Resources

WORK = "/work"
GRACE_SECONDS = 5
T = TypeVar("T")


def workers() -> ThreadPoolExecutor:
    """Return threads for executions to wait in: as many as can run at once, and none that names are resolved in."""
    return ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="codetape sandbox")


async def cancellable(running: "Future[T]", stop: Callable[[], None]) -> T:
    """Await what runs in a thread; on cancellation stop it, and wait until it is gone. What has not begun never does."""
    waiting = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        stop()
        if not running.cancel():
            with suppress(Exception):
                await waiting
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
