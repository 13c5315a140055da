"""The Docker sandbox against a real engine: images that evolve, what is left behind, and what is unavailable."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from codetape.domain.canonical import sha256
from codetape.domain.job import BuildSpec, Job
from codetape.domain.task import Resources, SandboxFacts
from codetape.errors import SandboxUnavailable, UsageError
from codetape.ports import BuildRejected, Built
from codetape.runtime import plugins
from codetape_adapters.sandboxes.docker import client, images
from tests.support import block, diagnosis, failure, generate, plan, purposes

pytestmark = pytest.mark.docker


def spec_for(sandbox, **more):
    facts = sandbox.facts()
    return BuildSpec(python_version=facts.python, base=facts.base, **more)


def script(sandbox, code, **more):
    spec = more.pop("spec", None) or spec_for(sandbox)
    return asyncio.run(sandbox.execute(Job(purpose="script", spec=spec, files={"solution.py": code}, **more)))


def containers(sandbox, pid=None):
    """The containers of a process, this one by default: others that use the engine have theirs."""
    owned = [f"codetape.pid={pid or os.getpid()}", "codetape=run"]
    return sandbox._client.containers.list(all=True, filters={"label": owned}, ignore_removed=True)


def test_an_image_is_named_by_what_was_asked_for_and_its_lock_names_the_base(docker_sandbox):
    spec = spec_for(docker_sandbox)
    built = asyncio.run(docker_sandbox.build(spec))
    assert built.image == spec.name
    assert built.lock.startswith(f"# base {spec.base} sha256:")
    assert "pytest==" in built.lock
    assert "://" not in built.lock
    assert spec.name != BuildSpec(python_version=spec.python_version).name
    assert spec_for(docker_sandbox, packages=("b", "a")).name == spec_for(docker_sandbox, packages=("a", "b", "a")).name


def test_two_builds_at_once_build_one(docker_sandbox):
    spec = spec_for(docker_sandbox, packages=("six",))
    docker_sandbox.remove_image(f"{spec.name}:latest")
    found = []
    workers = [threading.Thread(target=lambda: found.append(asyncio.run(docker_sandbox.build(spec)))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(built.cached for built in found) == [False, True, True]
    assert len({built.lock for built in found}) == 1
    assert script(docker_sandbox, "import six\nprint(six.__version__)", spec=spec).report.exit == "ok"


def test_system_packages_are_a_layer_that_is_shared(docker_sandbox):
    one = spec_for(docker_sandbox, system_packages=("tree",))
    built = asyncio.run(docker_sandbox.build(one))
    assert isinstance(built, Built), built
    layers = docker_sandbox._client.images.list(filters={"label": "codetape=system"})
    begun = time.monotonic()
    more = spec_for(docker_sandbox, system_packages=("tree",), packages=("idna",))
    assert not getattr(asyncio.run(docker_sandbox.build(more)), "cached", True) or time.monotonic() - begun < 5
    again = docker_sandbox._client.images.list(filters={"label": "codetape=system"})
    assert {i.id for i in again} == {i.id for i in layers}
    code = (
        "import idna, subprocess\nprint(subprocess.run(['tree', '--version'], capture_output=True, text=True).stdout)"
    )
    assert "tree v" in script(docker_sandbox, code, spec=more).report.stdout


def test_packages_that_do_not_exist_are_refused_by_name(docker_sandbox):
    name = "surely-no-such-package-5f1c8e0b7a"
    refused = asyncio.run(docker_sandbox.build(spec_for(docker_sandbox, packages=(name,))))
    assert isinstance(refused, BuildRejected)
    assert (refused.reason, refused.packages) == ("not_found", (name,))
    refused = asyncio.run(docker_sandbox.build(spec_for(docker_sandbox, system_packages=(name,))))
    assert isinstance(refused, BuildRejected)
    assert (refused.reason, refused.packages) == ("not_found", (name,))


def test_commands_are_part_of_the_image(docker_sandbox):
    spec = spec_for(docker_sandbox, commands=("echo written > /opt/by-a-command",))
    assert isinstance(asyncio.run(docker_sandbox.build(spec)), Built)
    assert "written" in script(docker_sandbox, "print(open('/opt/by-a-command').read())", spec=spec).report.stdout
    refused = asyncio.run(docker_sandbox.build(spec_for(docker_sandbox, commands=("false",))))
    assert isinstance(refused, BuildRejected)
    assert refused.reason == "needs_commands"
    assert containers(docker_sandbox) == []


WHO = "(id -u; wc -l < /proc/net/dev; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status)"


@pytest.mark.parametrize(
    ("needs", "user", "online"),
    [
        ("true", 1000, False),
        ("touch /opt/by-root", 0, False),
        ("test $(wc -l < /proc/net/dev) -gt 3", 1000, True),
        ("touch /opt/by-root && test $(wc -l < /proc/net/dev) -gt 3", 0, True),
    ],
)
def test_a_command_gets_as_little_as_it_takes(docker_sandbox, needs, user, online):
    spec = spec_for(docker_sandbox, commands=(f"{needs} && {WHO} > /var/tmp/who",))
    docker_sandbox.remove_image(f"{spec.name}:latest")
    assert isinstance(asyncio.run(docker_sandbox.build(spec)), Built)
    said = script(docker_sandbox, "print(open('/var/tmp/who').read())", spec=spec).report.stdout.split()
    assert int(said[0]) == user
    assert (int(said[1]) > 3) == online  # two lines of headings, and the loopback's
    assert said[2:] == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    assert containers(docker_sandbox) == []


PROMISES = """
import json, os, socket
def tried(act):
    try:
        act()
    except OSError:
        return False
    return True
def write(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write("x")
here = os.getcwd()
places = ["/work/x", "/work/sub/x", "/tmp/x", "/var/outputs/x", "/dev/shm/x", "/var/inputs/x", "/x", "/usr/x", "/opt/env/x",
          "/opt/codetape/x", "/etc/x", "/proc/sys/kernel/x", "/work/solution.py"]
found = {place: tried(lambda: write(place)) for place in places}
found |= {"rename": tried(lambda: os.rename("solution.py", "y")), "unlink": tried(lambda: os.unlink("solution.py")),
          "chmod": tried(lambda: os.chmod("solution.py", 0o777)), "affinity": tried(lambda: os.sched_setaffinity(0, {0})),
          "network": tried(lambda: socket.create_connection(("127.0.0.1", 9), 1)), "root": tried(lambda: os.setuid(0))}
def many():
    for n in range(5000): os.close(os.open(f"/work/many{n}", os.O_CREAT | os.O_WRONLY))
found["many"] = tried(many)
found |= {"here": here, "user": os.getuid(), "groups": sorted({*os.getgroups(), os.getgid()}), "host": socket.gethostname(), "time": __import__("time").tzname[0],
          "stdin": open(0).read(), "variables": sorted(os.environ.items()), "files": sorted(os.listdir("."))[:3],
          "size": {p: os.statvfs(p).f_blocks * os.statvfs(p).f_frsize >> 20 for p in ("/work", "/tmp", "/var/outputs", "/dev/shm")}}
print(json.dumps(found, sort_keys=True))
"""


def test_both_sandboxes_promise_the_same(docker_sandbox, bubblewrap):
    """What a program may write, may not do, and finds around it, is the same wherever it runs."""
    limits = Resources(disk_mb=64)
    outcomes = [script(box, PROMISES, resources=limits).report for box in (docker_sandbox, bubblewrap)]
    in_docker, in_bubblewrap = (json.loads(report.stdout) for report in outcomes)
    assert in_docker == in_bubblewrap
    assert {name for name, well in in_docker.items() if well is True} == {
        "/work/x", "/work/sub/x", "/tmp/x", "/var/outputs/x", "/dev/shm/x", "many",
    }  # fmt: skip


def test_nothing_is_left_of_what_ran_over_its_time_or_was_cancelled(docker_sandbox):
    report = script(docker_sandbox, "while True: pass", resources=Resources(wall_seconds=2)).report
    assert report.exit == "timeout"
    assert containers(docker_sandbox) == []

    async def cancelled():
        job = Job(purpose="script", spec=spec_for(docker_sandbox), files={"solution.py": "import time\ntime.sleep(60)"})
        work = asyncio.create_task(docker_sandbox.execute(job))
        await asyncio.sleep(1)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    begun = time.monotonic()
    asyncio.run(cancelled())
    assert time.monotonic() - begun < 20
    assert containers(docker_sandbox) == []
    assert docker_sandbox._client.volumes.list(filters={"dangling": True}) == []


def test_what_a_killed_process_left_is_swept_by_the_next(docker_sandbox):
    code = (
        "import asyncio\nfrom codetape.domain.job import BuildSpec, Job\nfrom codetape_adapters.sandboxes.docker.sandbox import DockerSandbox\n"
        "s = DockerSandbox(); f = s.facts()\n"
        "asyncio.run(s.execute(Job(purpose='script', spec=BuildSpec(python_version=f.python, base=f.base),"
        " files={'solution.py': 'import time; time.sleep(100)'})))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not [c for c in containers(docker_sandbox, process.pid) if c.status == "running"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(containers(docker_sandbox, process.pid)) == 1
    from codetape_adapters.sandboxes.docker.sandbox import DockerSandbox

    fresh = DockerSandbox()
    fresh.images()  # as `codetape images` does, and every first use
    assert containers(fresh, process.pid) == []
    fresh.close()


def test_an_unknown_base_and_a_wrong_python_are_said(docker_sandbox):
    from codetape_adapters.sandboxes.docker.sandbox import DockerSandbox

    other = DockerSandbox("no.such.registry.invalid/nothing:1")
    with pytest.raises(SandboxUnavailable, match="cannot be pulled") as caught:
        other.facts()
    assert "docker pull" in caught.value.remedy
    other.close()
    with pytest.raises(SandboxUnavailable, match="is asked for"):
        asyncio.run(docker_sandbox.build(BuildSpec(python_version="3.8", base=docker_sandbox.facts().base)))


def test_an_engine_that_is_down_or_shut_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(SandboxUnavailable, match="cannot be reached") as caught:
        client.connect()
    assert "--sandbox bubblewrap" in caught.value.remedy
    with pytest.raises(SandboxUnavailable) as caught, client.translated("engine"):
        raise PermissionError(13, "Permission denied")
    assert "group docker" in caught.value.remedy


def test_contexts_are_honoured(docker_sandbox, tmp_path):
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    place = tmp_path / "contexts" / "meta" / sha256("mine")
    place.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    (place / "meta.json").write_text(json.dumps({"Name": "mine", "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    code = (
        "import os\nfrom codetape_adapters.sandboxes.docker.client import connect\n"
        "for name in ('mine', 'other'):\n    os.environ['DOCKER_CONTEXT'] = name\n"
        "    try:\n        print(connect().version()['Version'])\n    except Exception as error:\n        print(error)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")} | {
        "DOCKER_CONFIG": str(tmp_path),
        "HOME": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split()[0][0].isdigit(), done.stderr
    assert "no Docker context 'other'" in done.stdout


def test_images_are_listed_and_what_a_suspended_session_needs_is_kept(docker_sandbox, tmp_path):
    from tests.helpers.forked import codetape

    asyncio.run(docker_sandbox.build(spec_for(docker_sandbox, packages=("six",))))
    asyncio.run(docker_sandbox.build(spec_for(docker_sandbox, packages=("idna",))))
    cache = {"CODETAPE_CACHE": str(tmp_path / "cache")}
    listed = json.loads(codetape("images", "list", "--json").stdout)["images"]
    names = {image["name"]: image for image in listed if image["sandbox"] == "docker"}
    wanted = spec_for(docker_sandbox, packages=("six",)).name
    assert any(p.startswith("six==") for p in names[wanted]["packages"])
    assert names[wanted]["size"] > 10**6
    halted(docker_sandbox, ("six",))
    done = json.loads(codetape("images", "prune", "--older-than", "0m", "--db", "x.db", "--json", env=cache).stdout)
    assert wanted in done["kept"]
    assert spec_for(docker_sandbox, packages=("idna",)).name in done["removed"]
    shown = codetape("images", "show", wanted, "--db", "x.db", env=cache)
    assert "needed by session" in shown.stdout


def halted(sandbox, packages):
    """Leave a session in x.db that is suspended after it built an image."""
    from codetape.errors import ModelUnavailable

    answers = {
        "plan": [plan()], "code": [block("import six\ndef add(a, b):\n    return a - b")],
        "tests": [block("from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n    assert add(2, 2) == 4")],
        "second_opinion": [ModelUnavailable("down")], "diagnose": [ModelUnavailable("down")],
    }  # fmt: skip
    result, _ = generate(answers, sandbox=sandbox, store="x.db", packages=packages)
    assert result.status == "suspended"
    assert result.image


NEEDS_TREE = (
    "import subprocess\n\n\ndef add(a, b):\n    subprocess.run(['tree', '--version'], check=True)\n    return a + b"
)


def test_a_system_package_that_a_run_lacks_is_learned_and_stays(docker_sandbox):
    answers = {
        "plan": [plan()], "code": [block(NEEDS_TREE)],
        "tests": [block("from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n")],
        "diagnose": [diagnosis(failure("test_sum", "environment", "tree is missing"), system=("tree",))],
    }  # fmt: skip
    result, model = generate(answers, sandbox=docker_sandbox)
    assert result.succeeded, result.reason
    assert result.system_packages == ("tree",)
    assert purposes(model).count("code") == 1


def test_the_demo_runs_in_docker(docker_sandbox):
    from tests.helpers.forked import codetape

    done = codetape("demo", "--sandbox", "docker", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "in the docker sandbox" in done.stderr
    assert "succeeded" in done.stdout


# ---- without an engine


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ("E: Failed to fetch http://mirror.example/pool/x.deb  Could not connect", "cannot be reached"),
        ("Temporary failure resolving 'mirror.example'", "cannot be reached"),
        ("E: You don't have enough free space: No space left on device", "disk is full"),
        ("/bin/sh: 1: apt-get: not found", "no apt-get"),
    ],
)
def test_what_keeps_apt_from_its_work_is_infrastructure_with_a_remedy(said, step):
    import docker

    error = docker.errors.BuildError("failed", iter([{"stream": said}]))
    with pytest.raises(SandboxUnavailable, match=step) as caught:
        images._apt_refusal(error, BuildSpec(python_version="3.11", system_packages=("tree",)))
    assert caught.value.remedy


def test_what_apt_refuses_is_a_value():
    import docker

    spec = BuildSpec(python_version="3.11", system_packages=("gone", "tree"))
    for said in (
        "\x1b[91mE\x1b[0m\x1b[91m: \x1b[0mUnable to locate package gone",
        "E: Package 'gone' has no installation candidate",
    ):
        refused = images._apt_refusal(docker.errors.BuildError("", iter([{"stream": said}])), spec)
        assert (refused.reason, refused.packages) == ("not_found", ("gone",))
    held = docker.errors.BuildError(
        "", iter([{"stream": "E: Unable to correct problems, you have held broken packages."}])
    )
    assert images._apt_refusal(held, spec).reason == "conflict"


class Refusing:
    def facts(self):
        raise SandboxUnavailable("no namespaces", remedy="use docker", step="namespaces")


class Able:
    def facts(self):
        return SandboxFacts(name="docker", python="3.12", system_packages=True)

    async def build(self, spec): ...

    async def execute(self, job): ...


@pytest.mark.parametrize("needed", [True, False])
def test_auto_takes_docker_where_it_must_and_says_why(monkeypatch, needed):
    made = {"bubblewrap": Refusing(), "docker": Able()}
    monkeypatch.setattr(plugins, "_create", lambda kind, name, *more, **options: made[name])
    facts = plugins.sandbox("auto", system_packages=needed).facts()
    assert facts.name == "docker"
    assert facts.why == ("the task needs system packages" if needed else "bubblewrap is unavailable: no namespaces")


def test_auto_says_both_where_neither_can_be_had(monkeypatch):
    monkeypatch.setattr(plugins, "_create", lambda kind, name, *more, **options: Refusing())
    with pytest.raises(SandboxUnavailable, match="no namespaces Nor docker: no namespaces"):
        plugins.sandbox("auto")


def test_a_system_package_with_another_name_than_any_is_wrong_use():
    with pytest.raises(UsageError, match="no system package"):
        generate({}, system_packages=("--force-yes",))
