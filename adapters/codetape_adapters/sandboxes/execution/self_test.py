"""A sandbox's check of its own isolation: run inside, before the first execution of a process."""

from codetape.domain.task import Resources

LIMITS = Resources(wall_seconds=20, memory_mb=512)
"""Those that it runs under."""
_CHECKS = """
import os, socket
status = open("/proc/self/status").read()
problems = []
if "Seccomp:\\t2" not in status: problems.append("seccomp filter")
if "NoNewPrivs:\\t1" not in status: problems.append("no new privileges")
if "CapEff:\\t0000000000000000" not in status: problems.append("capabilities")
if os.getuid() != 1000: problems.append("user")
if [n for _, n in socket.if_nameindex() if n != "lo"]: problems.append("network")
try:
    open("/usr/.codetape", "w"); problems.append("read-only root")
except OSError: pass
"""
_VERDICT = 'print("self-test", ",".join(problems) or "well")\n'
PASSED = b"self-test well"
"""What a program of `self_test` prints where everything holds."""


def self_test(more: str = "") -> str:
    """Return the program; ``more`` are checks of one sandbox alone, that append to ``problems``."""
    return f"{_CHECKS}{more}{_VERDICT}"
