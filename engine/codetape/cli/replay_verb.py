"""codetape replay."""

import asyncio
from pathlib import Path

import click

from codetape.cli.options import as_json, database, open_store
from codetape.cli.text import say, say_json
from codetape.errors import Divergence


@click.command("replay")
@click.argument("sessions", nargs=-1, required=True, metavar="SESSION|FILE...")
@database
@as_json
def command(sessions: tuple[str, ...], db: str, as_json: bool) -> int:
    """Run sessions or tape files again from what is recorded: no key, no sandbox, no network.

    Every request and decision is derived anew and compared. Identical: exit 0, and the head hash is printed.
    The first that differs: exit 102, with its seq, the layer and both values.
    """
    found = [_one(name, db) for name in sessions]
    if as_json:
        say_json({"replays": found})
    else:
        for one in found:
            if one["identical"]:
                say(f"{one['name']}: identical, {one['events']} events, {one['derived']} derived, head {one['head']}")
            else:
                say(f"{one['name']}: diverges at seq {one['seq']}, layer {one['layer']}\n{one['message']}", err=True)
    return 0 if all(one["identical"] for one in found) else 102


def _one(name: str, db: str) -> dict[str, object]:
    from codetape import tape
    from codetape.replay import replay

    if Path(name).is_file() or name == "demo":
        stream = tape.load(name).stream
    else:
        store = open_store(db)
        stream = asyncio.run(store.read(store.find(name)))
    try:
        done = replay(stream)
    except Divergence as error:
        return {"name": name, "identical": False, "seq": error.seq, "layer": error.layer, "message": error.message}
    head = stream.events[-1].hash
    return {"name": name, "identical": True, "events": len(stream.events), "derived": done.derived, "head": head}
