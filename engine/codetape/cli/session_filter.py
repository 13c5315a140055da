"""The options that select sessions, the same for every command."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from codetape.cli.options import DatabaseOptions

if TYPE_CHECKING:
    from codetape.evals.chosen_sessions import Filter

F = TypeVar("F", bound=Callable[..., Any])


class FilterOptions(DatabaseOptions):
    """Options of `filters`."""

    status: tuple[str, ...]
    failing: bool
    of_model: tuple[str, ...]
    of_task: tuple[str, ...]
    of_tag: tuple[str, ...]
    since: str
    limit: str
    forks: bool = False
    sources: tuple[str, ...] = ()

    @property
    def where(self) -> "Filter":
        """The filter that the options describe. Raises UsageError if it is invalid."""
        from codetape.evals.chosen_sessions import Filter

        return Filter(
            status=self.status,
            model=self.of_model,
            task=self.of_task,
            tags=self.of_tag,
            since=self.since,
            failing=self.failing,
            limit=self.limit,
            forks=self.forks,
        )


def filters(limit: str | None = None, *, sources: bool = True) -> Callable[[F], F]:
    """Add the filters, and the argument for sessions, files and folders. ``limit`` is the default limit."""

    def add(function: F) -> F:
        for option in reversed(
            (
                click.option(
                    "--status",
                    multiple=True,
                    metavar="S",
                    help="Only sessions that are succeeded, failed, suspended or active.",
                ),
                click.option("--failing", is_flag=True, help="Only sessions that failed."),
                click.option("--of-model", multiple=True, metavar="GLOB", help="Only sessions with such a model."),
                click.option("--task", "of_task", multiple=True, metavar="GLOB", help="Only sessions of such a task."),
                click.option("--tag", "of_tag", multiple=True, metavar="GLOB", help="Only sessions with such a label."),
                click.option(
                    "--since", default="", metavar="WHEN", help="Only since a date, or an age such as 7d or 12h."
                ),
                click.option(
                    "--limit",
                    default=limit or "",
                    show_default=bool(limit),
                    metavar="N|N-M",
                    help="Only so many, the last added first, or a range.",
                ),
            )
        ):
            function = option(function)
        if sources:
            function = click.option("--forks", is_flag=True, help="Forks as well.")(function)
            function = click.argument("sources", nargs=-1, metavar="[SESSION|FILE|FOLDER]...")(function)
        return function

    return add
