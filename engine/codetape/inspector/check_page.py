"""The page of a check: the change itself, tasks by arms as cells, the verdict with its interval, and what it would take."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from codetape.evals.check import AttemptOutcome
from codetape.evals.judge import CheckReport
from codetape.evals.report_formats import facts
from codetape.evals.stored_check import StoredCheck
from codetape.inspector.charts import interval
from codetape.inspector.listings import diff_lines
from codetape.inspector.rendering import Links, render

MAX_TASKS = 500
_TONES = {"regression": "bad", "improvement": "good", "no regression": "good"}


def check_page(report: CheckReport, links: Links, *, stored: bool = False, head: str = "") -> str:
    """Return the page. ``stored`` says that the report was made of what a store has, and not by the check itself."""
    cells: dict[tuple[str, str], list[AttemptOutcome]] = defaultdict(list)
    for outcome in report.outcomes:
        cells[outcome.made.task, outcome.arm].append(outcome)
    drawn = None not in (report.low, report.difference, report.high)
    judged = not stored or report.control == "fresh"
    order = {"worse": 0, "better": 1, "unknown": 2, "same": 3}
    return render(
        "check.html",
        links,
        title=f"check {report.id}",
        head=head,
        report=report,
        judged=judged,
        tone=_TONES.get(report.verdict, "waiting") if judged else "waiting",
        facts=[(name, value) for name, value in facts(report) if not stored or name not in ("sessions", "calls")],
        chart=interval(report.low or 0.0, report.difference or 0.0, report.high or 0.0, report.margin) if drawn else "",
        needed=report.tasks_needed if report.verdict == "inconclusive" else None,
        stored=stored,
        changes=[(name, diff_lines(text)[:3000]) for name, text in report.prompt_changes],
        settings=[(name, value) for name, value in report.config.items()],
        arms=["control", "candidate"] if any(arm == "control" for _, arm in cells) else ["candidate"],
        tasks=[
            {
                "task": row.task,
                "graded": row.graded,
                "change": row.change,
                "control": [_cell(outcome, links) for outcome in cells[row.task, "control"]],
                "candidate": [_cell(outcome, links) for outcome in cells[row.task, "candidate"]],
            }
            for row in sorted(report.rows, key=lambda row: (order[row.change], row.task))[:MAX_TASKS]
        ],
        more=max(0, len(report.rows) - MAX_TASKS),
    )


def _cell(outcome: AttemptOutcome, links: Links) -> dict[str, Any]:
    attempt = outcome.made
    kind = "open" if attempt.solved is None else "yes" if attempt.solved else "no"
    words = f"{attempt.status}{f', {attempt.confidence}' if attempt.confidence else ''}"
    return {
        "kind": kind,
        "glyph": {"yes": "✓", "no": "✗", "open": "…"}[kind],
        "words": f"attempt {attempt.attempt}: {words}{f': {attempt.reason}' if attempt.reason else ''}",
        "link": links.session(attempt.session),
    }


def checks_page(checks: Sequence[StoredCheck], links: Links, *, place: str, head: str = "") -> str:
    """Return the page that lists checks."""
    return render(
        "checks.html",
        links,
        title="Checks",
        head=head,
        place=place,
        checks=[
            {
                "id": check.id,
                "link": links.check(check.id),
                "attempts": len(check.rows),
                "ended": check.ended,
                "solved": check.solved,
                "tasks": len({row["task"] for row in check.rows}),
                "at": max(row["updated_at"] for row in check.rows),
            }
            for check in checks
        ],
    )
