"""codetape replay."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from codetape.cli.options import allow_build, as_json, database, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import CodetapeError, Divergence, UsageError


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(FilterOptions):
    """The options."""

    sandbox: Literal["recorded", "live"]
    pin: bool
    prompts: str
    rules: Literal["recorded", "current"]
    allow_build: bool


@click.command("replay")
@filters()
@click.option(
    "--sandbox",
    default="recorded",
    show_default=True,
    type=click.Choice(["recorded", "live"]),
    help="live: build and execute everything again as well, and compare.",
)
@click.option("--pin", is_flag=True, help="With --sandbox live: install exactly the recorded versions.")
@click.option(
    "--prompts",
    default="recorded",
    show_default=True,
    metavar="recorded|current|DIR",
    help="The prompt pack to render with.",
)
@click.option(
    "--rules",
    default="recorded",
    show_default=True,
    type=click.Choice(["recorded", "current"]),
    help="current: what only these versions decide differently is a divergence, and not drift.",
)
@allow_build
@database
@as_json
@typed(ReplayOptions)
def command(options: ReplayOptions) -> int:
    """Run sessions or tape files again from what is recorded: no key, no sandbox, no network.

    Every request and decision is derived again and compared. Identical: exit 0, and the head hash is printed.
    The first that differs: exit 102, with its seq, the layer, both values, and why.
    """
    from codetape.api.opening import corpus

    if options.pin and options.sandbox != "live":
        raise UsageError("--pin goes with --sandbox live.")
    names = asyncio.run(corpus(options.sources, options.db, options.where).chosen_names())
    found = [_named(name, options, alone=len(names) == 1) for name in names]
    if options.as_json:
        say_json({"replays": found})
    else:
        for one in found:
            _say(one)
    if any("error" in one for one in found):
        return 1
    return 0 if all(one["identical"] for one in found) else 102


def _named(name: str, options: ReplayOptions, *, alone: bool) -> dict[str, Any]:
    """Replay one; of several, one that cannot be read keeps the others from nothing."""
    try:
        return _one(name, options)
    except CodetapeError as error:
        if alone:
            raise
        return {"name": name, "identical": False, "error": str(error)}


def _one(name: str, options: ReplayOptions) -> dict[str, Any]:
    from codetape.api.opening import open_tape
    from codetape.api.recordings import replay

    tape = open_tape(name, store=options.db)
    try:
        done = replay(tape, prompts=options.prompts, rules=options.rules)
    except Divergence as error:
        return {"name": name, "identical": False, "seq": error.seq, "layer": error.layer, "message": error.message}
    found = {"name": name, "identical": True, "events": len(tape.events), "derived": done.derived, "head": tape.head}
    found["drift"] = [vars(drift) for drift in done.drift]
    if options.sandbox == "live":
        found["executed"] = executed = asyncio.run(_again(name, tape.stream, options))
        found["identical"] = not any(one["differences"] for one in executed)
    return found


async def _again(name: str, stream: Any, options: ReplayOptions) -> list[dict[str, Any]]:
    from codetape.playback.reexecute import rerun
    from codetape.runtime import plugins

    folder = Path(name).parent if Path(name).is_file() else None
    again = rerun(stream, plugins.sandbox("auto"), pin=options.pin, folder=folder, allow_build=options.allow_build)
    return [vars(one) async for one in again]


def _say(one: dict[str, Any]) -> None:
    if "error" in one:
        say(f"{one['name']}: {one['error']}", err=True)
        return
    if "layer" in one:
        say(f"{one['name']}: diverges at seq {one['seq']}, layer {one['layer']}\n{one['message']}", err=True)
        return
    how = "follows its tape, with drift" if one["drift"] else "identical"
    how = how if one["identical"] else "identical as recorded, but not when executed again"
    say(
        f"{one['name']}: {how}, {one['events']} events, {one['derived']} derived, head {one['head']}",
        err=not one["identical"],
    )
    for drift in one["drift"]:
        say(f"  drift at seq {drift['seq']}, layer {drift['layer']}: {drift['message']}")
    for done in one.get("executed", []):
        _say_executed(done)


def _say_executed(done: dict[str, Any]) -> None:
    what = f"  {done['purpose']} at seq {done['seq']}"
    if not done["label"]:
        say(f"{what}: the same when executed again")
        return
    for difference in done["differences"]:
        say(f"{what}: {done['label']}: {difference}", err=True)
    if done["texts"]:
        say(f"{what}: {done['label']}, in wording alone: {', '.join(done['texts'])}")
