"""Which sessions of a list are selected: by state, model, task, tag, age and number."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from codetape.errors import UsageError
from codetape.ports import SessionRow

CHECK_TAG = "check:"
"""What the label of a check's attempts begins with; its id follows."""
STATES = ("succeeded", "failed", "suspended", "active")
_SINCE = re.compile(r"(\d{1,5})([mhdw])")
_UNIT = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LIMIT = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True)
class Filter:
    """Which sessions are selected. Strings are globs, one or several; every condition that is set must hold.

    ``status`` is succeeded, failed, suspended or active; ``failing`` is the same as failed. ``since`` is a date, a time
    in UTC, or an age such as 7d, 12h. ``limit`` is a number, or a range counted from 1, newest first. Forks are left
    out unless asked for: a corpus holds sessions run from the start, not what a person made of them. ``checks`` takes
    attempts of checks too, where forks are taken; without it those stay whose check is named by its label.
    """

    status: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: str = ""
    failing: bool = False
    limit: str | int = ""
    forks: bool = False
    checks: bool = True

    def __post_init__(self) -> None:
        for name in ("status", "model", "task", "tags"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        object.__setattr__(self, "limit", str(self.limit or ""))

    @property
    def one_by_one(self) -> bool:
        """Whether sessions are named, or may be forks: whoever chose them may have known how they ended."""
        return self.forks or any(not set(glob) & set("*?[") for glob in self.task)

    @property
    def by_outcome(self) -> bool:
        """Whether sessions are chosen for how they ended: such outcomes do not predict those of a second attempt."""
        return bool(self.status) or self.failing

    def checked(self, now: datetime) -> "Filter":
        """Return the filter with its age turned into a time. Raises UsageError for a bad filter."""
        if wrong := sorted({*self.status} - {*STATES}):
            raise UsageError(f"There is no status {wrong[0]!r}.", remedy=f"Known are: {', '.join(STATES)}.")
        self.bounds()
        return replace(self, since=_since(self.since, now))

    def bounds(self) -> tuple[int, int | None]:
        """Return the first session and the one after the last, counted from 0. Raises UsageError."""
        if not self.limit:
            return 0, None
        match = _LIMIT.fullmatch(str(self.limit))
        first, last = (
            (1, int(match[1])) if match and not match[2] else (int(match[1]), int(match[2])) if match else (0, 0)
        )
        if not 1 <= first <= last:
            raise UsageError(
                f"The limit {self.limit!r} is no number of sessions.", remedy="Give 20, or a range such as 10-20."
            )
        return first - 1, last

    def takes(self, row: SessionRow) -> bool:
        """Whether a row of the session list is selected; the limit is not applied."""
        return self._takes(row) and not self._is_left_out(row)

    def left_out_attempts(self, rows: Iterable[SessionRow]) -> int:
        """Return how many attempts of checks would be selected if they were not left out."""
        return sum(self._is_left_out(row) and self._takes(row) for row in rows)

    def _is_left_out(self, row: SessionRow) -> bool:
        named = any(glob.startswith(CHECK_TAG) for glob in self.tags)
        return not self.checks and not named and bool(check_of(row))

    def _takes(self, row: SessionRow) -> bool:
        return (
            self._takes_state(row["state"])
            and _any(self.model, str(row["model"]))
            and _any(self.task, str(row["task"]))
            and all(any(fnmatchcase(tag, glob) for tag in str(row["tags"]).split(",") if tag) for glob in self.tags)
            and str(row["started_at"]) >= self.since
            and (self.forks or not row["parent"])
        )

    def _takes_state(self, state: str) -> bool:
        if not (self.status or self.failing):
            return True
        status = state if state in ("succeeded", "failed", "suspended") else "active"
        return status in self.status or (self.failing and status == "failed")

    def chosen(self, rows: Iterable[SessionRow]) -> Iterator[SessionRow]:
        """Yield the sessions that are selected, in the order given."""
        first, last = self.bounds()
        for number, row in enumerate(row for row in rows if self.takes(row)):
            if last is not None and number >= last:
                return
            if number >= first:
                yield row


def check_of(row: SessionRow) -> str:
    """Return the id of the check that a session is an attempt of; empty for any other."""
    tags = row["tags"]
    if CHECK_TAG not in tags:
        return ""
    return next((tag[len(CHECK_TAG) :] for tag in tags.split(",") if tag.startswith(CHECK_TAG)), "")


def _any(globs: tuple[str, ...], text: str) -> bool:
    return not globs or any(fnmatchcase(text, glob) for glob in globs)


def _since(text: str, now: datetime) -> str:
    if not text:
        return ""
    if match := _SINCE.fullmatch(text):
        with suppress(OverflowError):
            return _iso(now - timedelta(**{_UNIT[match[2]]: int(match[1])}))
        return ""  # an age from before the calendar begins selects everything
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r}, since which sessions are selected, is no time.",
            remedy="Give a date such as 2026-11-01, or an age such as 7d or 12h.",
        ) from None
    try:
        return _iso(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except OverflowError:
        raise UsageError(f"{text!r}, since which sessions are selected, is no time that there is.") from None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
