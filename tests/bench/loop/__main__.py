"""``python -m tests.bench.loop``: the loop beside sampling, on tasks whose truth is known, one table a programmer.

The tests run in this process; with ``--sandbox`` in a real one. Shares have 95 % intervals (Wilson).
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from statistics import mean, median

from codetape.runtime import plugins
from tests.bench.loop.corpus import tasks
from tests.bench.loop.measured import Measured, agreement, best_of, measure, single_shot
from tests.bench.loop.programmer import WORLDS

Row = dict[str, object]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.loop", description=__doc__)
    parser.add_argument("--world", choices=WORLDS, action="append", help="only this programmer")
    parser.add_argument("--tasks", type=int, default=0, help="only so many tasks, evenly chosen")
    parser.add_argument("--seeds", type=int, default=2, help="draws of each task (default 2)")
    parser.add_argument("--sandbox", default="", help="a real sandbox, such as bubblewrap")
    parser.add_argument(
        "--min-strength", type=float, default=0.0, help="with a real sandbox: as `codetape run` takes it"
    )
    parser.add_argument("--samples", type=int, default=5, help="programs that the baselines draw (default 5)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--json", action="store_true", help="every session as one line of JSON, no table")
    options = parser.parse_args()
    everything = tasks()
    step = max(1, len(everything) // options.tasks) if options.tasks else 1
    names = [task.name for task in everything][::step][: options.tasks or None]
    draws = [(name, seed) for seed in range(1, options.seeds + 1) for name in names]
    for world in options.world or WORLDS:
        rows = _measured(world, draws, options.sandbox, options.samples, options.jobs, options.min_strength)
        if options.json:
            for kind, measured in rows.items():
                for one in measured:
                    print(json.dumps({"world": world, "kind": kind, **asdict(one)}))
        else:
            _table(world, rows)


def _measured(
    world: str, draws: Sequence[tuple[str, int]], sandbox: str, samples: int, jobs: int, strength: float
) -> dict[str, list[Measured]]:
    rows: dict[str, list[Measured]] = {}
    work = [(world, name, seed, sandbox, samples, strength) for name, seed in draws]
    with ProcessPoolExecutor(jobs) as pool:
        for number, found in enumerate(pool.map(_one, work), 1):
            for kind, measured in found.items():
                rows.setdefault(kind, []).append(measured)
            if sys.stderr.isatty():
                print(f"\r{world}: {number} of {len(work)}", end="\n" if number == len(work) else "", file=sys.stderr)
    return rows


def _one(work: tuple[str, str, int, str, int, float]) -> dict[str, Measured]:
    world, name, seed, sandbox, samples, strength = work
    task, skill = next(t for t in tasks() if t.name == name), WORLDS[world]
    loop = measure(task, seed, skill, plugins.sandbox(sandbox) if sandbox else None, strength)
    equal = max(1, (loop.tokens - loop.tests_cost) // max(1, loop.code_cost))
    return {
        "single shot": single_shot(task, seed, skill, loop),
        f"best of {samples}": best_of(task, seed, skill, loop, samples),
        "best of n, same tokens": best_of(task, seed, skill, loop, equal),
        f"agreement of {samples}": agreement(task, seed, skill, loop, samples),
        "codetape": loop,
    }


def _table(world: str, rows: dict[str, list[Measured]]) -> None:
    count = len(rows["codetape"])
    print(f"\n## {world}: {count} sessions, {len({m.task for m in rows['codetape']})} tasks\n")
    kinds = list(rows)
    print("| | " + " | ".join(kinds) + " |")
    print("|" + "---|" * (len(kinds) + 1))
    lines = {
        "ends with the right program": lambda m: (sum(x.right for x in m), len(m)),
        "**claims success, and is right**": lambda m: (sum(x.claimed and x.right for x in m), len(m)),
        "false accepts, of claims": lambda m: (sum(x.claimed and not x.right for x in m), sum(x.claimed for x in m)),
        "the same, but for disputed ones": lambda m: (
            sum(x.claimed and not x.right and x.confidence != "disputed" for x in m),
            sum(x.claimed and x.confidence != "disputed" for x in m),
        ),
        "right program run, session failed": lambda m: (sum(x.seen_right and not x.claimed for x in m), len(m)),
        "right at some run, wrong at the end": lambda m: (sum(x.seen_right and not x.right for x in m), len(m)),
    }
    for line, figure in lines.items():
        print(f"| {line} | " + " | ".join(_share(*figure(rows[kind])) for kind in kinds) + " |")
    print("| tokens a task | " + " | ".join(f"{mean(x.tokens for x in rows[kind]):,.0f}" for kind in kinds) + " |")
    loop = rows["codetape"]
    print(f"\nRuns a session: {mean(x.runs for x in loop):.2f}. Calls: {_calls(loop)}.")
    print(f"Confidence of claims, and wrong ones among them: {_confidences(loop)}.")
    if failed := Counter(x.reason for x in loop if not x.claimed):
        print(f"Not claimed: {', '.join(f'{reason} {n}' for reason, n in failed.most_common())}.")
    if any(x.sandbox_ms for x in loop):
        before = median(x.sandbox_ms - x.confirming_ms for x in loop)
        print(
            f"Sandbox time a session: median {median(x.sandbox_ms for x in loop):.0f} ms, {before:.0f} without confirming."
        )


def _calls(loop: list[Measured]) -> str:
    total: Counter[str] = Counter()
    for one in loop:
        total.update(one.by_purpose)
    return ", ".join(f"{purpose} {n / len(loop):.2f}" for purpose, n in total.most_common())


def _confidences(loop: list[Measured]) -> str:
    claims = [x for x in loop if x.claimed]
    found = Counter(x.confidence for x in claims)
    wrong = Counter(x.confidence for x in claims if not x.right)
    return ", ".join(f"{name} {n} ({wrong[name]})" for name, n in found.most_common())


def _share(part: int, whole: int) -> str:
    if not whole:
        return "-"
    z, p = 1.96, part / whole
    middle = (p + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z * math.sqrt(p * (1 - p) / whole + z * z / (4 * whole * whole)) / (1 + z * z / whole)
    return f"{100 * p:.1f} % ({100 * max(0, middle - half):.1f} to {100 * min(1, middle + half):.1f})"


if __name__ == "__main__":
    main()
