import pytest

from codetape.testing.contracts import SandboxContract


@pytest.mark.sandbox
class TestBubblewrap(SandboxContract):
    @pytest.fixture(autouse=True)
    def _real(self, bubblewrap):
        self.sandbox = bubblewrap

    def make(self):
        return self.sandbox
