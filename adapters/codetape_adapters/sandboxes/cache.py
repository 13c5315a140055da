"""The cache's folder."""

import os
from pathlib import Path

from codetape.errors import SandboxUnavailable


def is_root() -> bool:
    """Whether this process may change its user."""
    return os.geteuid() == 0


def cache_root() -> Path:
    """Return the cache's folder, made if need be: CODETAPE_CACHE, or a place that the sandbox's user can reach."""
    if setting := os.environ.get("CODETAPE_CACHE"):
        root = Path(setting).expanduser().absolute()
    elif is_root():
        root = Path("/var/cache/codetape")
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "codetape"
    try:
        if not root.is_dir():  # an existing folder keeps its mode
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(0o755 if is_root() else 0o700)
    except OSError as error:
        raise SandboxUnavailable(
            f"The cache {root} cannot be made: {error.strerror}.",
            remedy="Set CODETAPE_CACHE to a folder that can be written.",
            step="cache",
        ) from error
    return root
