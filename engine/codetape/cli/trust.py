"""Which folders' settings files a user trusts: by path and by what the file sets, so that a change asks again.

A folder may come from anywhere, and a file in it must not decide what runs, what is paid, or where data goes, until its
user has said so once: `codetape trust`, or CODETAPE_TRUST with the folders, for machines without a person.
"""

import json
import os
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from codetape.errors import UsageError

VARIABLE = "CODETAPE_TRUST"


def trust_file(environment: Mapping[str, str]) -> Path | None:
    """Return where the user's trust is kept: beside the user's own settings; None where no home is known."""
    from codetape.cli.settings import own_file

    own = own_file(environment)
    return Path(own).with_name("trusted.json") if own else None


def whose(file: Path) -> str:
    """Return why a settings file is nobody's to obey: another user's, or where others may put one. Empty if it is fine."""
    try:
        owner, folder = file.stat().st_uid, file.resolve().parent
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if owner not in (os.geteuid(), 0):
        return f"it belongs to another user ({owner})"
    if folder.stat().st_mode & stat.S_IWOTH:
        return f"everybody may write into {folder}"
    for above in folder.parents:  # in a sticky one, as /tmp is, others can move nothing away
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everybody may write into {above}"
    return ""


def is_trusted(file: Path, settings: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether the user trusts a settings file with what it sets now."""
    real = file.resolve()
    named = [Path(name) for name in environment.get(VARIABLE, "").split(os.pathsep) if name.startswith("/")]
    if any(real.parent == folder.resolve() for folder in named):
        return True
    return _read(environment).get(str(real)) == _digest(settings)


def trust(file: Path, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Keep that the user trusts a settings file with what it sets now. Raises UsageError."""
    _write({**_read(environment), str(file.resolve()): _digest(settings)}, environment)


def _digest(settings: Mapping[str, Any]) -> str:
    """Return the hash of settings: the rest of a pyproject.toml may change without a word."""
    return sha256(json.dumps(settings, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def distrust(file: Path, environment: Mapping[str, str]) -> bool:
    """Forget that; return whether it was trusted."""
    known = _read(environment)
    was = known.pop(str(file.resolve()), None) is not None
    _write(known, environment)
    return was


def _read(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what is trusted; nothing where the file is another user's, or others may write it."""
    path = trust_file(environment)
    if path is None:
        return {}
    try:
        found = path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return {}
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in known.items()} if isinstance(known, dict) else {}


def _write(known: Mapping[str, str], environment: Mapping[str, str]) -> None:
    from codetape.runtime.whole_file import write_whole

    path = trust_file(environment)
    if path is None:
        raise UsageError(
            "There is no home folder to keep it in.", remedy=f"Set HOME, or name the folder in {VARIABLE}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, [json.dumps(dict(sorted(known.items())), indent=2) + "\n"], private=True)
        path.chmod(0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
