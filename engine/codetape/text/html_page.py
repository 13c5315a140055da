"""HTML pages: self-contained files in which recorded text is never markup."""

from collections.abc import Iterable, Sequence
from html import escape

from codetape.text.escape import shown

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#2a7f3f;--bad:#b3261e;--dim:#777}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--line);padding:.2rem .7rem;text-align:left;vertical-align:top}
td.n,th.n{text-align:right}
pre{overflow-x:auto;border:1px solid var(--line);padding:.6rem;white-space:pre-wrap;overflow-wrap:anywhere}
.good{color:var(--good)}.bad{color:var(--bad)}.dim{color:var(--dim)}
.bar{fill:#4a7dbd}.bar2{fill:#c58b3a}
details{margin:.3rem 0}summary{cursor:pointer}
"""


def html(value: object) -> str:
    """Return a value as text for HTML: no part of it is markup."""
    return escape(shown(value))


def page(title: str, body: str) -> str:
    """Return a whole page. ``body`` is markup, in which recorded text went through `html`."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/><title>{html(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>'
        f'<meta name="viewport" content="width=device-width"/><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def table(names: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()) -> str:
    """Return a table; the columns in ``numbers`` are set to the right."""
    right_aligned = {*numbers}

    def cell(kind: str, column: int, value: object) -> str:
        side = ' class="n"' if column in right_aligned else ""
        return f"<{kind}{side}>{html('' if value is None else value)}</{kind}>"

    head = "".join(cell("th", column, name) for column, name in enumerate(names))
    body = "".join("<tr>" + "".join(cell("td", i, v) for i, v in enumerate(row)) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def bars(rows: Sequence[tuple[str, Sequence[float]]], *, most: float | None = None, unit: str = "") -> str:
    """Return a bar chart as SVG: a label and one or two values a row."""
    top = most or max((value for _, values in rows for value in values), default=0) or 1
    height, lines = 9, []
    y = 4
    for label, values in rows:
        lines.append(f'<text x="0" y="{y + 10}" font-size="12" fill="currentColor">{html(label[:40])}</text>')
        for number, value in enumerate(values):
            width = round(420 * min(value, top) / top, 1)
            style = "bar2" if number else "bar"
            lines.append(f'<rect class="{style}" x="280" y="{y}" width="{width}" height="{height}"/>')
            text = f"{value:,.0%}" if unit == "%" else f"{value:,.0f}{unit}"
            lines.append(f'<text x="{286 + width}" y="{y + 9}" font-size="11" fill="currentColor">{html(text)}</text>')
            y += height + 2
        y += 6
    return f'<svg role="img" viewBox="0 0 800 {y + 4}" width="800" height="{y + 4}">{"".join(lines)}</svg>'
