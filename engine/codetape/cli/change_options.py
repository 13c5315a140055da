"""The options that describe a change of prompts, model or settings."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from codetape.cli.options import Options, parameters
from codetape.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


class ChangeOptions(Options):
    """Options of `change`."""

    prompts: str | None
    model: str | None
    settings: tuple[str, ...]


def change(function: F) -> F:
    """Add --prompts, --model and --set."""
    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Another value of the configuration, such as max_logic_attempts=2.",
        ),
        click.option("--model", metavar="ADAPTER:NAME", help="Another model."),
        click.option("--prompts", metavar="DIR", help="Another prompt pack; `current` for the one that ships."),
    ):
        function = option(function)
    return function


def settings_of(words: tuple[str, ...]) -> dict[str, Any]:
    """Return what --set changes. Raises UsageError."""
    changes = {name.replace("-", "_"): value for name, value in parameters(words, "set").items()}
    if "model" in changes:
        raise UsageError("--set cannot set the model.", remedy="Give --model.")
    return changes
