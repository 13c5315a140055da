"""Work on many sessions in several processes: results come in the order of the names, a part at a time."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

MANY = 100  # names; with fewer, starting more processes does not pay
PART = 25  # names that a process takes at once
R = TypeVar("R")


def in_order(
    work: Callable[[list[str]], list[R]],
    names: Sequence[str],
    jobs: int = 0,
    here: Callable[[list[str]], Iterable[R]] | None = None,
) -> Iterator[R]:
    """Yield what ``work`` makes of each name, in order; it is a module's function, or a partial of one. ``here`` is used
    in its place where no other process is.

    ``jobs`` processes work at once, as many as there are CPUs by default; one does all here. No more parts are under way
    than twice that, so memory does not grow with the names. Closing the iterator, as Ctrl-C does, ends them.
    """
    jobs = jobs or _cpus()
    if jobs < 2 or len(names) < MANY:
        for name in names:
            yield from (here or work)([name])
        return
    parts = [list(names[at : at + PART]) for at in range(0, len(names), PART)]
    pool = ProcessPoolExecutor(min(jobs, len(parts)), mp_context=get_context("spawn"))
    try:
        under_way: list[Future[list[R]]] = [pool.submit(work, part) for part in parts[: 2 * jobs]]
        for number in range(len(parts)):
            done = under_way.pop(0).result()
            if number + 2 * jobs < len(parts):
                under_way.append(pool.submit(work, parts[number + 2 * jobs]))
            yield from done
    finally:
        pool.shutdown(cancel_futures=True)


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # there is none on macOS
        return os.cpu_count() or 1
