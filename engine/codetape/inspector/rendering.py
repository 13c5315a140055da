"""Pages as HTML: templates in which every value is text, but for markup that this package made itself."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

import minijinja

from codetape.text.escape import first_line, shown

ASSETS = {"inspector.css": "text/css; charset=utf-8", "inspector.js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True)
class Links:
    """Where pages lie below ``base``. In a file that stands alone ``base`` is empty: it links to nothing outside."""

    base: str = ""

    def page(self, name: str, **query: str) -> str:
        """Return the address of a page; empty in a file."""
        asked = urlencode([(key, value) for key, value in query.items() if value])
        return f"{self.base}/{name}{'?' if asked else ''}{asked}" if self.base else ""

    def session(self, session: str, seq: object = "") -> str:
        """Return the address of a session, or of one of its events."""
        place = f"{self.base}/session/{quote(session, safe='')}" if self.base else ""
        return f"{place}#event-{seq}" if place and seq != "" else place

    def check(self, check: str) -> str:
        """Return the address of a check."""
        return f"{self.base}/check/{quote(check, safe='')}" if self.base else ""


def render(template: str, links: Links, **values: Any) -> str:
    """Return a page. Values are shown as text: markup is escaped, and control characters are spelled out."""
    return _environment().render_template(template, links=links, assets=_inline, **values)


@cache
def asset(name: str) -> str:
    """Return the text of a style sheet or script."""
    return files("codetape.inspector").joinpath("assets").joinpath(name).read_text("utf-8")


def policy(live: bool) -> str:
    """Return the Content-Security-Policy of pages: live ones ask their own server, a file runs its own two parts alone."""
    if live:
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
            "form-action 'self'; frame-ancestors 'none'"
        )
    hashes = {name: base64.b64encode(hashlib.sha256(asset(name).encode()).digest()).decode() for name in ASSETS}
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['inspector.js']}'; "
        f"style-src 'sha256-{hashes['inspector.css']}'; base-uri 'none'; form-action 'none'"
    )


def _inline(name: str) -> object:
    return minijinja.Markup(asset(name))


@cache
def _environment() -> minijinja.Environment:
    folder = files("codetape.inspector").joinpath("templates")
    return minijinja.Environment(
        templates={file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".html")},
        filters={"line": first_line, "thousands": _thousands, "seconds": _seconds, "moment": _moment},
        globals={"policy": policy},
        auto_escape_callback=lambda _name: True,
        finalizer=_spelled_out,
        undefined_behavior="strict",
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _spelled_out(value: Any) -> Any:
    return shown(value) if type(value) is str else value


def _thousands(value: int) -> str:
    return f"{value:,}"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"


def _moment(at: str) -> str:
    """Return a time to the second: 2026-11-27T10:00:00.123Z as 2026-11-27 10:00:00."""
    return at[:19].replace("T", " ")


def markup(text: str) -> Any:
    """Return a text as markup, which is not escaped: for what this package made of escaped parts."""
    return minijinja.Markup(text)
