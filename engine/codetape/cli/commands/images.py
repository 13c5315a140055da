"""codetape images."""

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from codetape.cli.options import as_json, database
from codetape.cli.output import say, say_json
from codetape.errors import SandboxUnavailable, UsageError

if TYPE_CHECKING:
    from codetape.ports import Sandbox, StoredImage

_ENDED = ("succeeded", "failed")
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group("images")
def command() -> None:
    """The environments that sandboxes keep: what they hold, who needs them, and removing the rest."""


@command.command("list")
@database
@as_json
def list_(db: str, as_json: bool) -> int:
    """List the environments of both sandboxes, the last used first."""
    rows, problems = _all(db)
    for problem in problems:
        say(f"codetape: {problem}", err=True)
    if as_json:
        say_json({"images": rows, "problems": problems})
        return 0
    for row in rows:
        used = time.strftime("%Y-%m-%d", time.localtime(row["last_used"]))
        needed = f", needed by {len(row['needed_by'])}" if row["needed_by"] else ""
        say(
            f"{row['name']:<32} {row['sandbox']:<10} {row['size'] / 1e6:7.0f} MB  last used {used}{needed}  "
            f"{' '.join(row['packages'])[:60]}"
        )
    if not rows:
        say("No environments yet.")
    return 0


@command.command("show")
@click.argument("name")
@database
@as_json
def show(name: str, db: str, as_json: bool) -> int:
    """Show what an environment holds, and which sessions need it."""
    rows, _ = _all(db)
    matches = [row for row in rows if row["name"].startswith(name) or row["key"] == name]
    if not matches:
        raise UsageError(f"There is no image {name!r}.", remedy="`codetape images list` shows them.")
    if as_json:
        say_json({"images": matches})
        return 0
    for row in matches:
        say(
            f"{row['name']} ({row['sandbox']}, {row['size'] / 1e6:.0f} "
            f"MB{', on ' + row['base'] if row['base'] else ''})"
        )
        for package in row["packages"]:
            say(f"  {package}")
        for session in row["needed_by"]:
            say(f"  needed by session {session}")
    return 0


@command.command("prune")
@click.option(
    "--older-than", default="30d", show_default=True, metavar="AGE", help="Not used for so long: 12h, 30d, 4w."
)
@database
@as_json
def prune(older_than: str, db: str, as_json: bool) -> int:
    """Remove environments that were not used for long, and containers that a dead process left.

    What a session of the database needs that is suspended or under way is kept.
    """
    match = re.fullmatch(r"(\d{1,6})([mhdw])", older_than)
    if match is None:
        raise UsageError(f"{older_than!r} is no age.", remedy="Give a number with m, h, d or w, such as 30d.")
    limit = time.time() - int(match[1]) * _UNITS[match[2]]
    needed = _needed(db)
    removed: list[StoredImage] = []
    kept: list[StoredImage] = []
    for name, keeper, images, problem in _keepers():
        if problem:
            say(f"codetape: {name}: {problem}", err=True)
        # system layers last: a layer cannot be removed before the images built on it
        for image in sorted(images, key=lambda i: i.name.startswith("codetape-system")):
            if image.last_used > limit:
                continue
            (
                kept if needed.get(image.name) or keeper is None or not keeper.remove_image(image.key) else removed
            ).append(image)
    if as_json:
        say_json(
            {
                "removed": [i.name for i in removed],
                "kept": [i.name for i in kept],
                "bytes": sum(i.size for i in removed),
            }
        )
        return 0
    for image in removed:
        say(f"removed {image.name} ({image.sandbox})")
    for image in kept:
        say(
            f"kept    {image.name} ({image.sandbox}): "
            f"{'needed by ' + needed[image.name][0] if needed.get(image.name) else 'in use'}"
        )
    say(f"{len(removed)} removed, {sum(i.size for i in removed) / 1e6:,.0f} MB")
    return 0


def _keepers() -> "Iterator[tuple[str, Sandbox | None, list[StoredImage], str]]":
    """Yield each sandbox that needs no argument, with the images it keeps, or with why it is unavailable."""
    from codetape.runtime import plugins

    for name in sorted(plugins.available("sandboxes")):
        try:
            keeper = plugins.sandbox(name)
            yield name, keeper, keeper.images(), ""
        except SandboxUnavailable as error:
            yield name, None, [], str(error)
        except UsageError:  # it needs an argument, or its package does not load: `codetape doctor` reports that
            continue


def _needed(db: str) -> dict[str, list[str]]:
    """Return the sessions that may still need each image: those that have not ended."""
    from codetape.api.opening import opened

    return {
        image: names
        for image, sessions in opened(db, reading=False).images_needed().items()
        if (names := [session for session, state in sessions if state not in _ENDED])
    }


def _all(db: str) -> tuple[list[dict[str, Any]], list[str]]:
    needed, rows, problems = _needed(db), [], []
    for name, _, images, problem in _keepers():
        problems += [f"{name}: {problem}"] if problem else []
        rows += [{**vars(image), "needed_by": needed.get(image.name, [])} for image in images]
    rows.sort(key=lambda row: -row["last_used"])
    return rows, problems
