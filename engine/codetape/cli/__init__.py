"""The command line: parse, wire, print. Each command is a module, loaded when it is called."""

from __future__ import annotations

import os
import sys

from codetape.errors import CodetapeError, UsageError

TYPE_CHECKING = False  # typing's own, as enumerations for signals, takes longer to load than printing the help
if TYPE_CHECKING:
    from typing import Any

COMMANDS = {
    "run": "Turn a prompt into a verified script.",
    "demo": "Watch the loop work on a recorded run: no key, no daemon.",
    "exec": "Run a session's verified script on inputs.",
    "resume": "Resume a session that was stopped or asked something.",
    "fork": "Continue from a point of a session with changes, as a session of its own.",
    "diff": "Compare two sessions: where they diverge and why, prompts, code, tests, tokens.",
    "whatif": "Say what a change of prompts, model or settings would do to recorded sessions.",
    "check": "Test a change of prompts, model or settings on recorded sessions.",
    "backtest": "Run recorded sessions again under the present rules, or under tighter limits.",
    "replay": "Run sessions or tapes again from what is recorded, and compare.",
    "spend": "Say what was spent, by model, purpose, state, task, disposition and more.",
    "why": "Say why a call was made, and what its prompt was made of.",
    "audit": "Account for a session in one report.",
    "verify": "Check that sessions or tapes are whole, unchanged, and follow from what was recorded.",
    "scan": "Look for keys in a database or in tapes, without printing them.",
    "forget": "Erase a session's content for good; hashes and figures stay.",
    "list": "List the sessions of a database.",
    "view": "Look at sessions in a browser, live while runs go on.",
    "show": "Show a session: its verdict, events, prompts, code or changes.",
    "export": "Write a session to a portable tape file.",
    "import": "Add tape files to a database.",
    "images": "List, show or remove the environments that sandboxes keep.",
    "prompts": "List, show, export or check the prompts.",
    "trust": "Let a folder's settings file decide on models, prompts, packages and prices.",
    "config": "Show each setting and where it comes from.",
    "doctor": "Say what works on this machine, and what to do about the rest.",
}
_HELP = """\
Usage: codetape [OPTIONS] COMMAND [ARGS]...

  Turn a prompt into a verified Python script, and keep the whole run on a tape.

  A session is named by its id, a unique prefix of it, or "last". Exit codes: 0 done, 1 could not work, 2 usage,
  100 not solved, 101 budget, 102 divergence, 103 inconclusive, 104 a person's answer is needed, 130 interrupted
  (143, 129 by SIGTERM, SIGHUP).

Options:
  --version   Show the version and exit.
  --debug     Show tracebacks.
  -h, --help  Show this message and exit.

Commands:
{commands}
"""


def help_text() -> str:
    """Return the overall help: one line per command."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {command:<{width}}{text}" for command, text in COMMANDS.items()]
    return _HELP.format(commands="\n".join(lines))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code. Users see a traceback only with --debug."""
    if arguments is None:
        _open_what_is_closed()
        arguments = sys.argv[1:]
    as_json, debug = "--json" in arguments, "--debug" in arguments
    words = [a for a in arguments if a != "--debug"]
    completing = "_CODETAPE_COMPLETE" in os.environ
    # before click is imported: that takes longer than printing this
    if words in (["--help"], ["-h"], []) and not completing:
        sys.stdout.write(help_text())
        sys.exit(0 if words else 2)
    import click

    from codetape.cli.group import cli

    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            # a terminal without the character gets its escape; JSON is UTF-8, whatever the locale
            stream.reconfigure(errors="backslashreplace", **({"encoding": "utf-8"} if as_json else {}))
    if sys.stdout is None:
        sys.exit(_say("OSError", "standard output is closed.", "", 1, as_json=False))
    stopped = _stop_on_signals()
    try:
        words = [_utf8(word) for word in words]
        code = cli.main(words, prog_name="codetape", standalone_mode=False)
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
        sys.stderr.close()  # the reader has gone; without this, flushing at exit would fail and print an error
        code = 1
    except OSError as error:
        if debug:
            raise
        message = f"{error.filename or 'the output'} cannot be read or written: {error.strerror}."
        code = _say("OSError", message, "", 1, as_json)
    except Exception as error:
        if debug:
            raise
        message = f"an error of codetape's own: {type(error).__name__}: {error}"
        code = _say(type(error).__name__, message, "Please report it, with the output of --debug.", 1, as_json)
    sys.exit(128 + stopped[0] if stopped and code == _INTERRUPTED else code if isinstance(code, int) else 0)


_INTERRUPTED = 130


def _open_what_is_closed() -> None:
    """Put the null device where a standard stream is closed, as daemons and cron have it.

    A file that is opened later would take its number, and be written into.
    """
    for number, name in ((0, "stdin"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which this one is
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _stop_on_signals() -> list[int]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does; return which of them came, when one has."""
    import signal

    came: list[int] = []

    def stop(number: int, _frame: object) -> None:
        came[:] = [number]
        # a script's background job ignores SIGINT: Ctrl-C is not for it, but this signal is
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # one that is ignored, as under nohup, stays so
            signal.signal(number, stop)
    return came


def _utf8(word: str) -> str:
    """Return an argument as the text that its bytes are in UTF-8. Raises UsageError for others, and for a NUL, which is
    in no file's name."""
    if "\0" in word:
        raise UsageError(f"An argument holds a NUL character: {word[:80]!r}.")
    try:
        return os.fsencode(word).decode() if any("\ud800" <= sign <= "\udfff" for sign in word) else word
    except UnicodeError:
        raise UsageError(f"An argument is not UTF-8: {word[:80]!r}.", remedy="Give its text in UTF-8.") from None


def _usage(error: Any) -> str:
    verb = error.ctx.command_path if error.ctx else "codetape"
    return f"{error.format_message()} `{verb} --help` says more."


def _say(kind: str, message: str, remedy: str, code: int, as_json: bool) -> int:
    import click

    from codetape.text import escape

    try:
        if as_json:
            body: dict[str, Any] = {"type": kind, "message": message, "remedy": remedy, "exit_code": code}
            click.echo(escape.json_text({"error": body}))
        else:
            click.echo(escape.safe(f"codetape: {message} {remedy}".strip()), err=True)
    except (OSError, ValueError, AttributeError):  # the output is closed: the exit code is all that is left to report
        return code
    return code
