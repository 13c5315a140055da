"""Options that commands share, and their conversion into values."""

import inspect
import os
import re
import stat
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import click
from click.core import ParameterSource

from codetape.domain.defaults import DEFAULT_STORE
from codetape.errors import UsageError

if TYPE_CHECKING:
    from codetape.api.opening import AgentSettings
    from codetape.domain.budget import Limit
    from codetape.runtime.pricing import Prices


F = TypeVar("F", bound=Callable[..., Any])
Given = TypeVar("Given", bound="Options")
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Options:
    """A command's options as one value: frozen dataclasses to a type checker, made in a hundredth of the time, which is
    more than all else that a command's help loads of ours."""

    option_names: ClassVar[frozenset[str]] = frozenset()
    needed_names: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Collect the names of the options, inherited ones among them, and of those without a default."""
        own = frozenset(inspect.get_annotations(cls))
        bases = [base for base in cls.__mro__[1:] if issubclass(base, Options)]
        cls.option_names = own.union(*(base.option_names for base in bases))
        cls.needed_names = cls.option_names - {name for base in (cls, *bases) for name in vars(base)}

    def __init__(self, **given: Any) -> None:
        """Take the options. Raises TypeError for one that is not known, and for one that is missing."""
        if wrong := (given.keys() - self.option_names) | (self.needed_names - given.keys()):
            raise TypeError(
                f"{type(self).__name__} takes its own options, and each of them: {', '.join(sorted(wrong))}."
            )
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise AttributeError: options do not change."""
        raise AttributeError(f"{name} of {type(self).__name__} cannot be set.")


class DatabaseOptions(Options):
    """Options of `database` and `as_json`."""

    db: str
    as_json: bool


class ServerOptions(Options):
    """Options of `server`, and --base-url."""

    base_url: str | None = None
    api_key_env: str | None
    connect_timeout: int
    read_timeout: int
    call_timeout: int
    price_as: str | None
    api: str | None
    stream: bool | None


class ManyOptions(Options):
    """Options of `several`."""

    attempts: int
    concurrent: int
    in_batches: bool


class BudgetOptions(Options):
    """Options of `budget`."""

    max_cost: str | None
    max_tokens: int | None
    max_time: str | None
    total_costs: tuple[str, ...]


class RedactOptions(Options):
    """Options of `redacting`."""

    patterns: tuple[str, ...]


class LiveOptions(ServerOptions, BudgetOptions, RedactOptions, DatabaseOptions):
    """Options of commands that run a session live."""

    sandbox: str
    folder: str | None
    force: bool


def typed(options: type[Given]) -> Callable[[Callable[[Given], int]], Callable[..., int]]:
    """Pass a command its options as one typed value. Must be the decorator directly above the function."""

    def wrap(function: Callable[[Given], int]) -> Callable[..., int]:
        @wraps(function)
        def call(**given: Any) -> int:
            return function(options(**given))

        call.options = options  # type: ignore[attr-defined]  # a test compares them with the options that click parses
        return call

    return wrap


def database(function: F) -> F:
    """Add --db."""
    return click.option("--db", default=DEFAULT_STORE, show_default=True, help="The database of tapes (CODETAPE_DB).")(
        function
    )


def database_words(db: str) -> tuple[str, ...]:
    """Return the words by which a later command finds this database; none where it finds it by itself."""
    return () if db in (DEFAULT_STORE, nearest_database()) else ("--db", db)


def nearest_database() -> str:
    """Return the database of the nearest folder above the present one that has one of this user's; empty where none
    has."""
    from codetape.cli.settings import with_parents

    for folder in list(with_parents(os.getcwd()))[1:]:
        place = os.path.join(folder, DEFAULT_STORE)
        try:
            found = [os.lstat(path) for path in (os.path.dirname(place), place)]
        except OSError:
            continue
        # another user's is not obeyed, nor a link: whoever made that chose what it leads to
        if all(one.st_uid == os.geteuid() and not stat.S_ISLNK(one.st_mode) for one in found):
            return place
    return ""


def with_checks(function: F) -> F:
    """Add --with-checks."""
    return click.option("--with-checks", is_flag=True, help="Attempts of checks as well.")(function)


def allow_build(function: F) -> F:
    """Add --allow-build."""
    return click.option(
        "--allow-build",
        is_flag=True,
        help=(
            "Let a recorded environment have what it asks for: commands, its base image, packages that are not known, "
            "limits above the usual."
        ),
    )(function)


def jobs(function: F) -> F:
    """Add --jobs."""
    return click.option(
        "--jobs",
        type=click.IntRange(0, 256),
        default=0,
        metavar="N",
        help="Of many sessions: processes that work on them at once; as many as there are CPUs by default.",
    )(function)


def as_json(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(function)


def server(function: F) -> F:
    """Add the options for reaching a model's server, except --base-url."""
    for option in (
        click.option(
            "--read-timeout",
            default=600,
            show_default=True,
            type=click.IntRange(1),
            help="Seconds in which one try must be answered, whole.",
        ),
        click.option(
            "--call-timeout",
            default=600,
            show_default=True,
            type=click.IntRange(1),
            help="Seconds for a call, with all its tries.",
        ),
        click.option(
            "--api",
            type=click.Choice(["chat", "responses"]),
            help="Of an openai: model: chat completions or responses; the provider's own server gets responses.",
        ),
        click.option(
            "--stream/--no-stream",
            default=None,
            help="Have replies sent while they are made; the providers' own servers do.",
        ),
        click.option(
            "--price-as",
            metavar="MODEL",
            help="The model whose price holds at this server, such as openai:gpt-5-mini.",
        ),
        click.option(
            "--connect-timeout",
            default=10,
            show_default=True,
            type=click.IntRange(1),
            help="Seconds to reach the server.",
        ),
        click.option(
            "--api-key-env",
            metavar="NAME",
            help=(
                "The variable that holds the key: OPENAI_API_KEY, if not given; no key goes to ollama:, lmstudio:, "
                "llamacpp: and vllm: then."
            ),
        ),
    ):
        function = option(function)
    return function


def written(function: F) -> F:
    """Add -o and --force."""
    for option in (
        click.option(
            "--force", is_flag=True, help="Let -o replace files that codetape did not write, or that changed."
        ),
        click.option(
            "-o", "folder", metavar="DIR", help="Write solution.py, its tests, its lock and result.json there."
        ),
    ):
        function = option(function)
    return function


def several(function: F) -> F:
    """Add --n-attempts, a task, --n-concurrent and --batch."""
    for option in (
        click.option(
            "--batch",
            "in_batches",
            is_flag=True,
            help="Of many: all go forward together, by the provider's batch endpoint, for part of the price.",
        ),
        click.option(
            "--n-concurrent",
            "concurrent",
            default=1,
            show_default=True,
            type=click.IntRange(1, 256),
            help="Of many: attempts at once; with --batch, of those in the sandbox.",
        ),
        click.option(
            "-k",
            "--n-attempts",
            "attempts",
            default=1,
            show_default=True,
            type=click.IntRange(1, 1000),
            help="Of many: attempts at each task.",
        ),
    ):
        function = option(function)
    return function


def budget(function: F) -> F:
    """Add the budgets."""
    for option in (
        click.option(
            "--max-total-cost",
            "total_costs",
            multiple=True,
            metavar="USD|TAG=USD",
            help="A budget of all sessions of the database, or of those with a label.",
        ),
        click.option("--max-time", metavar="T", help="A session's budget of work, such as 90s, 10m or 2h."),
        click.option("--max-tokens", type=click.IntRange(1), help="A session's budget of tokens, input and output."),
        click.option("--max-cost", metavar="USD", help="A session's budget of money."),
    ):
        function = option(function)
    return function


def budget_settings(options: BudgetOptions) -> dict[str, Any]:
    """Return the agent's settings for a session's own budget. Raises UsageError."""
    from codetape.domain.money import dollars, pico

    cost = dollars(pico(options.max_cost)) if options.max_cost else ""
    return {"max_cost": cost, "max_tokens": options.max_tokens, "max_seconds": seconds(options.max_time)}


def budget_changes(options: BudgetOptions) -> dict[str, Any]:
    """Return the budget options that were given, as changes of a configuration."""
    return {name: value for name, value in budget_settings(options).items() if value not in (None, "")}


def limits(options: BudgetOptions) -> "tuple[Limit, ...]":
    """Return the budgets that several sessions share. Raises UsageError."""
    from codetape.domain.budget import Limit
    from codetape.domain.money import pico

    budgets = []
    for word in options.total_costs:
        tag, sign, amount = word.rpartition("=")
        if sign and not tag:
            raise UsageError(f"--max-total-cost {word!r} names no label.", remedy="Give USD or TAG=USD.")
        budgets.append(Limit(f"tag:{tag}" if sign else "database", cost=pico(amount)))
    return tuple(budgets)


def seconds(text: str | None) -> int | None:
    """Read a duration such as 90s, 10m or 2h, in seconds. Raises UsageError."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600}
    body, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    if not body.isdecimal() or not 0 < (duration := int(body) * units[unit]) < 10**9:
        raise UsageError(f"{text!r} is no duration.", remedy="Give seconds, or such as 90s, 10m, 2h.")
    return duration


def redacting(function: F) -> F:
    """Add --redact."""
    return click.option(
        "--redact",
        "patterns",
        multiple=True,
        metavar="PATTERN",
        help="A regular expression; what it matches is never written.",
    )(function)


def own_patterns(options: RedactOptions) -> dict[str, str]:
    """Return the patterns of the settings file and of --redact, by name. Raises UsageError."""
    from codetape.cli.settings import table

    source, patterns = table(os.getcwd(), "redact")
    if wrong := next((name for name, pattern in patterns.items() if not isinstance(pattern, str)), None):
        raise UsageError(f"The pattern {wrong} in {source} is no text.")
    return {**patterns, **{f"of --redact {number}": text for number, text in enumerate(options.patterns, 1)}}


def own_prices() -> "Prices":
    """Return the user's prices, from the settings file. Raises UsageError."""
    from codetape.cli.settings import table
    from codetape.runtime.pricing import read_prices

    source, prices = table(os.getcwd(), "prices")
    return read_prices(prices, source)


def server_settings(options: ServerOptions) -> "AgentSettings":
    """Return the agent's settings for reaching a model's server."""
    how: dict[str, Any] = {
        "connect_seconds": options.connect_timeout,
        "read_seconds": options.read_timeout,
        "call_seconds": options.call_timeout,
        **({"api": options.api} if options.api else {}),
        **({"stream": options.stream} if options.stream is not None else {}),
    }
    source = click.get_current_context().get_parameter_source("base_url")
    # CODETAPE_BASE_URL is for new sessions: a recorded one moves to another server by the flag alone
    named = source is not ParameterSource.DEFAULT_MAP
    return {
        "base_url": options.base_url,
        "api_key_env": options.api_key_env,
        "model_options": how,
        "server_named": named,
    }


def words(option: str, value: str | None, default: str | None = None) -> tuple[str, ...]:
    """Return an option and its value as words of a command line; none where the value is empty or the default."""
    return (option, value) if value and value != default else ()


def pairs(values: tuple[str, ...], what: str) -> dict[str, str]:
    """Read NAME=VALUE words. Raises UsageError."""
    mapping: dict[str, str] = {}
    for word in values:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise UsageError(f"--{what} {word!r} is not NAME=VALUE.")
        if name in mapping:
            raise UsageError(f"--{what} names {name} twice.")
        mapping[name] = value
    return mapping


def parameters(values: tuple[str, ...], what: str = "param") -> dict[str, Any]:
    """Read KEY=VALUE words. A value that is JSON is parsed, anything else is text. Raises UsageError."""
    import json

    from codetape.domain.canonical import canonical

    parsed: dict[str, Any] = {}
    for name, value in pairs(values, what).items():
        try:
            parsed[name] = json.loads(value, parse_constant=_no_number)
            canonical(parsed[name])
        except (ValueError, RecursionError):
            if value[:1] in ("{", "["):
                raise UsageError(f"--{what} {name} is no JSON that can be kept: {value[:80]!r}.") from None
            parsed[name] = value
    return parsed


def at_event(named: str) -> tuple[str, int | None]:
    """Read SESSION or SESSION:SEQ."""
    name, colon, seq = named.rpartition(":")
    if colon and seq.isdecimal() and name and not os.path.isfile(named):
        return name, int(seq)
    if colon and SESSION.fullmatch(name) and not os.path.isfile(named):
        raise UsageError(f"{seq[:40]!r} is no event's number.", remedy="Give SESSION:SEQ, such as last:44.")
    return named, None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def text_of(path: str | None) -> str | None:
    """Return a text file's content; None where no path is given. Raises UsageError."""
    if path is None:
        return None
    from pathlib import Path

    from codetape.runtime.text_file import read_text_file

    return read_text_file(Path(path))


def write_text(file: str, text: str) -> None:
    """Write a text file atomically. Raises UsageError."""
    from pathlib import Path

    from codetape.runtime.whole_file import write_whole

    try:
        write_whole(Path(file), [text])
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error


def memory_mb(text: str) -> int:
    """Read a size such as 512M or 2G, in MB. Raises UsageError."""
    units = {"k": 1 / 1024, "m": 1, "g": 1024}
    body = text.strip().lower().removesuffix("b")
    factor = units.get(body[-1:], 0)
    try:
        return int(float(body[:-1]) * factor) if factor else int(body)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no size.", remedy="Give MB, or a number with K, M or G, such as 2G.") from None


def _prices(price_as: str | None) -> "Prices":
    from codetape.runtime.pricing import priced_as

    return priced_as(own_prices(), price_as) if price_as else own_prices()


def live_settings(options: LiveOptions) -> "AgentSettings":
    """Return the agent's settings of a live session, except its own budget."""
    return {
        **server_settings(options),
        "limits": limits(options),
        "prices": _prices(options.price_as),
        "redact": own_patterns(options),
    }
