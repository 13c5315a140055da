"""codetape verify."""

import re
from pathlib import Path
from typing import Any

import click

from codetape.cli.options import as_json, database, open_store
from codetape.cli.text import say, say_json
from codetape.errors import CorruptTape, UsageError


@click.command("verify")
@click.argument("sessions", nargs=-1, metavar="[SESSION|FILE]...")
@click.option("--all", "everything", is_flag=True, help="Every session of the database, and the file itself.")
@click.option(
    "--head", default="", metavar="HASH", help="The last event's hash, or its first 12 digits, as kept elsewhere."
)
@database
@as_json
def command(sessions: tuple[str, ...], everything: bool, head: str, db: str, as_json: bool) -> int:
    """Check every hash, the chain, the texts, the machine's legality, and derive the decisions again.

    Edits, deletions, insertions and changes of order are named; so is an event that was forged in a chain hashed anew,
    unless what it rests on was forged with it. A tail that was cut off is found with --head. Sound: exit 0; damaged
    or changed: exit 1; decisions that do not follow: exit 102.
    """
    from codetape.verify import CORRUPT

    if everything == bool(sessions) or (head and len(sessions) != 1):
        raise UsageError("Name sessions or files, or give --all; --head goes with one of them.")
    if head and not re.fullmatch(r"[0-9a-f]{12,64}", head):
        raise UsageError(f"{head[:80]!r} is no hash.", remedy="Give at least 12 of its hexadecimal digits.")
    store = open_store(db) if everything else None
    problems = store.unsound() if store else []
    found = [_one(name, db, head) for name in (store.stored_sessions() if store else sessions)]
    if as_json:
        say_json({"verified": found, "problems": problems})
    else:
        for problem in problems:
            say(problem, err=True)
        for one in found:
            _say(one)
    wrong = {finding["what"] for one in found for finding in one["findings"]}
    if problems or wrong & set(CORRUPT):
        return 1
    return 102 if wrong else 0


def _one(name: str, db: str, head: str) -> dict[str, Any]:
    from codetape import tape
    from codetape.verify import Finding, verify

    problems: list[str] = []
    if Path(name).is_file() or name == "demo":
        try:
            with tape.opened(name) as file:
                lines = tape.parse(tape.lines_of(file), name=name)
        except CorruptTape as error:
            form = Finding(error.seq, "form", error.message)
            return {"name": name, "session": "", "sound": False, "events": 0, "findings": [vars(form)]}
        rows, texts = [row for _, row in lines.rows], lines.by_hash
        problems = tape.misplaced(lines)
    else:
        store = open_store(db)
        saved = store.salvage(store.find(name) if name not in store.stored_sessions() else name)
        rows, texts, problems = saved.rows, saved.texts, saved.problems
    done = verify(rows, texts, head=head)
    findings = [*(Finding(None, "unreadable", text) for text in problems), *done.findings]
    return {
        "name": name,
        "session": done.session,
        "sound": not findings,
        "events": done.events,
        "derived": done.derived,
        "head": done.head,
        "findings": [vars(finding) for finding in findings],
        "drift": [vars(drift) for drift in done.drift],
    }


def _say(one: dict[str, Any]) -> None:
    if one["sound"]:
        drift = f", {len(one['drift'])} derived otherwise by these versions (drift)" if one["drift"] else ""
        say(f"{one['name']}: sound, {one['events']} events, {one['derived']} derived again{drift}, head {one['head']}")
        return
    say(f"{one['name']}: not sound", err=True)
    for finding in one["findings"][:20]:
        say(f"  {finding['what']}: {finding['message']}", err=True)
    if len(one["findings"]) > 20:
        say(f"  and {len(one['findings']) - 20} more; --json lists them all", err=True)
