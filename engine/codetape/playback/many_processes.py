"""Work on many sessions in several processes: results come in the order of the items, a part at a time."""

import gc
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

MANY = 100  # items; with fewer, starting more processes does not pay
PART = 25  # items that a process takes at once
T = TypeVar("T")
R = TypeVar("R")


def shared_out(items: Sequence[object], jobs: int) -> bool:
    """Whether so many items are worked on in several processes: 0 jobs stand for as many as there are CPUs."""
    return (jobs or _cpus()) > 1 and len(items) >= MANY


def in_order(
    work: Callable[[list[T]], list[R]],
    items: Sequence[T],
    jobs: int = 0,
    here: Callable[[list[T]], Iterable[R]] | None = None,
) -> Iterator[R]:
    """Yield what ``work`` makes of each item, in order; it is a module's function, or a partial of one. ``here`` is used
    in its place where no other process is.

    ``jobs`` processes work at once, as many as there are CPUs by default; one does all here. No more parts are under way
    than twice that, so memory does not grow with the items. Closing the iterator, as Ctrl-C does, ends them.
    """
    if not shared_out(items, jobs):
        for item in items:
            yield from (here or work)([item])
        return
    with _futures(work, items, jobs) as futures:
        for future in futures:
            yield from future.result()


async def in_order_async(work: Callable[[list[T]], list[R]], items: Sequence[T], jobs: int = 0) -> AsyncIterator[R]:
    """As `in_order` in several processes, for an event loop that goes on meanwhile."""
    import asyncio

    with _futures(work, items, jobs) as futures:
        for future in futures:
            for result in await asyncio.wrap_future(future):
                yield result


@contextmanager
def _futures(
    work: Callable[[list[T]], list[R]], items: Sequence[T], jobs: int
) -> Iterator[Iterator["Future[list[R]]"]]:
    """Give the parts under way, in order; the next is begun when the one before is taken and done with."""
    jobs = jobs or _cpus()
    parts = [list(items[at : at + PART]) for at in range(0, len(items), PART)]
    pool = ProcessPoolExecutor(min(jobs, len(parts)), mp_context=get_context("spawn"), initializer=_seldom_collect)

    def begun(several: Iterator[list[T]]) -> list["Future[list[R]]"]:
        with _without_ctrl_c():
            return [pool.submit(work, part) for part in several]

    def each() -> Iterator["Future[list[R]]"]:
        left = iter(parts)
        under_way = deque(begun(islice(left, 2 * jobs)))
        while under_way:
            yield under_way.popleft()
            under_way.extend(begun(islice(left, 1)))

    try:
        yield each()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Have processes that start now not see Ctrl-C, which a terminal sends to all: whoever started them ends them.

    Blocked, and not ignored by the process itself: it comes while Python starts, too, which would print how it failed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _seldom_collect() -> None:
    """Look for cycles a hundredth as often: sessions are values, which go with their last reference."""
    gc.set_threshold(100 * gc.get_threshold()[0], 10, 100)


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # there is none on macOS
        return os.cpu_count() or 1
