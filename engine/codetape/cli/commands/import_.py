"""codetape import."""

import click

from codetape.cli.options import as_json, database
from codetape.cli.output import say, say_json


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="F.tape.jsonl...")
@database
@as_json
def command(files: tuple[str, ...], db: str, as_json: bool) -> int:
    """Add tape files to a database. What is there already stays; a bad file is refused, and then nothing is added.

    A tape may have at most 256 MB, and a line of it 16 MB. Where a session is there already, the longer of the two
    stands if one begins with the other; if they diverge, the tape is refused.
    """
    from codetape.api.keeping import import_tapes
    from codetape.text.plural import many

    records = import_tapes(*files, store=db)
    if not as_json:
        for record in records:
            how = f"{record['added']} of {record['events']} events added" if record["added"] else "there already"
            with_samples = f", with {many(len(record['samples']), 'sample')}" if record["samples"] else ""
            say(f"{record['file']}: session {record['session']}, {how}{with_samples}")
    if as_json:
        say_json({"imported": records})
    return 0
