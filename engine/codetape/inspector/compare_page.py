"""The page of two sessions side by side, from where they diverge."""

from itertools import zip_longest
from typing import Any

from codetape.inspector.listings import side_by_side
from codetape.inspector.rendering import Links, render
from codetape.inspector.session_page import SessionView
from codetape.playback.diff import SessionDiff, ValueChange
from codetape.reporting.timeline import Visit
from codetape.reporting.verdict import verdict_of
from codetape.text.escape import first_line

_MESSAGE = "@ message "


def compare_page(comparison: SessionDiff, a: SessionView, b: SessionView, links: Links) -> str:
    """Return the page."""
    parting = comparison.parting
    return render(
        "compare.html",
        links,
        title=f"{comparison.a} and {comparison.b}",
        head=f"{a.result.head} {b.result.head}",
        parting=parting,
        sides=[_side(view, links) for view in (a, b)],
        steps=list(zip_longest(*(_after(v.timeline.visits, at) for v, at in _starts(comparison, a, b)))),
        tables=[
            (name, rows)
            for name, rows in (
                ("Configuration", comparison.config),
                ("Verdict", comparison.verdicts),
                ("Runs of the tests", comparison.runs),
                ("Tokens", [(n, f"{old:,}", f"{new:,}") for n, old, new in comparison.tokens]),
                ("Packages", [(name, where, "") for name, where in comparison.packages]),
            )
            if rows
        ],
        ends=[
            (name, side_by_side(text))
            for name, text in (("code", comparison.code), ("tests", comparison.tests))
            if text
        ],
        prompts=[_change(change) for change in comparison.prompts],
        replies=[_change(change) for change in comparison.answers],
    )


def _side(view: SessionView, links: Links) -> dict[str, Any]:
    result, verdict = view.result, verdict_of(view.result, view.timeline.state)
    return {
        "session": result.session,
        "link": links.session(result.session),
        "task": result.task,
        "asked": first_line(result.prompt, 140),
        "model": result.config.model,
        "verdict": verdict,
        "failing": [(failure.test, failure.details) for failure in verdict.failing[:3]],
    }


def _starts(comparison: SessionDiff, a: SessionView, b: SessionView) -> list[tuple[SessionView, int]]:
    parting = comparison.parting
    return [(a, parting.seq_a), (b, parting.seq_b)] if parting else []


def _after(visits: tuple[Visit, ...], seq: int) -> list[dict[str, Any]]:
    """Return what follows a point: each visit that ends after it, in a line."""
    return [
        {
            "words": visit.state.replace("_", " "),
            "first": visit.first,
            "told": [line.words for line in visit.lines if line.seq >= seq][:6],
        }
        for visit in visits
        if visit.last >= seq
    ][:60]


def _change(change: ValueChange) -> dict[str, Any]:
    """Return a difference as parts, each with a heading, side by side."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in change.diff.splitlines():
        if line.startswith(_MESSAGE):
            parts.append((line[2:], []))
        else:
            parts[-1][1].append(line)
    where = (("first", change.seq_a), ("second", change.seq_b))
    return {
        "where": change.where.replace("_", " "),
        "at": ", ".join(f"event {seq} of the {side}" for side, seq in where if seq is not None),
        "parts": [(heading, side_by_side("\n".join(lines))) for heading, lines in parts if lines],
    }
