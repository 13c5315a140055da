"""What all tests share: the profile of hypothesis, and whether this machine has a sandbox."""

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from codetape.errors import CodetapeError

# Hundreds of tests start processes: where nothing compiled may be kept, each of them would compile everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("ci", deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "quick")


@pytest.fixture(scope="session")
def bubblewrap():
    """The real sandbox; without one the test is skipped with the reason, or fails where one is required."""
    from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox

    sandbox = BubblewrapSandbox()
    try:
        sandbox.check()
    except CodetapeError as error:
        if os.environ.get("CODETAPE_REQUIRE_SANDBOX") == "1":
            raise
        pytest.skip(f"no sandbox here: {error}")
    return sandbox


@pytest.fixture(scope="session")
def docker_sandbox():
    """The real Docker sandbox; without an engine or a base image the test is skipped with the reason, or fails where required."""
    from codetape_adapters.sandboxes.docker.sandbox import DockerSandbox

    ready = os.environ.get("CODETAPE_DOCKER_READY")
    for _ in range(6000):  # an engine and a base image that are still being made
        if not ready or Path(ready).exists():
            break
        time.sleep(0.1)
    sandbox = DockerSandbox()
    try:
        sandbox.facts()
    except CodetapeError as error:
        if os.environ.get("CODETAPE_REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(f"no docker here: {error}")
    yield sandbox
    sandbox.close()


SLOW = {
    "property": ("test_laws_of_the_loop",),
    "rules": ("test_prompt_examples",),
    "contract": ("test_apis", "test_batches", "test_llamacpp", "test_openai_bounds", "test_openai_faults", "test_sandboxes"),
    "e2e": ("test_audit", "test_cli", "test_going_on", "test_inspector", "test_next_lines", "test_plain_store", "test_plugin", "test_readme", "test_recorded", "test_scripts", "test_studies", "test_terminal", "test_verbs"),
    "integration": (
        "test_agent", "test_check", "test_compare", "test_crash", "test_docker", "test_fork_servers", "test_forged_tapes", "test_forgeries", "test_forks", "test_hard_cases", "test_hostile_databases",
        "test_hostile_tapes", "test_leftovers",
        "test_loop", "test_many_processes", "test_promises_of_the_loop", "test_sandbox_attacks", "test_spend", "test_whatif",
    ),
}  # fmt: skip
"""Files whose tests start processes, servers or sandboxes, or simulate for long; `-m "not slow"` leaves them out."""


ONE_SETUP = ("test_whatif.py", "test_inspector.py", "test_many_processes.py")
"""Files whose tests share something that takes seconds to make."""


def pytest_xdist_auto_num_workers():
    """One worker more than there are CPUs: tests wait for sandboxes, servers and processes for a third of their time."""
    return (os.cpu_count() or 1) + 1


class Scheduling(LoadScopeScheduling):
    """Tests of a group run in one worker, one after another; every other test goes to whoever is free.

    Groups are told by names alone: what a worker marks does not reach the process that hands out the tests.
    """

    def _split_scope(self, nodeid):
        if "docker" in nodeid.lower():  # they share an engine, and some sweep what others would need
            return "docker"
        return next((file for file in ONE_SETUP if file in nodeid), nodeid)


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """Mark what takes long, and let what takes longest begin first."""
    for item in items:
        if item.path.stem in SLOW.get(item.path.parent.name, ()):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: "slow" not in {mark.name for mark in item.iter_markers()})


@pytest.fixture(autouse=True)
def _a_quiet_environment(monkeypatch, tmp_path):
    """No test reads this machine's settings or writes into its working folder."""
    for name in list(os.environ):
        if name.startswith(("CODETAPE_DB", "CODETAPE_MODEL", "CODETAPE_BASE_URL", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
