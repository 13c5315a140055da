"""codetape config."""

import os

import click

from codetape.cli.options import as_json
from codetape.cli.output import say, say_json
from codetape.cli.settings import read_settings, variable


@click.command("config")
@as_json
def command(as_json: bool) -> int:
    """Show each setting, its value and where it comes from.

    Flags come first, then CODETAPE_* variables, then codetape.toml or [tool.codetape] in pyproject.toml, in this folder
    or the nearest above it, then your own codetape/config.toml in ~/.config, then defaults. A project's file decides
    on models, prompts, packages, sandboxes, prices and databases where you trust it (`codetape trust`).
    """
    settings = read_settings(os.environ, os.getcwd())
    if as_json:
        say_json(
            {
                "settings": [
                    {"name": s.name, "value": s.value, "source": s.source, "ignored": s.ignored}
                    for s in settings.values()
                ]
            }
        )
        return 0
    for setting in settings.values():
        value = "not set" if setting.value is None else setting.value or "none"
        origin = f"default ({variable(setting.name)} sets it)" if setting.source == "default" else setting.source
        say(f"{setting.name:<18} {' '.join(str(value).split()):<24} {origin}")
        if setting.ignored:
            file, other = setting.ignored
            say(f"{'':<18} {' '.join(str(other).split()):<24} {file}: not obeyed until you trust it")
    return 0
