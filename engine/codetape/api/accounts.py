"""What became of sessions, and why: causes and audits."""

from typing import TYPE_CHECKING

from codetape.api.opening import StoreLike, open_tape
from codetape.ports import DEFAULT_STORE
from codetape.reporting import why as causes

if TYPE_CHECKING:
    from codetape.reporting.audit import Audit


def why(named: str, seq: int | None = None, *, store: StoreLike = DEFAULT_STORE) -> causes.Why:
    """Return why an event happened, back to the prompt; by default of the last event."""
    stream = open_tape(named, store=store).stream
    return causes.why(stream, len(stream.events) - 1 if seq is None else seq)


def audit(named: str, *, store: StoreLike = DEFAULT_STORE) -> "Audit":
    """Account for a session in one report."""
    from codetape.reporting import audit as audits  # derives decisions again, which the cause of an event needs not

    return audits.audit(open_tape(named, store=store).stream)
