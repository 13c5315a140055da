"""Progress of a session: a live line with its state and what it waits for, and a line for each event."""

import sys
import time
from collections.abc import Callable
from contextvars import Token
from typing import Any, Self

from codetape.domain.purposes import PURPOSES, WAITING_FOR_JOBS
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import Requested
from codetape.eventlog.session_state import SessionState
from codetape.ports import RECEIVING
from codetape.reporting.event_text import describe
from codetape.text.escape import safe

WAITING = {**{row.name: row.waiting_for for row in PURPOSES}, **WAITING_FOR_JOBS}


class LiveLine:
    """Lines on standard error and, in a terminal, one live line below them. A context manager."""

    def __init__(self, render: Callable[[], Any], *, quiet: bool) -> None:
        self.quiet = quiet
        self._render = render
        self._live: Any = None
        self._console: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._console = Console(stderr=True, highlight=False)
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    @property
    def live(self) -> bool:
        """Whether there is a live line."""
        return self._live is not None

    def line(self, text: str) -> None:
        """Print a line above the live one; nothing if quiet."""
        if self.quiet:
            return
        if self._console:
            self._console.print(safe(text), markup=False, soft_wrap=True)
        else:
            sys.stderr.write(safe(text) + "\n")


class SessionProgress:
    """Shows the progress of one session: an event hook, and a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._display = LiveLine(self._status, quiet=quiet)
        self._started_at = time.monotonic()
        self._waiting = "the start"
        self._session: SessionState | None = None
        self._received = 0
        self._watched: Token[Callable[[int], object]] | None = None

    def __enter__(self) -> Self:
        self._watched = RECEIVING.set(self._receive)
        self._display.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        self._display.__exit__(*ended)
        if self._watched is not None:
            RECEIVING.reset(self._watched)

    def _receive(self, count: int) -> None:
        self._received = count

    def __call__(self, event: Event, session: SessionState) -> None:
        """Show one event."""
        self._session = session
        if isinstance(event.payload, Requested):
            self._waiting, self._received = WAITING.get(event.payload.purpose, event.payload.purpose), 0
            if not self._display.live:  # nothing else would say what is waited for
                self._display.line(
                    f"{time.monotonic() - self._started_at:6.1f} s  {session.state}: waiting for {self._waiting}"
                )
        if line := describe(event, session):
            self._display.line(f"{time.monotonic() - self._started_at:6.1f} s  {line}")

    def _status(self) -> Any:
        from rich.spinner import Spinner
        from rich.text import Text

        session, seconds = self._session, time.monotonic() - self._started_at
        if session is None or session.config is None:
            return Spinner("dots", text=" starting")
        tokens = session.usage.total_input + session.usage.total_output
        position = f" {session.state}, run {session.ledger.iteration + 1} of at most {session.config.max_iterations}"
        coming = f", {self._received:,} bytes of its reply are there" if self._received else ""
        waiting = f"{position}: waiting for {self._waiting}{coming}"
        words = f"{waiting}   {tokens:,} tokens, {seconds:.0f} s"
        return Spinner("dots", text=Text(words, no_wrap=True, overflow="ellipsis"))  # one line, however narrow
