"""A session that was driven once before the first fork: what is made at first use is then there in every fork."""

import tempfile
from pathlib import Path

from tests import crash

with tempfile.TemporaryDirectory() as folder:
    crash.drive(Path(folder) / "tape.db", Path(folder) / "trace")
