"""Replay and compare recorded sessions. Imports nothing of `studies`, so that a replay starts quickly."""

from pathlib import Path
from typing import TYPE_CHECKING

from codetape.api.opening import RecordedSession, StoreLike, open_tape
from codetape.errors import UsageError
from codetape.ports import DEFAULT_STORE
from codetape.runtime.prompt_pack_files import load_pack

if TYPE_CHECKING:
    from codetape.playback.diff import SessionDiff
    from codetape.playback.strict_replay import Follow, Replayed


def replay(
    place: str | Path | RecordedSession,
    *,
    store: StoreLike = DEFAULT_STORE,
    prompts: str | Path = "recorded",
    rules: "Follow" = "recorded",
) -> "Replayed":
    """Derive every request and decision of a recorded session again, and compare. Needs no key, sandbox or network.

    ``prompts`` is "recorded" for the pack on the tape, "current" for the one that ships, or a folder. ``rules`` says
    whether what only these versions derive differently is listed as drift ("recorded") or is a divergence ("current").
    Raises Divergence at the first event that differs, and what `open_tape` raises.
    """
    from codetape.playback import strict_replay

    if rules not in ("recorded", "current"):
        raise UsageError(f"There are no rules {rules!r}.", remedy="Give recorded or current.")
    recorded = place if isinstance(place, RecordedSession) else open_tape(place, store=store)
    pack = None if prompts == "recorded" else load_pack(None if prompts == "current" else prompts)
    return strict_replay.replay(recorded.stream, pack=pack, rules=rules)


def diff(a: str | Path, b: str | Path, *, store: StoreLike = DEFAULT_STORE) -> "SessionDiff":
    """Compare two sessions or tape files: where they diverge and why, and what differs after that."""
    from codetape.playback.diff import compare

    return compare(open_tape(a, store=store).stream, open_tape(b, store=store).stream)
