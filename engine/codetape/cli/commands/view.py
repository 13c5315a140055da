"""codetape view."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import click

from codetape.cli.options import as_json, database, database_words, write_text
from codetape.cli.output import say, say_json
from codetape.errors import UsageError

if TYPE_CHECKING:
    from codetape.inspector.library import Library


@click.command("view")
@click.argument("sources", nargs=-1, metavar="[SESSION|FILE|FOLDER]...")
@click.option(
    "-o", "--export", "file", metavar="F.html", help="Write one page to a file that needs nothing else, and end."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to serve at; any free one by default.")
@click.option("--open/--no-open", "browse", default=None, help="Open a browser; at a terminal that is the default.")
@database
@as_json
def command(sources: tuple[str, ...], file: str | None, port: int, browse: bool | None, db: str, as_json: bool) -> int:
    """Look at sessions in a browser, live while runs go on: one, two side by side, or all of a database or of tapes.

    Pages are served to this machine alone, at an address with a secret in it, and change nothing. Ctrl-C ends it.
    """
    from codetape.inspector.library import library

    if file and not file.lower().endswith((".html", ".htm")):
        raise UsageError(f"{file} has not the extension .html.")
    with library(sources, db, database_words(db)) as found:
        named = found.only
        if file:
            write_text(file, _page(found))
            say_json({"file": file, "sessions": list(named)}) if as_json else say(f"{file}: written")
            return 0
        from codetape.inspector.server import listen

        start = f"session/{named[0]}" if len(named) == 1 else "sessions"
        start = f"compare?a={named[0]}&b={named[1]}" if len(named) == 2 else start
        server = listen(found, port, start)
        say_json({"url": server.address}) if as_json else say(f"{server.address}\nCtrl-C ends it.")
        sys.stdout.flush()
        browser = _browsed(server.address) if browse or (browse is None and sys.stdout.isatty()) else nullcontext()
        with browser, suppress(KeyboardInterrupt):
            server.serve()
    return 0


@contextmanager
def _browsed(address: str) -> Iterator[None]:
    """Open a browser by a private file that leads to the address: every user can read what a process was called with."""
    import webbrowser
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="codetape-view-") as folder:
        from pathlib import Path

        file = Path(folder) / "open.html"
        write_text(
            str(file), f'<!doctype html><title>codetape</title><meta http-equiv="refresh" content="0; url={address}">\n'
        )
        webbrowser.open(file.as_uri())
        yield


def _page(found: "Library") -> str:
    """Return the page that stands alone: of one session, of two compared, or a list."""
    from codetape.inspector.rendering import Links

    if len(found.only) == 1:
        return found.session(found.only[0], Links())
    if len(found.only) == 2:
        return found.compared(found.only[0], found.only[1], Links())
    return found.sessions(Links(), {})
