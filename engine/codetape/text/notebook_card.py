"""A value as a small piece of HTML for a notebook: a heading, facts, and a text; everything shown is text."""

from collections.abc import Iterable
from html import escape

from codetape.text.escape import shown

_TONES = {"good": "#1a7f37", "bad": "#b3261e", "waiting": "#8a5a00"}


def card(heading: str, tone: str, facts: Iterable[tuple[str, object]], code: str = "") -> str:
    """Return the HTML. ``tone`` is good, bad or waiting; ``code`` is shown below, folded."""
    rows = "".join(
        f'<tr><td style="text-align:left;opacity:.7;padding-right:1.2em">{_text(name)}</td>'
        f'<td style="text-align:left">{_text(value)}</td></tr>'
        for name, value in facts
    )
    folded = f"<details><summary>code</summary><pre>{_text(code)}</pre></details>" if code else ""
    colour = _TONES.get(tone, _TONES["waiting"])
    return (
        f'<div style="border-left:4px solid {colour};padding-left:.8em">'
        f'<strong style="color:{colour}">{_text(heading)}</strong><table>{rows}</table>{folded}</div>'
    )


def _text(value: object) -> str:
    return escape(shown(value))
