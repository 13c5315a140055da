"""codetape verify."""

import re
from dataclasses import dataclass
from typing import Any

import click

from codetape.cli.options import as_json, database, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(FilterOptions):
    """The options."""

    anchor: str | None
    everything: bool
    head: str

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
@database
@as_json
@typed(VerifyOptions)
def command(options: VerifyOptions) -> int:
    """Check every hash, the chain, the texts, the machine's legality, and derive the decisions again.

    Edits, deletions, insertions and changes of order are named; so is an event that was forged in a chain hashed again,
    unless what it rests on was forged with it. A tail that was cut off is found with --head or --anchor. Sound: exit 0;
    damaged
    or changed: exit 1; decisions that do not follow: exit 102; decided by other versions, so that these cannot tell:
    103.
    """
    from codetape.api.keeping import verify

    if options.everything == options.chosen or (options.everything and (options.sources or options.head)):
        raise UsageError("Name sessions or files, or give --all; --head goes with one of them.")
    if options.head and not re.fullmatch(r"[0-9a-f]{12,64}", options.head):
        raise UsageError(f"{options.head[:80]!r} is no hash.", remedy="Give at least 12 of its hexadecimal digits.")
    done = verify(
        *options.sources,
        store=options.db,
        where=options.where,
        everything=options.everything,
        head=options.head,
        head_hashes=options.anchor or "",
    )
    if options.as_json:
        anchor = {"known": done.known, "kept": done.kept} if options.anchor else None
        say_json({"verified": done.verified, "problems": done.problems, "anchor": anchor})
    else:
        for problem in done.problems:
            say(problem, err=True)
        for one in done.verified:
            _say(one)
        if options.anchor:
            new = f"{done.known} heads were there to check against, {done.kept - done.known} are new"
            say(
                f"{options.anchor}: {new}" if done.sound else f"{options.anchor}: {new}; it was left as it is",
                err=not done.sound,
            )
    if done.corrupt:
        return 1
    return 103 if done.sound and done.drifted else 0 if done.sound else 102


def _say(one: dict[str, Any]) -> None:
    if one["sound"]:
        if one["drift"]:
            first = one["drift"][0]
            say(
                f"{one['name']}: not settled: {len(one['drift'])} of {one['derived']} were derived by other versions "
                f"than these, and otherwise; the first at {first['seq']}: {first['message']}",
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
