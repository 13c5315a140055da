"""The options that name a change of prompts, model or settings, and what they stand for."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from codetape.cli.options import parameters
from codetape.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


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


def change_of(given: dict[str, Any]) -> Any:
    """Return the `Change`. Raises UsageError where there is none, or it cannot be."""
    from codetape.playback.whatif import Change
    from codetape.runtime.prompt_pack_files import load_pack

    config = {name.replace("-", "_"): value for name, value in parameters(given["settings"], "set").items()}
    if "model" in config:
        raise UsageError("--set cannot set the model.", remedy="Give --model.")
    if given["model"]:
        config["model"] = given["model"]
    pack = load_pack(None if given["prompts"] == "current" else given["prompts"]) if given["prompts"] else None
    if pack is None and not config:
        raise UsageError("Nothing is changed.", remedy="Give --prompts DIR, --model M or --set KEY=VALUE.")
    return Change(pack, config)
