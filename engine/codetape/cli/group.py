"""The click group of all commands. Imported when a command is called, not for --help."""

import os
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from codetape import __version__
from codetape.cli import COMMANDS, help_text
from codetape.cli.options import nearest_database
from codetape.cli.output import say
from codetape.domain.defaults import DEFAULT_STORE

_CHANGING = ("fork", "whatif", "check")


class Lazy(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Load one command."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"codetape.cli.commands.{name}{'_' if iskeyword(name) else ''}").command
        return command

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help that `main` prints without click."""
        formatter.write(help_text())


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="codetape")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Take the settings of variables and files as defaults."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if ctx.invoked_subcommand not in (None, "config", "trust"):
        ctx.default_map = _defaults()


def _defaults() -> dict[str, dict[str, Any]]:
    """Return what variables and files set, as defaults of each command's options. Flags still take precedence."""
    from codetape.cli.settings import notice, read_settings

    settings = read_settings(os.environ, folder := os.getcwd())
    if settings["db"].source == "default" and not os.path.exists(DEFAULT_STORE) and (above := nearest_database()):
        settings["db"] = settings["db"]._replace(value=above, source=above)
    if line := notice(settings, os.environ, folder):
        say(f"codetape: {line}", err=True)
    renamed = {"python": "python_version"}
    values = {
        renamed.get(s.name, s.name.replace("-", "_")): tuple(s.value) if isinstance(s.value, list) else s.value
        for s in settings.values()
        if s.source != "default"
    }
    defaults: dict[str, dict[str, Any]] = dict.fromkeys(COMMANDS, values)
    # a command that continues recorded sessions keeps their model and prompts: the defaults are for new sessions
    without_model = {name: value for name, value in values.items() if name not in ("model", "prompts")}
    defaults |= dict.fromkeys(_CHANGING, without_model)
    # the --prompts of `prompts` names a pack to look at, not one to use: no default applies
    database_only = {"db": values["db"]} if "db" in values else {}
    defaults["prompts"] = dict.fromkeys(("list", "show", "export", "lint", "check"), database_only)
    defaults["backtest"] = dict.fromkeys(("rules", "limits"), without_model)
    defaults["images"] = dict.fromkeys(("list", "show", "prune"), values)
    return defaults
