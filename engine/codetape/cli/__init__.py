"""The command line: parse, wire, print. Each verb is a file, loaded when it is called."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from codetape import __version__
from codetape.errors import CodetapeError

VERBS = {
    "run": "Turn a prompt into a verified script.",
    "demo": "Watch the loop work on a recorded run: no key, no daemon.",
    "exec": "Run a session's verified script on inputs.",
    "resume": "Go on with a session that was stopped or asked something.",
    "replay": "Run sessions or tapes again from what is recorded, and compare.",
    "list": "List the sessions of a database.",
    "show": "Show a session: its verdict, events, prompts, code or changes.",
    "export": "Write a session to a portable tape file.",
    "prompts": "List, show, export or check the prompts.",
    "config": "Show each setting and where it comes from.",
    "doctor": "Say what works on this machine, and what to do about the rest.",
}
_SET_BY = ("run", "resume", "demo", "exec", "list", "show", "export", "replay", "doctor")


class Lazy(click.Group):
    """A group that loads a verb's module when the verb is called, and not for --help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Load one verb."""
        if name not in VERBS:
            return None
        found: click.Command = import_module(f"codetape.cli.{name}_verb").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs from the table: nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="codetape")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Turn a prompt into a verified Python script, and keep the whole run on a tape.

    A session is named by its id, a unique prefix of it, or "last". Exit codes: 0 done, 1 could not work,
    2 usage, 100 not solved, 101 budget, 102 divergence, 103 inconclusive, 104 a person's answer is needed,
    130 interrupted.
    """
    if ctx.invoked_subcommand in _SET_BY:
        ctx.default_map = _defaults()


def _defaults() -> dict[str, dict[str, Any]]:
    """Return what variables and files set, as defaults of each verb's options; flags still come first."""
    from codetape.settings import read_settings

    found = read_settings(os.environ, Path.cwd())
    names = {"python": "python_version"}
    values = {
        names.get(s.name, s.name.replace("-", "_")): tuple(s.value) if isinstance(s.value, list) else s.value
        for s in found.values()
        if s.source != "default"
    }
    return dict.fromkeys(_SET_BY, values)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit with its code. No traceback reaches a user without --debug."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json, debug = "--json" in arguments, "--debug" in arguments
    plain = [a for a in arguments if a != "--debug"]
    try:
        code = cli.main(plain, prog_name="codetape", standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.UsageError as error:
        code = _say("UsageError", _usage(error), "", 2, as_json)
    except click.Abort:
        code = _say("Interrupted", "interrupted.", "", 130, as_json)
    except CodetapeError as error:
        if debug:
            raise
        code = _say(type(error).__name__, error.message, error.remedy, error.exit_code, as_json)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone; there is nobody to tell
        code = 1
    except OSError as error:
        if debug:
            raise
        text = f"{error.filename or 'the output'} cannot be read or written: {error.strerror}."
        code = _say("OSError", text, "", 1, as_json)
    except Exception as error:
        if debug:
            raise
        text = f"an error of codetape's own: {type(error).__name__}: {error}"
        code = _say(type(error).__name__, text, "Please report it, with the output of --debug.", 1, as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.UsageError) -> str:
    verb = error.ctx.command_path if error.ctx else "codetape"
    return f"{error.format_message()} `{verb} --help` says more."


def _say(kind: str, message: str, remedy: str, code: int, as_json: bool) -> int:
    from codetape.cli.text import safe

    if as_json:
        body: dict[str, Any] = {"type": kind, "message": message, "remedy": remedy, "exit_code": code}
        click.echo(json.dumps({"error": body}, ensure_ascii=False))
    else:
        click.echo(safe(f"codetape: {message} {remedy}".strip()), err=True)
    return code
