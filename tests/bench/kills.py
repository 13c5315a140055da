"""Kill a session again and again, and look whether anything is lost: `python -m tests.bench.kills [COUNT]` (2,000 by default).

Half of the kills are at a point of the session chosen by chance, half at a time chosen by chance. Ends with 1 at the first loss.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests import crash


def main(count):
    folder = Path(tempfile.mkdtemp())
    result, points = crash.drive(folder / "base.db", folder / "base.trace")
    base = result, points, crash.lines(folder / "base.trace", "ask")
    rng, killed = random.Random(), 0
    for number in range(count):
        path, trace = folder / f"{number}.db", folder / f"{number}.trace"
        if number % 2:
            crash.killed(path, trace, rng.randrange(points))
        else:
            crash.killed(path, trace, wait=0.02, after=rng.uniform(0.02, 0.5))
        if path.exists():
            again, _ = crash.drive(path, trace)
            crash.check(path, trace, again, base)
            killed += 1
        for left in folder.glob(f"{number}.*"):
            left.unlink()
        if number % 100 == 99:
            print(f"{number + 1} of {count}, nothing lost", flush=True)
    shutil.rmtree(folder)
    print(f"{killed} sessions killed and resumed; nothing that was acknowledged was lost, nothing was asked for twice")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
