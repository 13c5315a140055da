"""codetape verify."""

import re
from typing import Any

import click

from codetape.cli.options import as_json, database
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import filters, names_of
from codetape.errors import UsageError
from codetape.playback import head_file


@click.command("verify")
@filters()
@click.option(
    "--anchor", metavar="FILE", help="A file of head hashes, a line a session: checked, then brought up to date."
)
@click.option("--all", "everything", is_flag=True, help="Every session of the database, and the file itself.")
@click.option(
    "--head", default="", metavar="HASH", help="The last event's hash, or its first 12 digits, as kept elsewhere."
)
@database
@as_json
def command(everything: bool, head: str, anchor: str | None, db: str, as_json: bool, **given: Any) -> int:
    """Check every hash, the chain, the texts, the machine's legality, and derive the decisions again.

    Edits, deletions, insertions and changes of order are named; so is an event that was forged in a chain hashed anew,
    unless what it rests on was forged with it. A tail that was cut off is found with --head or --anchor. Sound: exit 0; damaged
    or changed: exit 1; decisions that do not follow: exit 102; decided by other versions, so that these cannot tell: 103.
    """
    from codetape.cli.verify_many import Place, everything_in, judged, named
    from codetape.playback.verify import CORRUPT

    chosen = any(given.values())
    sessions = names_of({**given, "db": db}) if chosen and not everything else []
    if everything == chosen or (everything and given["sources"]) or (head and len(sessions) != 1):
        raise UsageError("Name sessions or files, or give --all; --head goes with one of them.")
    if head and not re.fullmatch(r"[0-9a-f]{12,64}", head):
        raise UsageError(f"{head[:80]!r} is no hash.", remedy="Give at least 12 of its hexadecimal digits.")
    place = Place(db)
    store = place.store if everything else None
    problems = store.unsound() if store else []
    alone = len(sessions) == 1
    kept = dict(head_file.read(anchor)) if anchor else {}
    known = len(kept)
    if store:
        examined = everything_in(place, store.stored_sessions())
        found = [judged(name, one, place.listed.get(name, {}), kept) for name, one in examined]
    else:
        found = [named(name, place, head, kept, alone=alone) for name in sessions]
    if anchor:
        problems += head_file.absent(kept, {one["session"] for one in found}) if everything else []
        sound = not problems and all(one["sound"] for one in found)
        if sound:
            head_file.write(anchor, kept)
    if as_json:
        say_json(
            {"verified": found, "problems": problems, "anchor": {"known": known, "kept": len(kept)} if anchor else None}
        )
    else:
        for problem in problems:
            say(problem, err=True)
        for one in found:
            _say(one)
        if anchor:
            new = f"{known} heads were there to check against, {len(kept) - known} are new"
            say(f"{anchor}: {new}" if sound else f"{anchor}: {new}; it was left as it is", err=not sound)
    wrong = {finding["what"] for one in found for finding in one["findings"]}
    if problems or wrong & {*CORRUPT, "list", "name"}:
        return 1
    unsettled = any(one.get("drift") for one in found)
    return 102 if wrong else 103 if unsettled else 0


def _say(one: dict[str, Any]) -> None:
    if one["sound"]:
        if one["drift"]:
            first = one["drift"][0]
            say(
                f"{one['name']}: not settled: {len(one['drift'])} of {one['derived']} were derived by other versions than these, and otherwise; the first at {first['seq']}: {first['message']}",
                err=True,
            )
            return
        how = f"{one['derived']} derived again" if one["content"] else "no content: decisions were not derived"
        say(f"{one['name']}: sound, {one['events']} events, {how}, head {one['head']}")
        return
    say(f"{one['name']}: not sound", err=True)
    for finding in one["findings"][:20]:
        say(f"  {finding['what']}: {finding['message']}", err=True)
    if len(one["findings"]) > 20:
        say(f"  and {len(one['findings']) - 20} more; --json lists them all", err=True)
