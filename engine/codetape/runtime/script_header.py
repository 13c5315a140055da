"""The comment that a delivered script begins with."""

from codetape import __version__
from codetape.runtime.result import GenerateResult


def script_header(result: GenerateResult) -> str:
    """Return the PEP 723 header that lets ``uv run solution.py`` work by itself."""
    lock = dict(line.split(" ")[0].split("==", 1) for line in result.lock.splitlines() if "==" in line.split(" ")[0])
    names = [f'#   "{p}=={lock[p]}",' if p in lock else f'#   "{p}",' for p in result.packages]
    lines = [
        "# /// script",
        f'# requires-python = ">={result.config.python_version}"',
        *(["# dependencies = [", *names, "# ]"] if names else ["# dependencies = []"]),
        "# ///",
    ]
    return "\n".join([*lines, f"# codetape {__version__}, session {result.session}", "", ""])
