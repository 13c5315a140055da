"""What runs inside a sandbox, on any Python and alone; and how it is called there."""

import json
from pathlib import Path
from typing import NamedTuple

from codetape.domain.job import Job
from codetape.domain.task import SOLUTION_FILE

HARNESS_FILES = ("init.py", "codetape_reporter.py", "codetape_evaluate.py", "isolated_forks.py", "confined.py")
GUEST_FOLDER = Path(__file__).parent
ENV, HARNESS = "/opt/env", "/opt/codetape"
PYTEST = (
    "-m", "pytest", "-p", "codetape_reporter", "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:randomly",
    "-c", f"{HARNESS}/pytest.ini", "--noconftest", "--import-mode", "prepend",
    "--capture", "no", "--continue-on-collection-errors",
)  # fmt: skip
FIXED_ENV = {
    "PATH": f"{ENV}/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - inside the sandbox, where /tmp is its own
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "COLUMNS": "80",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "SOURCE_DATE_EPOCH": "1704067200",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp",  # noqa: S108 - likewise
}


class Invocation(NamedTuple):
    """How a job is started in a sandbox: its words after the interpreter, then its targets; its variables, and whether it
    reports."""

    words: tuple[str, ...]
    targets: tuple[str, ...]
    variables: dict[str, str]
    reports: bool


def invocation(job: Job) -> Invocation:
    """Return how a job is started: every sandbox does it alike."""
    conditions = job.conditions
    variables = {
        **FIXED_ENV,
        "PYTHONHASHSEED": str(conditions.hash_seed),
        "TZ": conditions.timezone,
        **job.env,
        "PYTHONPATH": HARNESS,
        "CODETAPE_WORK": conditions.folder,
    }
    if job.purpose == "script":
        return Invocation((SOLUTION_FILE, *job.flags), (), variables, reports=False)
    if job.purpose == "evaluate":
        variables = {
            name: value for name, value in variables.items() if not name.startswith("PYTEST_")
        }  # no hint of one
        return Invocation(("-m", "codetape_evaluate"), job.targets, variables, reports=True)
    if job.deselect:
        variables["CODETAPE_DESELECT"] = json.dumps(job.deselect)
    if conditions.reverse:
        variables["CODETAPE_REVERSE"] = "1"
    if job.spec.packages:  # plugins of packages that were asked for, or are imported, and no others
        variables["CODETAPE_PLUGINS_OF"] = json.dumps(job.spec.packages)
    return Invocation((*PYTEST, "--rootdir", conditions.folder), job.targets, variables, reports=True)
