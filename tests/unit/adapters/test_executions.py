"""Executions wait in threads of their own: what is cancelled before its turn never begins."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from codetape_adapters.sandboxes.execution.limits import Workers, cancellable


def test_what_waits_for_a_thread_is_cancelled_at_once_and_never_begins():
    gate, begun, stopped = threading.Event(), [], []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait)

        async def work():
            task = asyncio.create_task(cancellable(pool.submit(begun.append, 1), lambda: stopped.append(1)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(work())
        gate.set()
    assert (begun, stopped) == ([], [1])


def test_what_runs_is_stopped_and_awaited():
    gate, ended = threading.Event(), []

    def run():
        gate.wait()
        ended.append(1)

    with ThreadPoolExecutor(1) as pool:

        async def work():
            task = asyncio.create_task(cancellable(pool.submit(run), gate.set))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended == [1]

        asyncio.run(work())


def test_a_fork_has_threads_of_its_own():
    workers = Workers()
    assert workers.submit(int, "1").result(5) == 1
    child = os.fork()
    if not child:
        os._exit(0 if workers.submit(int, "7").result(5) == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0
