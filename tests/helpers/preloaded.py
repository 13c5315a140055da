"""What forked processes need, loaded and used once: what is made at first use is then there in every fork."""

import gc
import tempfile
from importlib import import_module
from pathlib import Path

import openai  # noqa: F401
import sqlite_utils  # noqa: F401
from _pytest.config import default_plugins

from tests import crash

for plugin in default_plugins:
    import_module(f"_pytest.{plugin}")
with tempfile.TemporaryDirectory() as folder:
    crash.drive(Path(folder) / "tape.db", Path(folder) / "trace")
gc.collect()
gc.freeze()  # a fork that collects would copy what it shares
