"""Settings of the command line: flags first, then CODETAPE_* variables, then files, then defaults.

A project's file is ``codetape.toml``, or the table ``[tool.codetape]`` of ``pyproject.toml``, in the working folder or
the nearest folder above it that has one. The user's own file is ``codetape/config.toml`` in the configuration folder. A
key is an option's name: ``max-iterations = 5``. A project may come from a stranger: until its user trusts its file
(`codetape.cli.trust`), that decides on nothing that touches safety, money or where data goes.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from codetape.domain.defaults import DEFAULT_STORE
from codetape.errors import UsageError

# Names of paths, and no Path: that takes longer to load than reading the settings, for every command's help

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


Folder = str | os.PathLike[str]
GUARDED = ("model", "prompts", "sandbox", "packages", "db", "package-policy")
"""Settings that a project's file decides on where its user trusts it; otherwise it is told that it does not."""
NO_MORE = ("max-iterations", "max-output-tokens")
"""Settings of which a project's file may ask for less than the default, and for more where its user trusts it."""
MAX_FILE = 1 << 20  # bytes of a settings file
_MAX_TOLD = 4000  # characters of one setting
TABLES = ("prices", "redact")
"""Settings without an option: prices by model, patterns by name."""


class Setting(NamedTuple):
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


def _whose(file: str) -> str:
    from pathlib import Path

    from codetape.cli import trust  # only where there is a file

    return trust.whose(Path(file))


def _is_trusted(file: str, settings: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    from pathlib import Path

    from codetape.cli import trust

    return trust.is_trusted(Path(file), settings, environment)


def own_file(environment: Mapping[str, str]) -> str:
    """Return the path of the user's own settings; empty where no home is known. What is not absolute is none: it would
    lead into whatever folder one stands in."""
    home = os.path.expanduser(environment.get("HOME") or "~")
    folders = environment.get("XDG_CONFIG_HOME") or "", os.path.join(home, ".config")
    return next((os.path.join(f, "codetape", "config.toml") for f in folders if os.path.isabs(f)), "")


def _is_file(path: str) -> bool:
    """Whether there is a file. Raises OSError where that cannot be seen: what it sets must not be passed over."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode) if path else False
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def read_settings(environment: Mapping[str, str], folder: Folder) -> dict[str, Setting]:
    """Return every setting, flags aside. Raises UsageError for a file or value that cannot be read."""
    file, project = file_in(folder)
    if file and _whose(file):
        file, project = "", {}
    own_path = own_file(environment)
    personal = _table(own_path) if _is_file(own_path) else {}
    for source, table in ((file, project), (own_path, personal)):
        _check(source, table)
    trusted = bool(file) and _is_trusted(file, project, environment)
    return {
        name: _setting(name, default, environment, (file, project), (own_path, personal), trusted=trusted)
        for name, default in DEFAULTS.items()
    }


def notice(settings: Mapping[str, Setting], environment: Mapping[str, str], folder: Folder) -> str:
    """Return one line on what a project's file is not obeyed on; empty where it is, or is trusted."""
    file, project = file_in(folder)
    if file and (why := _whose(file)):
        return f"{file} is not obeyed: {why}"
    if not file or _is_trusted(file, project, environment):
        return ""
    ignored = [(s.ignored[1], s.name) for s in settings.values() if s.ignored]
    parts = ["sets redact of its own"] if "redact" in project else []
    values = [f"{name} = {_whole(name, value, file)}" for value, name in ignored]
    values += ["prices of its own"] if "prices" in project else []
    if values:
        parts.append(
            f"is not obeyed on {', '.join(values)} (to have it obeyed: `codetape trust`; `codetape config` says more)"
        )
    return f"{file} {'; '.join(parts)}" if parts else ""


def guarded_in(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of what a project's file decides on where it is trusted."""
    return [name for name in (*GUARDED, *NO_MORE, "prices") if name in settings]


def _whole(name: str, value: Any, file: str) -> str:
    """Return a value in full: a shortened one could hide what a project sets. Raises UsageError if it is too long."""
    text = " ".join(str(value).split())
    if len(text) > _MAX_TOLD:
        raise UsageError(f"{file} sets {name} to more than {_MAX_TOLD} characters.", remedy="Give less.")
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


def table(folder: Folder, name: str) -> tuple[str, dict[str, Any]]:
    """Return the project's settings file and one of its tables, where it may decide on that, and the user's own beside
    it. Raises UsageError if one is no table.

    Patterns to redact are taken from any file of the user's folders: what they hide, they hide from everybody.
    """
    file, settings = file_in(folder)
    own = own_file(os.environ)
    obeyed = bool(file) and not _whose(file) and (name == "redact" or _is_trusted(file, settings, os.environ))
    found: dict[str, Any] = {}
    for source, values in ((own, _table(own) if _is_file(own) else {}), (file, settings if obeyed else {})):
        value = values.get(name, {})
        if not isinstance(value, dict):
            raise UsageError(f"{name} in {source} is no table.")
        found |= value
    return file or own, found


Source = tuple[str, Mapping[str, Any]]


def _setting(
    name: str, default: Any, environment: Mapping[str, str], project: Source, own: Source, *, trusted: bool
) -> Setting:
    project_setting = _in_file(name, default, project)
    obeyed = trusted or name not in (*GUARDED, *NO_MORE)
    if project_setting and name in NO_MORE and project_setting.value <= default:
        obeyed = True
    ignored = (project[0], project_setting.value) if project_setting and not obeyed else None
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
        from pathlib import Path

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
    if "\0" in str(value):
        raise UsageError(f"{name} from {source} holds a NUL character.")
    return str(value)


def file_in(folder: Folder) -> tuple[str, dict[str, Any]]:
    """Return the settings file of a folder or of the nearest above it, and what it sets; empty where there is none."""
    for parent in with_parents(folder):
        for name in ("codetape.toml", "pyproject.toml"):
            if _is_file(path := os.path.join(parent, name)):
                table = _table(path)
                if name == "codetape.toml":
                    return path, table
                tools = table.get("tool")
                section = tools.get("codetape") if isinstance(tools, dict) else None
                if isinstance(section, dict):
                    return path, section
    return "", {}


def with_parents(folder: Folder) -> Iterator[str]:
    """Yield a folder, and those above it."""
    place = os.fspath(folder)
    while True:
        yield place
        above = os.path.dirname(place)
        if above == place:
            return
        place = above


def _table(path: str) -> dict[str, Any]:
    import tomllib
    from pathlib import Path

    from codetape.runtime.text_file import read_text_file

    try:
        return tomllib.loads(read_text_file(Path(path), most=MAX_FILE))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML that can be read: {_short(error)}.") from error
