"""Ask the user whether a recorded environment may have what it wants beyond the usual."""

import sys

import click

from codetape.cli.output import say
from codetape.rules.build_approval import Approve
from codetape.text.escape import safe


def approving(*, allowed: bool) -> bool | Approve:
    """Return what decides: the option's word, the person at the terminal, or nobody."""
    if allowed or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return allowed
    answers: dict[tuple[str, ...], bool] = {}

    def ask(wanted: tuple[str, ...]) -> bool:
        if wanted not in answers:
            say("The recorded environment asks for:", err=True)
            for text in wanted:
                say(f"  {safe(text)}", err=True)
            answers[wanted] = click.confirm("May it have that on this machine?", default=False, err=True)
        return answers[wanted]

    return ask
