"""Attacks from inside both sandboxes, each with a self-test on the host that must not be touched or seen."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from codetape.domain.canonical import sha256
from codetape.domain.job import BuildSpec, Job
from codetape.domain.task import Input, Resources, Sample
from codetape.errors import SandboxUnavailable, UsageError
from codetape_adapters.sandboxes.bubblewrap import host
from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox
from codetape_adapters.sandboxes.execution import seccomp
from codetape_adapters.sandboxes.execution.report_parser import Raw, read
from codetape_adapters.sandboxes.execution.uv_lock import build_environment, refusal

pytestmark = pytest.mark.sandbox
CANARY = "self-test-5f1c8e0b7a"


BOXES = (pytest.param("bubblewrap"), pytest.param("docker_sandbox", marks=pytest.mark.docker))


@pytest.fixture(params=BOXES, ids=["bubblewrap", "docker"])
def box(request):
    """Each of the two."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def bounded_box(box):
    """Each of the two, where control groups bind a whole tree."""
    if not getattr(box, "bounded", True):
        pytest.skip("no control groups here: the outcome says that the tree's memory is not bounded")
    return box


def run(sandbox, code, **more):
    job = Job(
        purpose="script", spec=BuildSpec(python_version=sandbox.facts().python), files={"solution.py": code}, **more
    )
    return asyncio.run(sandbox.execute(job))


def program_of(code):
    """Return a program that prints what the code's last line got; an exception counts as blocked."""
    body = "\n".join(f"    {line}" for line in code.splitlines())
    return f"import os, socket, ctypes, subprocess, sys\ndef attack():\n{body}\ntry:\n    print('GOT', attack())\nexcept BaseException as e:\n    print('BLOCKED', type(e).__name__, e)\n"


def tried(sandbox, code, **more):
    """Run code in a sandbox; return what it printed."""
    return run(sandbox, program_of(code), **more).report.stdout


ATTACKS = {
    "loopback": "s = socket.create_connection(('127.0.0.1', PORT), 2)\nreturn s.recv(64)",
    "interfaces": "found = [n for _, n in socket.if_nameindex() if n != 'lo']\nassert found\nreturn found",
    "dns": "return socket.getaddrinfo('example.org', 80)",
    "vsock": "return socket.socket(40, socket.SOCK_STREAM)",
    "packet socket": "return socket.socket(17, socket.SOCK_RAW)",
    "path socket": "s = socket.socket(socket.AF_UNIX)\ns.connect(SOCKET)\nreturn s.recv(64)",
    "abstract socket": "s = socket.socket(socket.AF_UNIX)\ns.connect(chr(0) + ABSTRACT)\nreturn s.recv(64)",
    "docker socket": "return os.stat('/var/run/docker.sock')",
    "home": "return open(SECRET_FILE).read()",
    "root of pid 1": "return open('/proc/1/root' + SECRET_FILE).read()",
    "environment": "assert any('self-test' in v for v in os.environ.values())\nreturn dict(os.environ)",
    "others' environments": (
        "found = []\nfor p in os.listdir('/proc'):\n    if p.isdigit():\n        try: found.append(open(f'/proc/{p}/environ').read())\n"
        "        except OSError: pass\nassert any('self-test' in t for t in found)\nreturn 'seen'"
    ),
    "remount": "libc = ctypes.CDLL(None, use_errno=True)\nassert libc.mount(b'none', b'/', None, 32 | 4096, None) == 0\nreturn 'remounted'",
    "user namespace": "libc = ctypes.CDLL(None, use_errno=True)\nassert libc.unshare(0x10000000) == 0\nreturn 'namespace'",
    "core pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/x')\nreturn 'written'",
    "installed packages": "import pytest\nopen(pytest.__file__, 'a').write('x')\nreturn 'poisoned'",
    "harness": "open('/opt/codetape/init.py', 'a').write('x')\nreturn 'poisoned'",
    "own source": "open('/work/solution.py', 'w').write('x')\nreturn 'rewritten'",
    "io_uring": "libc = ctypes.CDLL(None, use_errno=True)\nr = libc.syscall(425, 8, ctypes.create_string_buffer(256))\nassert r >= 0\nreturn r",
    "bpf": "libc = ctypes.CDLL(None, use_errno=True)\nassert libc.syscall(321, 0, None, 0) >= 0 or ctypes.get_errno() != 1\nreturn 'bpf'",
    "ptrace": "libc = ctypes.CDLL(None, use_errno=True)\nassert libc.ptrace(0, 0, 0, 0) == 0\nreturn 'traced'",
    "keyctl": "libc = ctypes.CDLL(None, use_errno=True)\nassert libc.syscall(250, 0, -3, 1) >= 0\nreturn 'keys'",
    "terminal": "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')\nreturn 'typed'",
    "devices": "return os.mknod('/tmp/d', 0o20666, os.makedev(1, 5)) or open('/tmp/d', 'rb').read(4)",
    "runner's memory": "return open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "runner's pipes": "return os.listdir(f'/proc/{os.getppid()}/fd')",
    "other's cgroup": "return open('/sys/fs/cgroup/memory/memory.limit_in_bytes', 'w').write('-1')",
    "setuid": "os.setuid(0)\nreturn os.getuid()",
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_blocked(box, name, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    secret.chmod(0o644)
    monkeypatch.setenv("HOST_SECRET", CANARY)
    with Listening(tmp_path) as place:
        said = tried(box, aimed(ATTACKS[name], secret, place))
    assert "BLOCKED" in said, said
    assert CANARY not in said


def aimed(code, secret, place):
    """Return an attack that knows where its targets are on this host."""
    for word, value in {"SECRET_FILE": str(secret), **place}.items():
        code = code.replace(word, repr(value))
    return code


def writable(place):
    return f"assert os.access({place}, os.W_OK)\nreturn 'could be written'"


OUTSIDE = {
    "dns": "return socket.getaddrinfo('localhost', 80)",
    "core pattern": writable("'/proc/sys/kernel/core_pattern'"),
    "installed packages": "import pytest\n" + writable("pytest.__file__"),
    "harness": "import codetape_adapters\n" + writable("codetape_adapters.__file__"),
    "own source": writable("'.'"),
    "other's cgroup": writable("'/sys/fs/cgroup'"),
}
"""What shows that an attack works outside, where the attack itself would do harm or call a stranger."""
ELSEWHERE = {"docker socket", "root of pid 1"}
"""Attacks whose targets are not on every machine."""


@pytest.mark.parametrize("name", sorted({*ATTACKS} - ELSEWHERE))
@pytest.mark.skipif(os.getuid() != 0, reason="some attacks work as root alone")
def test_the_attack_works_outside(name, tmp_path):
    """The control: what the sandboxes block is there to be had without them."""
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    ours, theirs = os.openpty()
    try:
        with Listening(tmp_path) as place:
            program = program_of(
                aimed(OUTSIDE.get(name, ATTACKS[name]).replace("/tmp/d", str(tmp_path / "d")), secret, place)
            )
            command = ["unshare", "--mount", sys.executable, "-c", program]  # what it mounts, it mounts for itself
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                stdin=theirs,
                env={**os.environ, "HOST_SECRET": CANARY},
                timeout=60,
            )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "GOT" in done.stdout, done.stdout + done.stderr


class Listening:
    """Servers on this host that give the self-test away to whoever reaches them."""

    def __init__(self, folder):
        self.sockets, self.threads = [], []
        self.folder = folder

    def __enter__(self):
        address = str(self.folder / "s.sock")
        abstract = f"codetape-test-{os.getpid()}"
        for family, where in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, address),
            (socket.AF_UNIX, "\0" + abstract),
        ):
            made = socket.socket(family)
            made.bind(where)
            made.listen()
            self.sockets.append(made)
            self.threads.append(threading.Thread(target=serve, args=(made,), daemon=True))
            self.threads[-1].start()
        return {"PORT": self.sockets[0].getsockname()[1], "SOCKET": address, "ABSTRACT": abstract}

    def __exit__(self, *_):
        for made in self.sockets:
            made.shutdown(socket.SHUT_RDWR)
            made.close()
        for thread in self.threads:  # one that still waits holds the address
            thread.join()


def serve(made):
    try:
        while True:
            peer, _ = made.accept()
            with peer, suppress(ConnectionError):  # one that has left already is let go of all the same
                peer.sendall(CANARY.encode())
    except OSError:
        return


def test_nothing_outlives_an_execution(box):
    marker = f"marker{os.getpid()}"
    code = (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        f"            open('/proc/self/comm', 'w').write('{marker}'[:15])\n            time.sleep(60)\n        os._exit(0)\ntime.sleep(0.3)\n"
    )
    begun = time.monotonic()
    assert run(box, code).report.exit == "ok"
    assert time.monotonic() - begun < 20
    alive = subprocess.run(["ps", "-eo", "comm"], capture_output=True, text=True, check=True).stdout
    assert marker[:15] not in alive


def test_a_fork_bomb_is_contained(box):
    code = "import os, sys\nn = 0\ntry:\n    while True:\n        if os.fork() == 0:\n            import time; time.sleep(30); os._exit(0)\n        n += 1\nexcept OSError:\n    print('forks', n)\n"
    report = run(box, code, resources=Resources(processes=32, wall_seconds=20)).report
    assert int(report.stdout.split("forks")[1].split()[0]) <= 36


def test_memory_of_the_whole_tree_is_bounded(bounded_box):
    code = "import os\nfor _ in range(4):\n    os.fork()\nx = bytearray(150 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nimport time; time.sleep(1)\n"
    report = run(bounded_box, code, resources=Resources(memory_mb=256, wall_seconds=30)).report
    assert report.tree_memory_bounded
    assert report.exit in ("oom", "tests_failed", "killed")


def test_a_script_whose_children_were_killed_for_their_memory_one_by_one_did_not_go_well(bounded_box):
    code = (
        "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        x = bytearray(300 << 20)\n"
        "        for i in range(0, len(x), 4096): x[i] = 1\n        os._exit(0)\n    os.wait()\nprint('done')\n"
    )
    report = run(bounded_box, code, resources=Resources(memory_mb=256, wall_seconds=30)).report
    assert (report.exit, report.exit_code, report.stdout.strip()) == ("oom", 0, "done")


def test_tests_that_pass_while_the_limit_kills_their_processes_are_no_success(bounded_box):
    tests = (
        "import os\ndef test_a():\n    if os.fork() == 0:\n        x = bytearray(300 << 20)\n"
        "        for i in range(0, len(x), 4096): x[i] = 1\n        os._exit(0)\n    os.wait()\n"
    )
    spec = BuildSpec(python_version=bounded_box.facts().python)
    job = Job(purpose="run", spec=spec, files={"solution.py": "", "test_solution.py": tests}, targets=("test_solution.py",),
              resources=Resources(memory_mb=256))  # fmt: skip
    assert asyncio.run(bounded_box.execute(job)).report.exit == "oom"


@pytest.mark.parametrize("cpus", ["0.5", "1"])
def test_no_program_chooses_its_cpus(box, cpus):
    code = (
        "import os\nbefore = os.sched_getaffinity(0)\nfor pid in (0, os.getpid(), 1):\n    try:\n"
        "        os.sched_setaffinity(pid, range(64))\n    except OSError:\n        print('refused')\n"
        "assert os.sched_getaffinity(0) == before\nprint(len(before))\n"
    )
    said = run(box, code, resources=Resources(cpus=cpus)).report.stdout.split()
    assert said[:3] == ["refused"] * 3
    if isinstance(box, BubblewrapSandbox):  # the other one has a share of all of them
        assert said[3] == "1"


@pytest.mark.parametrize("size", [100, 200, 250])
def test_outputs_as_large_as_most_of_the_memory_arrive_whole(box, size):
    code = (
        "with open('/var/outputs/big', 'wb') as f:\n"
        f"    for _ in range({size}): f.write(b'x' * (1 << 20))\nopen('/var/outputs/answer', 'w').write('42')\n"
    )
    execution = run(box, code, resources=Resources(memory_mb=320, disk_mb=256, wall_seconds=60))
    assert (execution.report.exit, execution.report.rejected_outputs) == ("ok", ())
    assert execution.outputs["answer"] == b"42"
    assert len(execution.outputs["big"]) == size << 20


def test_outputs_that_were_lost_are_an_outcome_that_says_so():
    job = Job(purpose="script", spec=BuildSpec(python_version="3.11"), files={"solution.py": ""})
    head = b'{"begun": true}\n{"status": 0}\n{"path": "a", "size": 3}\nabc'

    def outcome(data):
        return read(Raw(b"", data, b"", b"", None, 1, tree_memory_bounded=True), job).report

    whole = outcome(head + b'{"path": "b", "size": 1}\nx{"rejected": []}\n')
    assert (whole.exit, whole.rejected_outputs, [o.path for o in whole.outputs]) == ("ok", (), ["a", "b"])
    for cut in (head, head + b'{"path": "b", "size": 9}\nx', head + b'{"path"'):
        report = outcome(cut)
        assert report.exit == "killed"
        assert "the sandbox ended before all of them were read" in report.rejected_outputs[0]


MEMORY_FILES = """
import os
n = 0
try:
    for _ in range(30):
        f = os.memfd_create("x")
        for _ in range(100): n += os.write(f, b"x" * (1 << 20)) >> 20
except OSError as error:
    print(error.strerror)
print(n)
"""


def as_ordinary_user(act):
    """Return what a function returns in a process of a user without rights, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(4321)
            os.setuid(4321)
            said = str(act())
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent shows it
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_users_program_has_no_memory_that_nobody_counts():
    """Without a control group a memory file would hold any number of gigabytes; as root it counts as the program's."""
    folder = Path(tempfile.mkdtemp(prefix="codetape-ordinary-"))
    try:
        folder.chmod(0o755)
        box = BubblewrapSandbox(cache=folder)
        assert run(box, MEMORY_FILES, resources=Resources(memory_mb=256)).report.exit == "oom"
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 4321, 4321, follow_symlinks=False)

        def act():
            del box.__dict__["bounded"]
            report = run(box, MEMORY_FILES, resources=Resources(memory_mb=256)).report
            doctor = next(f for f in box.doctor() if f.name == "control groups")
            return report.stdout, report.tree_memory_bounded, box.facts().unbound, doctor.says

        said = as_ordinary_user(act)
    finally:
        shutil.rmtree(folder)
    assert "Operation not permitted" in said, said
    assert "\\n0\\n', False, ('the memory of all processes together', 'the number of files')" in said, said
    assert "Not bound: the memory of all processes together and the number of files" in said, said


def test_a_flood_of_output_is_cut_and_ended(box):
    report = run(box, "while True:\n    print('x' * 1000)\n", resources=Resources(output_kb=64, wall_seconds=20)).report
    assert report.exit == "output_cap"
    assert len(report.stdout) < 80_000


def test_a_full_disk_is_the_programs_problem(box):
    code = "f = open('/var/outputs/big', 'wb')\ntry:\n    while True: f.write(b'x' * (1 << 20))\nexcept OSError as e:\n    print('full', e.errno)\n"
    report = run(box, code, resources=Resources(disk_mb=8, wall_seconds=30)).report
    assert "full" in report.stdout


def test_invalid_bytes_and_control_characters_survive_as_text(box):
    report = run(box, "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe \\x1b[31mred')\n").report
    assert report.stdout == "\ufffd\ufffd \x1b[31mred"


COLLECT = """
import os, socket
d = "/var/outputs/"
def t(f):
    try: f()
    except Exception as e: print(type(e).__name__)
os.makedirs(d + "a"); open(d + "a/r.csv", "w").write("a,b")
t(lambda: os.symlink(%r, d + "link"))
t(lambda: os.symlink("/", d + "dirlink"))
t(lambda: os.link(d + "a/r.csv", d + "hard"))
t(lambda: os.mkfifo(d + "fifo"))
t(lambda: socket.socket(socket.AF_UNIX).bind(d + "sock"))
t(lambda: os.truncate(os.open(d + "sparse", os.O_CREAT | os.O_RDWR), 1 << 30))
t(lambda: [open(d + "n%%d" %% i, "w").close() for i in range(3000)])
t(lambda: open(d.encode() + b"bad\\xff\\n\\x1b[31m", "w").write("x"))
fd = os.open(d, os.O_RDONLY)
for i in range(60):
    os.mkdir("deep", dir_fd=fd); n = os.open("deep", os.O_RDONLY, dir_fd=fd); os.close(fd); fd = n
os.makedirs(d + "closed"); open(d + "closed/x", "w").write("kept"); os.chmod(d + "closed/x", 0); os.chmod(d + "closed", 0)
os.unlink(d + "hard")
"""


def test_collecting_outputs_follows_nothing_and_keeps_its_limits(box, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    execution = run(box, COLLECT % str(secret))
    assert execution.report.exit == "ok", execution.report.stderr
    assert len(execution.outputs) == 200
    assert execution.outputs["a/r.csv"] == b"a,b"
    assert execution.outputs["closed/x"] == b"kept"
    rejected = " ".join(execution.report.rejected_outputs)
    for why in ("not a regular file", "too large", "too deep", "too many files", "unprintable name"):
        assert why in rejected or len(execution.report.rejected_outputs) == 50
    assert not any(CANARY.encode() in data for data in execution.outputs.values())
    assert all(".." not in path and path.isprintable() for path in execution.outputs)


@pytest.mark.parametrize(
    ("solution", "why"),
    [
        ("import os\nos._exit(0)\n", "leaves at import"),
        ("import sys\nsys.exit(0)\n", "exits at import"),
        ("open('/work/conftest.py', 'w').write('def pytest_runtest_call(item): item.obj = lambda: None')\ndef add(a, b): return 0\n", "a conftest of its own"),
        ("import os\nfor n in os.listdir('/work'):\n    try: os.unlink('/work/' + n)\n    except OSError: pass\ndef add(a, b): return 0\n", "deletes the tests"),
        ("import os\nos.environ['PYTEST_ADDOPTS'] = '--collect-only'\ndef add(a, b): return 0\n", "options"),
        ("import threading, os\nthreading.Timer(0.0, lambda: os._exit(0)).start()\nimport time; time.sleep(1)\ndef add(a, b): return 0\n", "a thread that leaves"),
    ],
    ids=lambda value: value if " " in value and "\n" not in value else None,
)  # fmt: skip
def test_a_forged_verdict_is_not_whole_or_fails(box, solution, why):
    tests = "from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n"
    spec = BuildSpec(python_version=box.facts().python)
    job = Job(
        purpose="run",
        spec=spec,
        files={"solution.py": solution, "test_solution.py": tests},
        targets=("test_solution.py",),
    )
    report = asyncio.run(box.execute(job)).report
    assert not (report.whole and report.exit == "ok")


def test_samples_are_copied_read_only_and_a_changed_one_is_refused(box, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n")
    path.chmod(0o600)
    given = Input(name="data", type="file", sample=Sample(path=str(path), sha256=sha256("a,b\n"), size=4, head="a,b"))
    code = "import sys\np = sys.argv[1].split('=')[1]\nprint(open(p).read())\ntry: open(p, 'w')\nexcept OSError: print('read-only')\n"
    report = run(box, code, inputs=(given,)).report
    assert "a,b" in report.stdout
    assert "read-only" in report.stdout
    path.write_text("c,d\n")
    with pytest.raises(UsageError, match="data has changed"):
        run(box, code, inputs=(given,))


def test_cancelling_kills_the_run(box):
    async def go():
        spec = BuildSpec(python_version=box.facts().python)
        await box.build(spec)
        job = Job(purpose="script", spec=spec, files={"solution.py": "import time\ntime.sleep(50)\n"})
        work = asyncio.create_task(box.execute(job))
        await asyncio.sleep(1)
        work.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await work
        return time.monotonic() - begun

    assert asyncio.run(go()) < 15


def test_a_missing_package_is_refused_by_name_and_without_an_address(box):
    name = "surely-no-such-package-5f1c8e0b7a"
    spec = BuildSpec(python_version=box.facts().python, packages=(name,))
    refused = asyncio.run(box.build(spec))
    assert (refused.reason, refused.packages) == ("not_found", (name,))
    assert "://" not in refused.message


def test_system_packages_are_refused_with_the_way_out(bubblewrap):
    refused = asyncio.run(bubblewrap.build(BuildSpec(python_version="3.11", system_packages=("ffmpeg",))))
    assert refused.reason == "needs_system_packages"
    assert "docker" in refused.message


def test_other_architectures_are_refused():
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        seccomp.program("riscv64")
    assert seccomp.program("aarch64") != seccomp.program("x86_64")


def test_no_bwrap_anywhere_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host, "find_spec", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="apt install bubblewrap") as caught:
        host.bwrap(tmp_path)
    assert caught.value.step == "bwrap"


def test_a_bwrap_that_cannot_isolate_is_refused(tmp_path, monkeypatch):
    """Never unconfined: a bwrap that only runs the command fails the self-test."""
    fake = tmp_path / "bwrap"
    fake.write_text(
        '#!/bin/sh\nwhile [ "$1" != "--" ]; do [ "$1" = "--info-fd" ] && eval "echo {} >&$2"; shift; done; shift\nexec "$@"\n'
    )
    fake.chmod(0o755)
    sandbox = BubblewrapSandbox()
    sandbox.__dict__["_bwrap"] = fake
    with pytest.raises(SandboxUnavailable):
        sandbox.check()


def test_the_builder_honours_pips_settings_and_passes_no_secret():
    found = build_environment(
        {"PIP_INDEX_URL": "https://pypi.example/simple", "OPENAI_API_KEY": CANARY, "PATH": "/bin", "HOME": "/nowhere"}
    )
    assert found["UV_DEFAULT_INDEX"] == "https://pypi.example/simple"
    assert CANARY not in found.values()


@pytest.mark.parametrize(
    ("said", "reason", "names"),
    [
        ("x No solution found when resolving dependencies: Because foo was not found in the package registry and you require foo", "not_found", ("foo",)),
        ("No solution found: Because only foo==1.0 is available and foo==1.0 has no usable wheels, we can conclude --no-build", "no_wheel", ("foo",)),
        ("No solution found: Because foo==1 depends on bar<2 and you require bar>=2", "conflict", ("bar", "foo")),
    ],
)  # fmt: skip
def test_refusals_are_read(said, reason, names):
    found = refusal(said, BuildSpec(python_version="3.11", packages=("foo", "bar")))
    assert (found.reason, tuple(sorted(found.packages))) == (reason, names)


def test_a_registry_that_is_down_is_infrastructure():
    with pytest.raises(SandboxUnavailable, match="cannot be reached") as caught:
        refusal("error: Failed to fetch: `https://pypi.example/simple/x/` dns error", BuildSpec(python_version="3.11"))
    assert "pypi.example" not in str(caught.value)


def test_garbage_from_a_sandbox_is_read_as_garbage():
    raw = Raw(report=b'\x00\xff{"k":"end","id":"a","outcome":"won"}\n[1]\n{"k":"end","id":"t::x","outcome":"passed","frames":[["f"]]}\n',
              outcome=b'{"status": 0}\n{"path": "../x", "size": 1}\nz', stdout=b"", stderr=b"", stopped=None, duration_ms=1, tree_memory_bounded=False)  # fmt: skip
    execution = read(raw, Job(purpose="run", spec=BuildSpec(python_version="3.11"), files={}, targets=()))
    assert not execution.report.whole
    assert execution.outputs == {}
    assert all(t.outcome == "error" for t in execution.report.tests)
