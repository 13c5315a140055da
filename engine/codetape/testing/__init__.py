"""For those who test codetape or write an adapter: fakes of every port, and the contract suites.

from codetape.testing import FakeSandbox, MemoryStore, ScriptedModel
"""

from codetape.testing.fakes import FakeClock, FakeSandbox, MemoryStore, ScriptedModel, passing_report

__all__ = ["FakeClock", "FakeSandbox", "MemoryStore", "ScriptedModel", "passing_report"]
