"""Forks of a process that has pytest loaded: each is the sandbox that a fresh one is, and reports what that reports."""

import asyncio
import os
import re
import signal
from contextlib import nullcontext

import pytest

from codetape.domain.job import OTHER, BuildSpec, Job
from codetape_adapters.sandboxes.bubblewrap import fork_server
from codetape_adapters.sandboxes.bubblewrap.fork_server import FORK_SERVERS, ForkServers
from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox


class Fresh(BubblewrapSandbox):
    """Starts every job in a bubblewrap of its own."""

    def _server(self, *_):
        return nullcontext()


LOOK = """
import os, resource, signal, socket, sys

def test_look():
    mounts = {}
    for line in open("/proc/self/mountinfo"):
        words = line.split()
        at = words.index("-")
        if not words[4].startswith("/proc/"):  # bwrap covers there what it finds writable, a fork all of it
            mounts[words[4]] = (words[5].replace(",relatime", ""), words[at + 1])  # the topmost one of a place
    print("mounts", sorted(mounts.items()))
    known = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
             "Seccomp_filters", "SigBlk", "SigIgn", "SigCgt", "Umask", "Threads", "NSpid")
    for line in open("/proc/self/status"):
        if line.split(":")[0] in known:
            print(line.strip())
    for name in ("uid_map", "gid_map", "setgroups", "limits", "oom_score_adj"):
        print(name, open("/proc/self/" + name).read())
    print("descriptors", sorted(os.readlink("/proc/self/fd/" + n).split(":")[0] for n in ("0", "1", "2", "3", "4", "5")
                                if os.path.exists("/proc/self/fd/" + n)))
    print("environment", sorted((n, v) for n, v in os.environ.items() if n != "PYTEST_CURRENT_TEST"))
    print("argv", sys.argv, sys.path, sys.flags, os.getcwd(), sys.executable, sys.modules["__main__"].__spec__.name)
    print("processes", os.getpid(), os.getsid(0), os.getppid(), sorted(p for p in os.listdir("/proc") if p.isdigit()))
    print("network", socket.if_nameindex(), socket.gethostname())
    for path in ("/", "/work", "/srv", "/tmp", "/dev", "/dev/shm", "/dev/pts", "/var", "/var/inputs", "/var/outputs", "/opt"):
        there = os.path.isdir(path)
        print(path, there and [oct(os.stat(path).st_mode), os.stat(path).st_uid, sorted(os.listdir(path))])
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        socket.create_connection(server.getsockname()).close()
    print("terminal", os.ttyname(os.openpty()[1]))
    print("modules", sorted(m for m in sys.modules if m in ("init", "confined", "isolated_forks")))
    for path in ("/work/solution.py", "/var/inputs/x", "/proc/sys/kernel/hostname", "/dev/x", "/etc/x", "/opt/env/x"):
        try:
            open(path, "a")
            print("writable", path)
        except OSError as error:
            print(error)
    for act in (lambda: os.chmod("/work/solution.py", 0o777), lambda: os.unlink("/work/solution.py"), lambda: os.chroot("/tmp")):
        try:
            act()
            print("allowed")
        except OSError as error:
            print(error)
    print("signals", [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM)])
    print("cpus", len(os.sched_getaffinity(0)), os.nice(0), resource.getrlimit(resource.RLIMIT_NPROC))
"""
CASES = {
    "failures": "from solution import f\n\ndef test_a():\n    assert f() == 2\n\ndef test_b():\n    assert {'a': f()} == {'a': 2, 'b': [1]}\n",
    "fixtures": "import pytest\n\n@pytest.fixture(params=[1, 2])\ndef n(request):\n    return request.param\n\n"
    "def test_a(n, tmp_path, capsys, monkeypatch, tmpdir):\n    monkeypatch.setenv('A', 'b')\n    print(n)\n    assert capsys.readouterr().out == f'{n}\\n'\n",
    "classes": "import unittest\n\nclass TestA(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(1, 2)\n    @unittest.skip('no')\n    def test_b(self):\n        pass\n",
    "does not collect": "import nothing_of_that_name\n",
    "no syntax": "def test_a(:\n",
    "leaves early": "import os\n\ndef test_a():\n    pass\n\ndef test_b():\n    os._exit(3)\n",
    "sys.exit": "import sys\n\ndef test_a():\n    sys.exit(4)\n\ndef test_b():\n    pass\n",
    "at its end": "import atexit, os\natexit.register(os.write, 1, b'at exit\\n')\n\ndef test_a():\n    pass\n",
    "a thread stays": "import threading, time\n\ndef test_a():\n    threading.Thread(target=lambda: (time.sleep(0.3), print('ended'))).start()\n",
    "a child stays": "import os, time\n\ndef test_a():\n    if not os.fork():\n        time.sleep(60)\n",
    "warns": "import warnings\nwarnings.warn('old')\n\ndef test_a():\n    warnings.warn('older')\n",
    "recursion": "def f(n):\n    return f(n + 1)\n\ndef test_a():\n    f(0)\n",
    "kills itself": "import os, signal\n\ndef test_a():\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
    "starts itself": "import subprocess, sys\n\ndef test_a():\n    out = subprocess.run([sys.executable, '-c', 'print(__name__)'], capture_output=True, text=True)\n    assert out.stdout == '__main__\\n'\n",
    "spawns": "import multiprocessing\n\ndef double(n):\n    return 2 * n\n\ndef test_a():\n    with multiprocessing.get_context('fork').Pool(2) as pool:\n        assert pool.map(double, [1, 2]) == [2, 4]\n",
    "asyncio": "import asyncio\n\nasync def f():\n    await asyncio.sleep(0)\n    return 1\n\ndef test_a():\n    assert asyncio.run(f()) == 1\n",
    "outputs": "def test_a():\n    open('/var/outputs/x', 'w').write('y')\n    open('beside', 'w').write('z')\n",
    "closes": "import os\n\ndef test_a():\n    os.closerange(0, 3)\n",
    "memory": "def test_a():\n    bytearray(1 << 30)\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def boxes(bubblewrap):
    fresh, forked = Fresh(), BubblewrapSandbox()
    spec = BuildSpec(python_version=fresh.facts().python)
    asyncio.run(fresh.build(spec))
    return fresh, forked, spec


def job_of(spec, text, **more):
    files = {"solution.py": "def f():\n    return 1\n", "test_solution.py": text}
    return Job(purpose="run", spec=spec, files=files, targets=("test_solution.py",), **more)


def run(box, job):
    return asyncio.run(box.execute(job)).report


def plain(report):
    """Return a report without what time it took, and where things were in memory."""
    tests = tuple(test.model_copy(update={"duration_ms": 0}) for test in report.tests)
    stderr = re.sub("0x[0-9a-f]+", "0x", report.stderr)
    return report.model_copy(update={"duration_ms": 0, "tests": tests, "stderr": stderr})


@pytest.mark.parametrize("conditions", [None, OTHER], ids=["usual", "other"])
def test_a_program_sees_the_same_in_a_fork_as_in_a_fresh_sandbox(boxes, conditions):
    fresh, forked, spec = boxes
    job = job_of(spec, LOOK, **({"conditions": conditions} if conditions else {}))
    seen, expected = run(forked, job), run(fresh, job)
    assert expected.exit == "ok", expected.tests[0].traceback
    assert seen.stdout.splitlines() == expected.stdout.splitlines()
    assert FORK_SERVERS.running > 0


@pytest.mark.parametrize("name", CASES)
def test_a_fork_reports_what_a_fresh_sandbox_reports(boxes, name):
    fresh, forked, spec = boxes
    job = job_of(spec, CASES[name], resources={"wall_seconds": 20, "memory_mb": 256})
    assert plain(run(forked, job)) == plain(run(fresh, job))


SEARCH = """
import os, re

def test_a():
    wanted, found = bytes(reversed(b"YRANAC")) + b"[a-z]{8}", 0
    for line in open("/proc/self/maps"):
        place, rights = line.split()[:2]
        if rights[0] == "r" and "[v" not in line:
            first, last = (int(n, 16) for n in place.split("-"))
            memory = os.open("/proc/self/mem", os.O_RDONLY)
            found += len(re.findall(wanted, os.pread(memory, last - first, first)))
            os.close(memory)
    print(found, [n for place in ("/tmp", "/dev/shm", "/var/inputs", "/var/outputs") for n in os.listdir(place)])
"""


def test_a_fork_holds_nothing_of_the_jobs_before_it(boxes):
    _, forked, spec = boxes
    name = "CANARY" + "x" * 8
    leaves = f"def test_{name}():\n    for place in ('/tmp', '/dev/shm', '/var/outputs'):\n        open(place + '/{name}', 'w').write('{name}')\n"
    job = job_of(spec, leaves).model_copy(update={"deselect": (f"test_solution.py::test_other_{name}",)})
    assert run(forked, job).exit == "ok"
    assert run(forked, job_of(spec, SEARCH)).stdout.strip() == "0 []"
    held = run(forked, job_of(spec, f"KEPT = '{name[:6]}' + 'y' * 8\n" + SEARCH))  # the search finds what is there
    assert int(held.stdout.split()[0]) > 0


def test_no_user_namespace_can_be_made_in_a_fork(boxes):
    _, forked, spec = boxes
    text = "def test_a():\n    print(open('/proc/sys/user/max_user_namespaces').read())\n"
    assert run(forked, job_of(spec, text)).stdout.strip() == "0"


def test_a_fork_reaches_no_other(boxes):
    _, forked, spec = boxes
    waits = "import os, socket, time\n\ndef test_a():\n    s = socket.socket(socket.AF_UNIX)\n    s.bind('\\0codetape-fork')\n    s.listen()\n    m, sl = os.openpty()\n    open('/tmp/mine', 'w').write('x')\n    open('/dev/shm/mine', 'w').write('x')\n    time.sleep(3)\n"  # fmt: skip
    looks = "import os, socket, time\n\ndef test_a():\n    time.sleep(1)\n    s = socket.socket(socket.AF_UNIX)\n    try:\n        s.connect('\\0codetape-fork')\n        print('reached')\n    except OSError:\n        pass\n    print(sorted(p for p in os.listdir('/proc') if p.isdigit()), os.listdir('/dev/pts'), os.path.exists('/tmp/mine'), os.path.exists('/dev/shm/mine'))\n"  # fmt: skip

    async def both():
        return await asyncio.gather(forked.execute(job_of(spec, waits)), forked.execute(job_of(spec, looks)))

    first, second = asyncio.run(both())
    assert first.report.exit == second.report.exit == "ok"
    assert second.report.stdout.strip() == "['1', '2'] ['ptmx'] False False"


def test_nothing_that_a_job_brings_runs_in_a_server(boxes, monkeypatch):
    """Given a job with variables, packages or an oracle, then it starts fresh: no server is asked for."""
    _, forked, spec = boxes
    servers = ForkServers()
    monkeypatch.setattr("codetape_adapters.sandboxes.bubblewrap.sandbox.FORK_SERVERS", servers)
    job = job_of(spec, "def test_a():\n    pass\n")
    for other in (
        job.model_copy(update={"env": {"PYTHONPATH": "/work"}}),
        job.model_copy(update={"purpose": "oracle"}),
        job.model_copy(update={"spec": spec.model_copy(update={"packages": ("six",)})}),
    ):
        assert isinstance(forked._server(other, None), nullcontext)
    assert run(forked, job.model_copy(update={"env": {"A": "b"}})).exit == "ok"
    assert servers.running == 0
    assert run(forked, job).exit == "ok"
    servers.close()
    assert servers.running == 0


def test_where_forks_are_not_isolated_every_program_starts_fresh(boxes, monkeypatch):
    _, forked, spec = boxes
    monkeypatch.setattr(fork_server, "PASSED", b"never said")
    servers = ForkServers()
    monkeypatch.setattr("codetape_adapters.sandboxes.bubblewrap.sandbox.FORK_SERVERS", servers)
    for _ in range(2):
        assert run(forked, job_of(spec, "def test_a():\n    pass\n")).exit == "ok"
    assert servers.running == 0


def test_a_server_that_was_killed_is_started_again(boxes):
    _, forked, spec = boxes
    job = job_of(spec, "def test_a():\n    pass\n")
    assert run(forked, job).exit == "ok"
    for pid in FORK_SERVERS.pids:
        os.killpg(pid, signal.SIGKILL)
    for _ in range(3):  # the kernel may still be ending it at the first, which finds it out; the next lets go of it
        assert run(forked, job).exit == "ok"
    assert FORK_SERVERS.running > 0


def test_servers_are_few_and_idle_ones_end(boxes, monkeypatch):
    _, forked, spec = boxes
    servers = ForkServers()
    monkeypatch.setattr("codetape_adapters.sandboxes.bubblewrap.sandbox.FORK_SERVERS", servers)
    monkeypatch.setattr(fork_server, "MOST", 2)
    for number in range(4):
        assert run(forked, job_of(spec, "def test_a():\n    pass\n", conditions={"hash_seed": number})).exit == "ok"
    assert servers.running == 2
    monkeypatch.setattr(fork_server, "IDLE_SECONDS", -1)
    servers.end_idle()
    assert servers.running == 0
