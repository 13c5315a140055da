"""Which CPUs an execution is pinned to: free ones as long as there are any on this machine.

Each CPU has a lock file in the cache. The kernel releases a lock when its process ends, so nothing has to be swept.
"""

import fcntl
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def pinned(cpus: tuple[int, ...]) -> Iterator[None]:
    """Hold this thread to CPUs, so that what it starts begins on them; the filter lets no program choose others."""
    before = os.sched_getaffinity(0)
    if not cpus:
        yield
        return
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Cpus:
    """The CPUs of this machine, as far as this process may use them. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._used: Counter[int] = Counter()

    def take(self, count: int) -> "Held":
        """Hold so many CPUs for an execution: free ones first, then those least used by this process."""
        if count <= 0:
            return Held(self, (), [])
        allowed = sorted(os.sched_getaffinity(0))
        start = secrets.randbelow(len(allowed))
        order = allowed[start:] + allowed[:start]
        with self._lock:
            order.sort(key=self._used.__getitem__)
            locks = self._free(order, min(count, len(order)))
            others = [cpu for cpu in order if cpu not in locks]
            chosen = (*locks, *others)[: min(count, len(order))]
            self._used.update(chosen)
        return Held(self, tuple(chosen), list(locks.values()))

    def _free(self, order: list[int], count: int) -> dict[int, int]:
        """Return CPUs that nobody holds, each with the descriptor of its lock."""
        locks: dict[int, int] = {}
        with suppress(OSError):  # without a writable cache executions go on, and may share CPUs
            self._folder.mkdir(parents=True, exist_ok=True)
            for cpu in order:
                if len(locks) == count:
                    break
                descriptor = os.open(self._folder / str(cpu), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(descriptor)
                else:
                    locks[cpu] = descriptor
        return locks

    def release(self, cpus: tuple[int, ...], locks: list[int]) -> None:
        """Give CPUs back."""
        with self._lock:
            self._used.subtract(cpus)
            while locks:
                os.close(locks.pop())


class Held:
    """CPUs that an execution has; given back once."""

    def __init__(self, owner: Cpus, cpus: tuple[int, ...], locks: list[int]) -> None:
        self.cpus = cpus
        self._owner, self._locks = owner, locks

    def release(self) -> None:
        """Give them back; a second time does nothing."""
        self._owner.release(self.cpus, self._locks)
        self.cpus = ()
