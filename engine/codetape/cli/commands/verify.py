"""codetape verify."""

import re
from typing import Any

import click

from codetape.cli.options import as_json, database, jobs, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import UsageError


class VerifyOptions(FilterOptions):
    """The options."""

    anchor: str | None
    everything: bool
    head: str
    jobs: int
    rebuild: bool

    @property
    def chosen(self) -> bool:
        """Whether sessions are named, or chosen by a filter."""
        filters = (
            self.status,
            self.failing,
            self.of_model,
            self.of_task,
            self.of_tag,
            self.since,
            self.limit,
            self.forks,
        )
        return bool(self.sources or any(filters))


@click.command("verify")
@filters()
@click.option(
    "--anchor", metavar="FILE", help="A file of head hashes, a line a session: checked, then brought up to date."
)
@click.option("--all", "everything", is_flag=True, help="Every session of the database, and the file itself.")
@click.option(
    "--head", default="", metavar="HASH", help="The last event's hash, or its first 12 digits, as kept elsewhere."
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="With --all: first make lists, calls and sums, which are kept beside the log, again.",
)
@jobs
@database
@as_json
@typed(VerifyOptions)
def command(options: VerifyOptions) -> int:
    """Check every hash, the chain, the texts, the machine's legality, and derive the decisions again.

    Edits, deletions, insertions and changes of order are named; so is an event that was forged in a chain hashed again,
    unless what it rests on was forged with it. A tail that was cut off is found with --head or --anchor. Sound: exit 0;
    damaged or changed: exit 1; decisions that do not follow: exit 102; decided by other versions, so that these cannot
    tell: 103.
    """
    from codetape.api.keeping import verify

    if options.everything == options.chosen or (options.everything and (options.sources or options.head)):
        raise UsageError("Name sessions or files, or give --all; --head goes with one of them.")
    if options.rebuild and not options.everything:
        raise UsageError("--rebuild is for a whole database.", remedy="Give --all with it.")
    if options.head and not re.fullmatch(r"[0-9a-f]{12,64}", options.head):
        raise UsageError(f"{options.head[:80]!r} is no hash.", remedy="Give at least 12 of its hexadecimal digits.")
    verification = verify(
        *options.sources,
        store=options.db,
        where=options.where,
        everything=options.everything,
        head=options.head,
        head_hashes=options.anchor or "",
        jobs=options.jobs,
        rebuild=options.rebuild,
    )
    if options.as_json:
        anchor = {"known": verification.known, "kept": verification.kept} if options.anchor else None
        say_json({"verified": verification.verified, "problems": verification.problems, "anchor": anchor})
    else:
        for problem in verification.problems:
            say(problem, err=True)
        for record in verification.verified:
            _say(record)
        if len(verification.verified) > 1:
            _count(verification.verified)
        if options.anchor:
            known = verification.known
            heads = f"{known} heads were there to check against, {verification.kept - known} are new"
            say(
                f"{options.anchor}: {heads}"
                if verification.unbroken
                else f"{options.anchor}: {heads}; it was left as it is",
                err=not verification.unbroken,
            )
    if verification.corrupt:
        return 1
    return 0 if verification.sound else 103 if verification.unbroken else 102


def _count(records: list[dict[str, Any]]) -> None:
    """Print how many sessions are sound, and how many are not."""
    sound = sum(bool(record["sound"]) and record.get("judgement") != "not settled" for record in records)
    open_ = sum(record.get("judgement") == "not settled" for record in records)
    parts = [f"{sound:,} sound", *([f"{open_:,} not settled"] if open_ else [])]
    bad = len(records) - sound - open_
    say(f"{len(records):,} sessions: {', '.join([*parts, f'{bad:,} not sound'])}", err=bool(bad))


def _say(record: dict[str, Any]) -> None:
    if record.get("judgement") == "not settled":
        first = record["drift"][0]
        say(
            f"{record['name']}: not settled: {len(record['drift'])} of {record['derived']} were derived by other "
            f"versions than these, and otherwise; the first at {first['seq']}: {first['message']}",
            err=True,
        )
        return
    if record["sound"]:
        how = f"{record['derived']} derived again" if record["content"] else "no content: decisions were not derived"
        say(f"{record['name']}: sound, {record['events']} events, {how}, head {record['head']}")
        return
    say(f"{record['name']}: not sound", err=True)
    for finding in record["findings"][:20]:
        say(f"  {finding['what']}: {finding['message']}", err=True)
    if len(record["findings"]) > 20:
        say(f"  and {len(record['findings']) - 20} more; --json lists them all", err=True)
