"""run --tasks: many tasks, their progress, and totals at the end."""

import asyncio
from typing import Any, Self

from codetape.api.studies import arun_tasks
from codetape.cli.output import say, say_json
from codetape.cli.progress import LiveLine
from codetape.domain.money import money
from codetape.evals.attempt import Attempt
from codetape.evals.task_series import Progress, Series
from codetape.runtime.agent import AutoCoderAgent


def run(
    agent: AutoCoderAgent,
    file: str,
    *,
    attempts: int,
    concurrent: int,
    tags: tuple[str, ...],
    in_batches: bool,
    as_json: bool,
) -> int:
    """Run a task file; print one line per attempt and the totals; return the exit code."""
    display = SeriesProgress(quiet=as_json)
    try:
        with display:
            series = asyncio.run(
                arun_tasks(
                    file,
                    agent,
                    attempts=attempts,
                    concurrent=concurrent,
                    series=",".join(tags),
                    tags=tags,
                    on_progress=display.progress,
                    in_batches=in_batches,
                    on_batch=display.line,
                )
            )
    except KeyboardInterrupt:
        say("Interrupted. The same command continues where it stopped.", err=True)
        return 130
    sums = series.progress
    if as_json:
        say_json(
            {
                "total": sums.total,
                "solved": sums.solved,
                "failed": sums.failed,
                "stopped": sums.stopped,
                "found": series.found,
                "tokens": sums.tokens,
                "attempts": series.records(),
            }
        )
    else:
        say(f"\n{line_of(sums)}" + (f"; {series.found} were there before" if series.found else ""))
        for attempt in series.attempts:
            if attempt.solved is None:
                say(f"  stopped     {attempt.task} ({attempt.session}): {attempt.reason}")
        if sums.stopped:
            say("  next        the same command resumes what was stopped")
    return exit_code(series)


def exit_code(made: Series) -> int:
    """Return 1 for an error, 101 for a budget, 104 for a question, 100 for an unsolved task, else 0."""
    reasons = {a.cause for a in made.attempts if a.solved is None}
    sums = made.progress
    if reasons - {"budget", "question"}:
        return 1
    if reasons:
        return 101 if "budget" in reasons else 104
    return 100 if sums.failed else 0


def line_of(progress: Progress) -> str:
    """Return the progress in one line."""
    spent = f", {money(progress.cost, progress.unpriced)}" if progress.cost else ""
    stopped = f", {progress.stopped} stopped" if progress.stopped else ""
    return (
        f"{progress.done} of {progress.total} done, {progress.left} left: {progress.solved} solved,"
        f" {progress.failed} not{stopped}; {progress.tokens:,} tokens{spent}"
    )


class SeriesProgress:
    """Shows the progress of a series: one line per attempt, and totals in a live line. A context manager."""

    def __init__(self, *, quiet: bool) -> None:
        self._display = LiveLine(self._status, quiet=quiet)
        self._text = "starting"

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        self._display.__exit__(*ended)

    def progress(self, progress: Progress, attempt: Attempt | None, arm: str = "") -> None:
        """Show the totals, and the attempt that ended, if any; ``arm`` says of which arm of a check it is."""
        self._text = line_of(progress)
        if attempt is None:
            return
        outcome = {True: "solved", False: "not solved", None: "stopped"}[attempt.solved]
        reason = f" ({attempt.reason})" if attempt.reason else ""
        self._display.line(
            f"{self._text}   {attempt.task} {f'{arm} ' if arm else ''}#{attempt.attempt}: {outcome}{reason}, {attempt.session}"
        )

    def line(self, words: str) -> None:
        """Show a line of its own."""
        self._display.line(words)

    def _status(self) -> Any:
        from rich.text import Text

        return Text(self._text, no_wrap=True, overflow="ellipsis")
