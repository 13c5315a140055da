"""Settings of the command line: flags first, then CODETAPE_* variables, then files, then defaults.

A project's file is ``codetape.toml``, or the table ``[tool.codetape]`` of ``pyproject.toml``, in the working folder or
the nearest folder above it that has one. The user's own file is ``codetape/config.toml`` in the configuration folder. A
key is an option's name: ``max-iterations = 5``. A project may come from a stranger, so its file cannot set the package
policy or the database, and what it sets of models, prompts and sandboxes is announced before anything happens.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codetape.errors import UsageError
from codetape.ports import DEFAULT_STORE

DEFAULTS: dict[str, Any] = {
    "model": None,
    "base-url": None,
    "api-key-env": None,
    "sandbox": "auto",
    "db": DEFAULT_STORE,
    "package-policy": "known",
    "packages": [],
    "max-iterations": 10,
    "max-output-tokens": 16384,
    "prompts": None,
    "timeout": 120,
    "memory": "1G",
    "cpus": "1",
    "python": None,
    "connect-timeout": 10,
    "read-timeout": 600,
}
"""Every setting, with its default. Lists are TOML arrays, or words between commas in a variable."""


TOLD = ("model", "prompts", "sandbox", "packages")
"""Settings of a project's file that are announced before anything happens."""
OWN = ("db", "package-policy")
"""Settings that only the user decides: a project's file is not obeyed on them, and that is announced."""
_MAX_TOLD = 4000  # characters of one setting
TABLES = ("prices", "redact")
"""Settings without an option: prices by model, patterns by name."""


@dataclass(frozen=True)
class Setting:
    """A setting's value, and where it came from: a variable, a file, or the default.

    ``ignored`` is a project's file and the value there that is not obeyed.
    """

    name: str
    value: Any
    source: str
    ignored: tuple[str, Any] | None = None


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"CODETAPE_{name.upper().replace('-', '_')}"


def own_file(environment: Mapping[str, str]) -> Path:
    """Return the path of the user's own settings."""
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or "~").expanduser() / ".config")
    return Path(home) / "codetape" / "config.toml"


def read_settings(environment: Mapping[str, str], folder: Path) -> dict[str, Setting]:
    """Return every setting, flags aside. Raises UsageError for a file or value that cannot be read."""
    file, project = _file(folder)
    own_path = own_file(environment)
    personal = _table(own_path) if own_path.is_file() else {}
    for source, table in ((file, project), (str(own_path), personal)):
        _check(source, table)
    return {
        name: _setting(name, default, environment, (file, project), (str(own_path), personal))
        for name, default in DEFAULTS.items()
    }


def notice(settings: Mapping[str, Setting], environment: Mapping[str, str], folder: Path) -> str:
    """Return one line on what a project's file sets, and what it may not set; empty if neither applies."""
    file, project = _file(folder)
    announced = [s for s in settings.values() if s.name in TOLD and s.source == file and s.name in project]
    ignored = [(s.ignored[1], s.name) for s in settings.values() if s.ignored]
    sets = [
        *(f"{s.name} = {_whole(s)}" for s in announced),
        *(f"{name} of its own" for name in TABLES if name in project),
    ]
    parts = [f"sets {', '.join(sets)}"] if sets else []
    if ignored:
        values = ", ".join(f"{name} = {_short(value)}" for value, name in ignored)
        variables = ", ".join(variable(name) for _, name in ignored)
        parts.append(f"is not obeyed on {values} (use the option, {variables}, or {own_file(environment)})")
    return f"{file} {'; '.join(parts)}" if parts else ""


def _whole(setting: Setting) -> str:
    """Return a value in full: a shortened one could hide what a project sets. Raises UsageError if it is too long."""
    text = " ".join(str(setting.value).split())
    if len(text) > _MAX_TOLD:
        raise UsageError(
            f"{setting.source} sets {setting.name} to more than {_MAX_TOLD} characters.", remedy="Give less."
        )
    return text


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:199]}…"


def _check(file: str, settings: Mapping[str, Any]) -> None:
    """Raise UsageError for settings that no file may set, and for unknown ones."""
    if refused := sorted({"base-url", "api-key-env"} & set(settings)):
        raise UsageError(
            f"{file} sets {', '.join(refused)}, which no file may: a folder from elsewhere could send a key anywhere.",
            remedy=f"Use the flag, or {variable(refused[0])}.",
        )
    if unknown := sorted(set(settings) - {*DEFAULTS, *TABLES}):
        names = ", ".join(DEFAULTS)
        raise UsageError(
            f"{file} sets {_short(', '.join(unknown))}, which codetape does not know.", remedy=f"Known are: {names}."
        )


def table(folder: Path, name: str) -> tuple[str, dict[str, Any]]:
    """Return the project's settings file and one of its tables. Raises UsageError if it is not a table."""
    file, settings = _file(folder)
    value = settings.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{name} in {file} is no table.")
    return file, value


Source = tuple[str, Mapping[str, Any]]


def _setting(name: str, default: Any, environment: Mapping[str, str], project: Source, own: Source) -> Setting:
    project_setting = _in_file(name, default, project)
    ignored = (project[0], project_setting.value) if project_setting and name in OWN else None
    if (text := environment.get(variable(name))) is not None:
        return Setting(name, _typed(name, text, default, variable(name)), variable(name), ignored)
    for setting in (None if ignored else project_setting, _in_file(name, default, own)):
        if setting:
            return Setting(name, setting.value, setting.source, ignored)
    return Setting(name, default, "default", ignored)


def _in_file(name: str, default: Any, source: Source) -> Setting | None:
    file, settings = source
    if name not in settings:
        return None
    value = _typed(name, settings[name], default, file)
    if name in ("db", "prompts") and ":" not in value:  # with a colon it is ADAPTER:PLACE, and no path
        value = str(Path(file).parent / value)
    return Setting(name, value, file)


def _typed(name: str, value: Any, default: Any, source: str) -> Any:
    """Convert a value to its setting's type, without rounding or guessing. Raises UsageError."""
    if isinstance(default, list):
        words = value.split(",") if isinstance(value, str) else value
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return [word.strip() for word in words if word.strip()]
        raise UsageError(f"{name} from {source} is no list of texts: {value!r}.")
    if isinstance(default, int):
        number = value if type(value) is int else None  # True is an int as well, and no number here
        if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
            number = int(value)
        if number is None:
            raise UsageError(f"{name} from {source} is no whole number: {_short(repr(value))}.")
        return number
    if not isinstance(value, str | int | float):
        raise UsageError(f"{name} from {source} is no text: {value!r}.")
    return str(value)


def _file(folder: Path) -> tuple[str, dict[str, Any]]:
    for parent in (folder, *folder.parents):
        for name in ("codetape.toml", "pyproject.toml"):
            if (path := parent / name).is_file():
                table = _table(path)
                if name == "codetape.toml":
                    return str(path), table
                tools = table.get("tool")
                section = tools.get("codetape") if isinstance(tools, dict) else None
                if isinstance(section, dict):
                    return str(path), section
    return "", {}


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML that can be read: {_short(error)}.") from error
