"""Executions at once are spread over the CPUs, those of other processes among them."""

import os
import subprocess
import sys

from codetape_adapters.sandboxes.bubblewrap.cpus import Cpus

FREE = len(os.sched_getaffinity(0))


def test_executions_at_once_have_cpus_of_their_own_as_long_as_there_are_any(tmp_path):
    cpus = Cpus(tmp_path)
    held = [cpus.take(1) for _ in range(FREE)]
    assert len({h.cpus for h in held}) == FREE
    crowded = [cpus.take(1) for _ in range(FREE)]
    assert len({h.cpus for h in crowded}) == FREE, "then those that fewest have"
    held[0].release()
    held[0].release()
    assert len(cpus.take(1).cpus) == 1


def test_another_process_leaves_what_this_one_holds(tmp_path):
    mine = Cpus(tmp_path).take(FREE - 1 or 1)
    code = "import sys; from pathlib import Path; from codetape_adapters.sandboxes.bubblewrap.cpus import Cpus; print(*Cpus(Path(sys.argv[1])).take(1).cpus)"
    found = {
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(4)
    }
    if FREE > 1:
        assert not found & {*mine.cpus}
    assert found


def test_more_than_there_are_is_all_of_them_and_none_is_none(tmp_path):
    assert set(Cpus(tmp_path).take(10_000).cpus) == os.sched_getaffinity(0)
    assert Cpus(tmp_path).take(0).cpus == ()


def test_a_cache_that_cannot_be_written_to_keeps_nobody_from_running(tmp_path):
    (tmp_path / "file").write_text("")
    assert len(Cpus(tmp_path / "file" / "cpus").take(1).cpus) == 1
