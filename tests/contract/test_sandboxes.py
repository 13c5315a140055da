import pytest

from codetape.testing.contracts import SandboxContract


@pytest.mark.sandbox
class TestBubblewrap(SandboxContract):
    @pytest.fixture(autouse=True)
    def _real(self, bubblewrap):
        self.sandbox = bubblewrap

    def make(self):
        return self.sandbox


@pytest.mark.docker
class TestDocker(SandboxContract):
    @pytest.fixture(autouse=True)
    def _real(self, docker_sandbox):
        self.sandbox = docker_sandbox

    def make(self):
        return self.sandbox
