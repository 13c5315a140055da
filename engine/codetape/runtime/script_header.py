"""The comment that a delivered script begins with."""

from codetape import __version__
from codetape.domain.lock import versions_in
from codetape.runtime.result import GenerateResult


def script_header(result: GenerateResult) -> str:
    """Return the PEP 723 header that lets ``uv run solution.py`` work by itself."""
    lock = versions_in(result.lock)
    names = [f'#   "{p}=={lock[p]}",' if p in lock else f'#   "{p}",' for p in result.packages]
    lines = [
        "# /// script",
        f'# requires-python = ">={result.config.python_version}"',
        *(["# dependencies = [", *names, "# ]"] if names else ["# dependencies = []"]),
        "# ///",
    ]
    return "\n".join([*lines, f"# codetape {__version__}, session {result.session}", "", ""])
