"""What forked processes need, loaded and used once: what is made at first use is then there in every fork."""

import tempfile
from pathlib import Path

import openai  # noqa: F401
import sqlite_utils  # noqa: F401

from tests import crash

with tempfile.TemporaryDirectory() as folder:
    crash.drive(Path(folder) / "tape.db", Path(folder) / "trace")
