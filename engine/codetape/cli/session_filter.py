"""The options that choose sessions, the same for every verb, and the corpus that they stand for."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from codetape.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def filters(model: str = "--model", limit: str | None = None, *, sources: bool = True) -> Callable[[F], F]:
    """Add the filters, and the argument that names sessions, files and folders.

    ``model`` is what the filter by model is called, where the verb has another --model; ``limit`` its default limit.
    """

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
                click.option(model, "of_model", multiple=True, metavar="GLOB", help="Only sessions with such a model."),
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
                    help="Only so many, newest first, or a range.",
                ),
            )
        ):
            function = option(function)
        if sources:
            function = click.option("--forks", is_flag=True, help="Forks as well.")(function)
            function = click.argument("sources", nargs=-1, metavar="[SESSION|FILE|FOLDER]...")(function)
        return function

    return add


def filter_of(given: dict[str, Any], *, forks: bool = False) -> Any:
    """Return the `Filter` that the options stand for. Raises UsageError."""
    from codetape.evals.corpus import Filter

    return Filter(
        status=given["status"],
        model=given["of_model"],
        task=given["of_task"],
        tags=given["of_tag"],
        since=given["since"],
        failing=given["failing"],
        limit=given["limit"],
        forks=forks or given.get("forks", False),
    ).checked(datetime.now(UTC))


def corpus_of(given: dict[str, Any]) -> Any:
    """Return the `Corpus` that the options and the argument stand for. Raises UsageError."""
    from codetape.cli.options import open_store
    from codetape.evals.corpus import Corpus
    from codetape.playback.tape_file import is_tape

    sources = given["sources"]
    wanted = not sources or not all(is_tape(s) or _is_folder(s) for s in sources)
    return Corpus(open_store(given["db"]) if wanted else None, sources, filter_of(given))


def names_of(given: dict[str, Any]) -> list[str]:
    """Return the names of the sessions and files that are meant. Raises UsageError where nothing is asked for."""
    import asyncio

    corpus = corpus_of(given)
    if not corpus.sources and corpus.filter == type(corpus.filter)():
        raise UsageError("Name sessions, files or folders, or give a filter such as --status or --since.")
    names: list[str] = asyncio.run(corpus.names())
    if not names:
        raise none_found(given)
    return names


def _is_folder(name: str) -> bool:
    from pathlib import Path

    return Path(name).is_dir()


def none_found(given: dict[str, Any]) -> UsageError:
    """Return the error of a corpus that holds no session."""
    where = f"{', '.join(given['sources'])}" if given["sources"] else given["db"]
    return UsageError(
        f"No session of {where} is meant by these filters.", remedy="`codetape list` shows what there is."
    )
