"""Small charts as SVG: bars, columns over days, an interval. Sizes are attributes, for pages forbid inline styles."""

from collections.abc import Sequence
from html import escape
from typing import Any

from codetape.inspector.rendering import markup
from codetape.text.escape import shown


def bar(value: float, most: float, *, tone: str = "") -> Any:
    """Return one bar, as wide as its share of ``most``."""
    width = round(100 * min(1.0, value / most), 2) if most > 0 else 0
    return markup(
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="{escape(tone) or "plain"}" width="{width}" height="8"/></svg>'
    )


def columns(points: Sequence[tuple[str, float, str]], *, tone: str = "plain", label: str) -> Any:
    """Return a column a point: its name, its value, and the words that pointing at it shows."""
    most = max((value for _, value, _ in points), default=0) or 1
    step = max(4.0, min(24.0, 480 / max(1, len(points))))
    parts = []
    for number, (name, value, words) in enumerate(points):
        height = round(56 * value / most, 1) if value else 0
        visible = max(height, 1.0)
        parts.append(
            f"<g><title>{_text(name)}: {_text(words)}</title>"
            f'<rect class="hit" x="{number * step:.1f}" y="0" width="{step:.1f}" height="60"/>'
            f'<rect class="{escape(tone)}" x="{number * step + 1:.1f}" y="{60 - visible:.1f}" '
            f'width="{max(1.0, step - 2):.1f}" height="{visible:.1f}"/></g>'
        )
    width = max(60.0, step * len(points))
    return markup(
        f'<svg class="columns" viewBox="0 0 {width:.0f} 60" width="{width:.0f}" height="60" role="img" '
        f'aria-label="{_text(label)}">{"".join(parts)}</svg>'
    )


def interval(low: float, middle: float, high: float, margin: float) -> Any:
    """Return a difference of solve rates with its interval, between the losses and gains of ``margin``, from -1 to 1."""
    reach = min(1.0, max(abs(low), abs(high), margin) * 1.15)

    def x(value: float) -> float:
        return round(20 + 560 * (value + reach) / (2 * reach), 1)

    ticks = "".join(
        f'<line class="{name}" x1="{x(at)}" x2="{x(at)}" y1="8" y2="44"/>'
        f'<text x="{x(at)}" y="58" text-anchor="middle">{words}</text>'
        for at, name, words in (
            (-margin, "margin", f"{-margin:+.0%}"),
            (0.0, "zero", "0"),
            (margin, "margin", f"{margin:+.0%}"),
        )
    )
    return markup(
        f'<svg class="interval" viewBox="0 0 600 64" role="img" '
        f'aria-label="difference {middle:+.1%}, 95 % from {low:+.1%} to {high:+.1%}">'
        f'{ticks}<line class="range" x1="{x(low)}" x2="{x(high)}" y1="26" y2="26"/>'
        f'<line class="range" x1="{x(low)}" x2="{x(low)}" y1="19" y2="33"/>'
        f'<line class="range" x1="{x(high)}" x2="{x(high)}" y1="19" y2="33"/>'
        f'<circle class="point" cx="{x(middle)}" cy="26" r="6"/></svg>'
    )


def _text(words: str) -> str:
    return escape(shown(words))
