"""codetape verify."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from codetape import heads
from codetape.cli.filters import filters, names_of
from codetape.cli.options import as_json, database, open_store
from codetape.cli.text import say, say_json
from codetape.errors import CodetapeError, CorruptTape, UsageError


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
    from codetape.verify import CORRUPT

    chosen = any(given.values())
    sessions = names_of({**given, "db": db}) if chosen and not everything else []
    if everything == chosen or (everything and given["sources"]) or (head and len(sessions) != 1):
        raise UsageError("Name sessions or files, or give --all; --head goes with one of them.")
    if head and not re.fullmatch(r"[0-9a-f]{12,64}", head):
        raise UsageError(f"{head[:80]!r} is no hash.", remedy="Give at least 12 of its hexadecimal digits.")
    place = _Place(db)
    store = place.store if everything else None
    problems = store.unsound() if store else []
    alone = len(sessions) == 1
    kept = dict(heads.read(anchor)) if anchor else {}
    known = len(kept)
    names = store.stored_sessions() if store else sessions
    found = [_named(name, place, head, kept, alone=alone, stored=everything) for name in names]
    if anchor:
        problems += heads.absent(kept, {one["session"] for one in found}) if everything else []
        sound = not problems and all(one["sound"] for one in found)
        if sound:
            heads.write(anchor, kept)
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


class _Place:
    """A database that is opened, and whose list is read, once for a command, and where something asks for it."""

    def __init__(self, db: str) -> None:
        self._db = db

    @cached_property
    def store(self) -> Any:
        """The store."""
        return open_store(self._db)

    @cached_property
    def listed(self) -> dict[str, dict[str, Any]]:
        """The lines of its list, by session."""
        return {row["session"]: row for row in self.store.sessions()[0]}


def _named(
    name: str, place: _Place, head: str, kept: dict[str, tuple[int, str]], *, alone: bool, stored: bool
) -> dict[str, Any]:
    """Verify one; a name that stands for nothing is said, and keeps the others from nothing."""
    try:
        return _one(name, place, head, kept, stored=stored)
    except CodetapeError as error:
        if isinstance(error, UsageError) and alone:
            raise
        finding = {"seq": None, "what": "name", "message": str(error)}
        return {"name": name, "session": "", "sound": False, "events": 0, "findings": [finding]}


def _one(name: str, place: _Place, head: str, kept: dict[str, tuple[int, str]], *, stored: bool) -> dict[str, Any]:
    from codetape import tape
    from codetape.verify import Finding, verify

    problems: list[str] = []
    content = True
    listed: dict[str, Any] | None = None
    if not stored and (Path(name).is_file() or name == "demo" or name.endswith(".jsonl")):
        try:
            with tape.opened(name) as file:
                lines = tape.parse(tape.lines_of(file, name), name=name)
        except CorruptTape as error:
            form = Finding(error.seq, "form", str(error))
            return {"name": name, "session": "", "sound": False, "events": 0, "findings": [vars(form)]}
        rows, texts = [row for _, row in lines.rows], lines.by_hash
        problems, content = tape.misplaced(lines), lines.content
    else:
        session = name if stored else place.store.find(name)
        saved = place.store.salvage(session)
        rows, texts, problems = saved.rows, saved.texts, saved.problems
        listed = place.listed.get(session, {})
    done = verify(rows, texts, head=head, content=content)
    anchored = heads.of_chain(kept, [(row.session, row.seq, row.hash) for row in rows])
    findings = [*(Finding(None, "unreadable", text) for text in problems), *done.findings]
    findings += [Finding(seq, "head", text) for seq, text in anchored]
    if listed is not None and done.sound and done.run is not None and (lies := _lies(listed, done.run)):
        findings.append(Finding(None, "list", f"What `codetape list` says of {done.session} is not so: {lies}."))
    if not findings:  # what comes next in the same command is held to it
        kept[done.session] = done.events - 1, done.head
    return {
        "name": name,
        "session": done.session,
        "content": done.content,
        "sound": not findings,
        "events": done.events,
        "derived": done.derived,
        "head": done.head,
        "findings": [vars(finding) for finding in findings],
        "drift": [vars(drift) for drift in done.drift],
    }


def _lies(listed: dict[str, Any], run: Any) -> str:
    """Return what the table of sessions says otherwise than the events."""
    if not listed or listed["state"] == "unreadable":
        return "it is not listed"
    own = {
        "state": run.state,
        "model": run.the_config.model,
        "task": run.the_task.id,
        "iteration": run.ledger.iteration,
        "input_tokens": run.usage.total_input - run.inherited.total_input,
        "output_tokens": run.usage.total_output - run.inherited.total_output,
        "head": run.head,
    }
    if run.parent and listed["state"] == "forked":
        del own["state"], own["iteration"]
    if run.parent:
        own.pop("iteration", None)
    return ", ".join(f"{name} {listed[name]} for {value}" for name, value in own.items() if listed[name] != value)


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
