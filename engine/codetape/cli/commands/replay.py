"""codetape replay."""

from functools import partial
from typing import Any, Literal

import click

from codetape.cli.options import allow_build, as_json, database, jobs, typed
from codetape.cli.output import say, say_json
from codetape.cli.session_filter import FilterOptions, filters
from codetape.errors import CodetapeError, Divergence, UsageError


class ReplayOptions(FilterOptions):
    """The options."""

    sandbox: Literal["recorded", "live"]
    pin: bool
    prompts: str
    rules: Literal["recorded", "current"]
    allow_build: bool
    jobs: int


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
@jobs
@database
@as_json
@typed(ReplayOptions)
def command(options: ReplayOptions) -> int:
    """Run sessions or tape files again from what is recorded: no key, no sandbox, no network.

    Every request and decision is derived again and compared. Identical: exit 0, and the head hash is printed. The first
    that differs: exit 102, with its seq, the layer, both values, and why.
    """
    import asyncio

    from codetape.api.opening import corpus
    from codetape.playback.many_processes import in_order

    if options.pin and options.sandbox != "live":
        raise UsageError("--pin goes with --sandbox live.")
    names = asyncio.run(corpus(options.sources, options.db, options.where).chosen_names())
    work = partial(_replay_all, options, alone=len(names) == 1)
    one = options.sandbox == "live"  # its executions take all CPUs by themselves, and it may ask
    records = list(in_order(work, names, 1 if one else options.jobs))
    if options.as_json:
        say_json({"replays": records})
    else:
        for record in records:
            _say(record)
    if any("error" in record for record in records):
        return 1
    return 0 if all(record["identical"] for record in records) else 102


def _replay_all(options: ReplayOptions, names: list[str], *, alone: bool) -> list[dict[str, Any]]:
    return [_replay_or_error(name, options, alone=alone) for name in names]


def _replay_or_error(name: str, options: ReplayOptions, *, alone: bool) -> dict[str, Any]:
    """Replay one session; with several, one that cannot be read does not stop the others."""
    try:
        return _replay(name, options)
    except CodetapeError as error:
        if alone:
            raise
        return {"name": name, "identical": False, "error": str(error)}


def _replay(name: str, options: ReplayOptions) -> dict[str, Any]:
    import asyncio

    from codetape.api.opening import open_tape
    from codetape.api.recordings import replay
    from codetape.playback.tape_names import is_tape
    from codetape.runtime import plugins

    tape = open_tape(name, store=options.db if is_tape(name) else plugins.store_for_reading(options.db))
    try:
        replayed = replay(tape, prompts=options.prompts, rules=options.rules)
    except Divergence as error:
        return {"name": name, "identical": False, "seq": error.seq, "layer": error.layer, "message": error.message}
    record = {
        "name": name,
        "identical": True,
        "events": len(tape.events),
        "derived": replayed.derived,
        "unfinished": replayed.unfinished,
        "head": tape.head,
    }
    record["drift"] = [vars(drift) for drift in replayed.drift]
    if options.sandbox == "live":
        record["executed"] = executed = asyncio.run(_execute_again(name, tape.stream, options))
        record["identical"] = not any(row["differences"] for row in executed)
    return record


async def _execute_again(name: str, stream: Any, options: ReplayOptions) -> list[dict[str, Any]]:
    from codetape.api.opening import sample_folders
    from codetape.cli.approval import approving
    from codetape.playback.reexecute import rerun
    from codetape.runtime import plugins

    allowed = approving(allowed=options.allow_build)
    with sample_folders(name, options.db) as folders:
        rows = rerun(stream, plugins.sandbox("auto"), pin=options.pin, folders=folders, allow_build=allowed)
        return [vars(row) async for row in rows]


def _say(record: dict[str, Any]) -> None:
    if "error" in record:
        say(f"{record['name']}: {record['error']}", err=True)
        return
    if "layer" in record:
        say(
            f"{record['name']}: diverges at seq {record['seq']}, layer {record['layer']}\n{record['message']}", err=True
        )
        return
    how = "follows its tape, with drift" if record["drift"] else "identical"
    if record["unfinished"]:
        how += " as far as it goes: it is unfinished"
    how = how if record["identical"] else "identical as recorded, but not when executed again"
    say(
        f"{record['name']}: {how}, {record['events']} events, {record['derived']} derived, head {record['head']}",
        err=not record["identical"],
    )
    for drift in record["drift"]:
        say(f"  drift at seq {drift['seq']}, layer {drift['layer']}: {drift['message']}")
    for execution in record.get("executed", []):
        _say_executed(execution)


def _say_executed(execution: dict[str, Any]) -> None:
    place = f"  {execution['purpose']} at seq {execution['seq']}"
    if not execution["label"]:
        say(f"{place}: the same when executed again")
        return
    for difference in execution["differences"]:
        say(f"{place}: {execution['label']}: {difference}", err=True)
    if execution["texts"]:
        say(f"{place}: {execution['label']}, in wording alone: {', '.join(execution['texts'])}")
