"""What a kill leaves of a sandbox: nothing that runs, and nothing after the next start."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from codetape_adapters.process_identity import is_abandoned, owned_name
from codetape_adapters.sandboxes.bubblewrap.cgroups import ROOT
from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox
from codetape_adapters.sandboxes.execution import staging

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

ENGINE = """
import asyncio, sys
from pathlib import Path
from codetape.domain.job import BuildSpec, Job
from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox

async def main():
    sandbox = BubblewrapSandbox(Path(sys.argv[1]))
    spec = BuildSpec(python_version=sandbox.facts().python)
    await sandbox.build(spec)
    print("ready", flush=True)
    files = {"solution.py": "import time\\ntime.sleep(60)\\n"}
    await asyncio.gather(*(sandbox.execute(Job(purpose="script", spec=spec, files=files)) for _ in range(2)))

asyncio.run(main())
"""


def of_cache(cache):
    """Processes whose command line names the cache: every bwrap that an engine on it started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if str(cache).encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def groups(pids):
    """Control groups that processes left which are gone; other tests kill theirs at the same time."""
    places = (ROOT, ROOT / "memory", ROOT / "pids", ROOT / "cpu")
    names = {f.name.removeprefix("codetape-") for place in places for f in place.glob("codetape-*")}
    return {name for name in names if is_abandoned(name) and int(name.split("-")[3]) in pids}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, bubblewrap):
    """A cache with the environment in it, so that a kill falls into an execution."""
    folder = tmp_path_factory.mktemp("cache")
    for above in (folder, *folder.parents):
        with suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o011)
    process = subprocess.Popen([sys.executable, "-c", ENGINE, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_nothing_outlives_a_killed_engine_and_the_next_start_leaves_nothing(cache):
    chance, pids = random.Random(7), set()
    for number in range(12):
        process = subprocess.Popen([sys.executable, "-c", ENGINE, str(cache)], stdout=subprocess.PIPE, text=True)
        pids.add(process.pid)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.08))
        while number == 11 and not any((cache / "runs").iterdir()):  # the last one falls where something is left
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 5
    while of_cache(cache) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert of_cache(cache) == []
    assert any((cache / "runs").iterdir())
    BubblewrapSandbox(cache).facts()
    assert [*(cache / "runs").iterdir()] == []
    assert groups(pids) == set()


def test_what_belongs_to_a_living_process_or_to_nobody_known_is_left(tmp_path):
    mine = tmp_path / owned_name()
    foreign = tmp_path / ("0" * 8 + mine.name[8:])
    other = tmp_path / "notes"
    rebooted = tmp_path / "-".join([mine.name.split("-")[0], "0" * 8, *mine.name.split("-")[2:]])
    dead = tmp_path / "-".join([*mine.name.split("-")[:3], "1", "0", mine.name.split("-")[5]])
    for folder in (mine, foreign, other, rebooted, dead):
        (folder / "work").mkdir(parents=True)
        (folder / "work").chmod(0o550)
    assert staging.sweep(tmp_path) == 2
    assert {*tmp_path.iterdir()} == {mine, foreign, other}


def test_samples_are_private_while_they_are_laid_out(tmp_path, monkeypatch):
    from codetape.domain.job import BuildSpec, Job

    seen = []
    whole = staging._close

    def close(stage, owner):
        seen.append(stage.stat().st_mode & 0o777)
        whole(stage, owner)

    monkeypatch.setattr(staging, "_close", close)
    os.umask(0o022)
    job = Job(purpose="script", spec=BuildSpec(python_version="3.11"), files={"solution.py": "x = 1"})
    with staging.staged(tmp_path / "runs", job, owner=None):
        pass
    assert seen == [0o700]
