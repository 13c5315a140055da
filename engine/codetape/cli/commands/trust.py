"""codetape trust."""

import os

import click

from codetape.cli.options import as_json
from codetape.cli.output import say, say_json
from codetape.cli.settings import file_in, guarded_in
from codetape.errors import UsageError


@click.command("trust")
@click.argument("folder", required=False, default=".", metavar="[DIR]")
@click.option("--remove", is_flag=True, help="Trust it no longer.")
@as_json
def command(folder: str, remove: bool, as_json: bool) -> int:
    """Let a folder's settings file decide on models, prompts, packages, sandboxes, prices and databases.

    It is kept by its path and by what it sets: when that changes, it is asked for again. For machines without a
    person CODETAPE_TRUST names folders.
    """
    from pathlib import Path

    from codetape.cli import trust

    file, settings = file_in(Path(folder).absolute())
    if not file:
        raise UsageError(f"There is no settings file in {folder}, or above it.", remedy="Name a folder that has one.")
    if why := trust.whose(Path(file)):
        raise UsageError(f"{file} cannot be trusted: {why}.", remedy="Copy it to a folder of your own.")
    decides = guarded_in(settings)
    if remove:
        was = trust.distrust(Path(file), os.environ)
        says = "is trusted no longer" if was else "was not trusted"
    else:
        trust.trust(Path(file), settings, os.environ)
        says = f"is trusted, and decides on {', '.join(decides) or 'nothing that needs it'}"
    if as_json:
        say_json({"file": file, "trusted": not remove, "decides": decides})
    else:
        say(f"{file} {says}")
    return 0
