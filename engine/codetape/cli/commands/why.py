"""codetape why."""

import shlex
from dataclasses import asdict

import click

from codetape.cli.options import as_json, at_event, database, database_words
from codetape.cli.output import say, say_json
from codetape.text.escape import first_line


@click.command("why")
@click.argument("named", metavar="SESSION[:SEQ]")
@database
@as_json
def command(named: str, db: str, as_json: bool) -> int:
    """Say why a session ended as it did, or why a call was made.

    Of a session: the failing test, its assertion and values, the last diagnosis, and the causes of its last call back to
    the prompt. With :SEQ of the call at that event: its causes, and where each part of its prompt is from, in tokens.
    """
    from codetape import api
    from codetape.reporting.verdict import verdict_of

    name, seq = at_event(named)
    recorded = api.open_tape(name, store=db)
    verdict = verdict_of(recorded.result, recorded.run) if seq is None else None
    explanation = api.why(name, seq, store=db)
    if as_json:
        result = recorded.result
        failing = [failure.model_dump() for failure in result.failing]
        diagnosis = [{"test": test, "root_cause": cause} for test, cause in result.diagnosis]
        about = {"verdict": verdict.sentence, "failing": failing, "diagnosis": diagnosis} if verdict else {}
        say_json({**asdict(explanation), **about})
        return 0
    if verdict is not None:
        say(verdict.sentence, tone=verdict.tone)
        for label, words in verdict.lines():
            say(f"  {label:<11} {words}")
    # the decision on a call tells of the call too
    decided = [link for link in explanation.chain[1:] if link.kind != "Requested"]
    links = [explanation.chain[0], *decided]
    if verdict is not None and verdict.failing:  # answered; what led to the last call is told where it is asked for
        more = shlex.join(["codetape", "why", f"{name}:{links[0].seq}", *database_words(db)])
        say(f"  {'next':<11} {more}")
        return 0
    for number, link in enumerate(links):
        say(f"{'' if not number else '  because '}event {link.seq}: {first_line(link.words, 300)}")
    if explanation.parts and seq is not None:
        total = sum(part.tokens for part in explanation.parts)
        say(f"\nits prompt, about {total:,} tokens:")
        for part in explanation.parts:
            say(
                f"  {part.tokens:7,}  {part.tokens / total if total else 0:4.0%}  {part.role:<9} "
                f"{part.heading[:60]:<60}  {part.origin}"
            )
    return 0
