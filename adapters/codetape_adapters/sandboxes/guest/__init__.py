"""What runs inside a sandbox, on any Python and alone; and how it is called there."""

from pathlib import Path

from codetape_adapters.sandboxes.execution.limits import WORK

GUEST_FOLDER = Path(__file__).parent
ENV, HARNESS = "/opt/env", "/opt/codetape"
PYTEST = (
    "-m", "pytest", "-p", "codetape_reporter", "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:randomly",
    "-c", f"{HARNESS}/pytest.ini", "--rootdir", WORK, "--noconftest", "--import-mode", "prepend",
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
