"""The test of declared outputs: the script runs once on its samples, writes each of them, and each is of its type.

It is made from the task by rule, and no ask may change it. Where an input has no sample there is nothing to run on.
"""

from functools import lru_cache

from codetape.domain.script_args import flags
from codetape.domain.task import Input, Output, Task

_HEAD = '''"""The script, run on its samples, writes every declared output, and each is of its type."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

FLAGS = {flags!r}
OUTPUTS = {outputs!r}


def as_bool(text):
    if text.strip().lower() not in ("true", "false"):
        raise ValueError("neither True nor False")


READ = {{"int": int, "float": float, "timedelta": float, "datetime": datetime.fromisoformat, "bool": as_bool, "str": str}}


def test_declared_outputs():
    done = subprocess.run([sys.executable, "solution.py", *FLAGS], capture_output=True, text=True)
    assert done.returncode == 0, "the script failed on its samples: " + done.stderr[-2000:]
    for name, kind in OUTPUTS:
        path = Path("/var/outputs") / name
        assert path.exists(), "the script did not write /var/outputs/" + name
        if kind == "directory":
            assert path.is_dir(), name + " is no folder"
        elif kind == "file":
            assert path.is_file(), name + " is no file"
        else:
            READ[kind](path.read_text().strip() if kind != "str" else path.read_text())
'''


def test_file(task: Task) -> str:
    """Return the test as a file; empty where no output is declared, or an input has neither value nor sample."""
    return _test_file(task.inputs, task.outputs)


@lru_cache(maxsize=64)
def _test_file(inputs: tuple[Input, ...], outputs: tuple[Output, ...]) -> str:
    """Return the test; made once a task, for every decision of a session asks for it."""
    ready = all(i.value is not None or i.sample for i in inputs)
    if not outputs or not ready:
        return ""
    return _HEAD.format(flags=list(flags(inputs)), outputs=[(o.name, o.type) for o in outputs])
