"""codetape prompts."""

import json

import click

from codetape.cli.options import as_json, database
from codetape.cli.output import say, say_json
from codetape.errors import TemplateError, UsageError
from codetape.text.escape import first_line


@click.group("prompts")
def command() -> None:
    """List, show, export or check the prompts: a pack is a folder with one template a purpose."""


@command.command("list")
@click.option("--prompts", metavar="DIR", help="A pack; the one that ships by default.")
@as_json
def list_files(prompts: str | None, as_json: bool) -> int:
    """List a pack's files."""
    from codetape.prompts.pack import pack_hash
    from codetape.runtime.prompt_pack_files import load_pack

    pack = load_pack(prompts)
    if as_json:
        say_json({"hash": pack_hash(pack), "files": {name: len(text) for name, text in sorted(pack.items())}})
        return 0
    for name, text in sorted(pack.items()):
        say(f"{name:<32} {len(text):>6} characters  {first_line(text, 60)}")
    say(f"pack {pack_hash(pack)[:12]}")
    return 0


@command.command("show")
@click.argument("purpose")
@click.option("--prompts", metavar="DIR", help="A pack; the one that ships by default.")
def show(purpose: str, prompts: str | None) -> int:
    """Show one template, and its reply's schema, if it has one."""
    from codetape.runtime.prompt_pack_files import load_pack

    pack = load_pack(prompts)
    if f"{purpose}.md" not in pack:
        purposes = ", ".join(sorted(n.removesuffix(".md") for n in pack if n.endswith(".md")))
        raise UsageError(f"The pack has no template {purpose}.", remedy=f"It has: {purposes}.")
    say(pack[f"{purpose}.md"].rstrip())
    if schema := pack.get(f"schemas/{purpose}.json"):
        say(f"\n--- the reply's schema\n{schema.rstrip()}")
    return 0


@command.command("export")
@click.argument("folder", metavar="DIR")
@click.option("--from", "session", metavar="SESSION", help="The pack that a session was recorded with.")
@database
def export(folder: str, session: str | None, db: str) -> int:
    """Write a pack's files into a new folder, to be changed and given to run --prompts."""
    from codetape.runtime.prompt_pack_files import load_pack

    pack = _recorded_pack(db, session) if session else load_pack()
    from pathlib import Path

    root = Path(folder)
    if root.exists() and any(root.iterdir()):
        raise UsageError(f"{folder} is not empty.", remedy="Name a new folder.")
    for name, text in pack.items():
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"The pack holds a file outside of its folder: {name!r}.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
    say(f"{folder}: {len(pack)} files")
    return 0


def _recorded_pack(db: str, session: str) -> dict[str, str]:
    from codetape.api.opening import open_session

    return dict(open_session(session, store=db).run.pack)


@command.command("lint")
@click.argument("folder", metavar="DIR")
@as_json
def lint(folder: str, as_json: bool) -> int:
    """Check a pack: render every template on recorded runs, and compare its schemas with what codetape reads.

    Names unknown variables, missing purposes and schemas that have drifted; exit 100 where there is any.
    """
    from codetape.playback import tape_file
    from codetape.playback.prompt_lint import lint_pack
    from codetape.prompts.reply_parser import SHAPES, schema_for
    from codetape.runtime.prompt_pack_files import load_pack

    try:
        pack = load_pack(folder)
        problems = [
            f"schemas/{p}.json differs from what codetape reads"
            for p in SHAPES
            if json.loads(pack[f"schemas/{p}.json"]) != schema_for(p)
        ]
        problems += lint_pack(pack, tape_file.load("demo").stream)
    except TemplateError as error:
        problems = [str(error)]
    if as_json:
        say_json({"pack": folder, "problems": problems})
    else:
        for problem in problems:
            say(problem, err=True)
        if not problems:
            say(f"{folder}: every template renders on the recorded runs")
    return 100 if problems else 0
