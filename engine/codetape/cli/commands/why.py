"""codetape why."""

from dataclasses import asdict

import click

from codetape.cli.options import as_json, at_event, database
from codetape.cli.output import say, say_json


@click.command("why")
@click.argument("named", metavar="SESSION[:SEQ]")
@database
@as_json
def command(named: str, db: str, as_json: bool) -> int:
    """Say why a call was made: the causal chain back to the prompt, and where each part of its prompt is from, in
    tokens."""
    from codetape import api

    name, seq = at_event(named)
    explanation = api.why(name, seq, store=db)
    if as_json:
        say_json(asdict(explanation))
        return 0
    for number, link in enumerate(explanation.chain):
        say(f"{'' if not number else '  because '}event {link.seq}: {link.words}")
    if explanation.parts:
        total = sum(part.tokens for part in explanation.parts)
        say(f"\nits prompt, about {total:,} tokens:")
        for part in explanation.parts:
            say(
                f"  {part.tokens:7,}  {part.tokens / total if total else 0:4.0%}  {part.role:<9} "
                f"{part.heading[:60]:<60}  {part.origin}"
            )
    return 0
