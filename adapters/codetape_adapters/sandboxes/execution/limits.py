"""Limits of one execution, and stopping what runs."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

from codetape.domain.task import Resources

WORK = "/work"
GRACE_SECONDS = 5
P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Threads for executions to wait in: as many as can run at once, and none that names are resolved in.

    A fork of this process has none of them: it starts its own.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._owner = 0

    def submit(self, function: "Callable[P, T]", *arguments: "P.args", **named: "P.kwargs") -> "Future[T]":
        """Have a function called in one of them."""
        if self._pool is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._pool = ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="codetape sandbox")
        return self._pool.submit(function, *arguments, **named)


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
