"""What one does with sessions that are recorded, from Python: open, replay, resume.

    import codetape

    tape = codetape.open_tape("replays/till.tape.jsonl")
    assert tape.result.iterations <= 3
    codetape.replay(tape)          # raises Divergence where anything is derived otherwise

A session is named by the path of a tape file, or by its id, a unique prefix of it, or ``last`` in a store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from codetape import registry, strict, tape
from codetape.agent import AutoCoderAgent, EventHook
from codetape.artefacts import Task
from codetape.chain import Event
from codetape.decide.remedies import EXAMPLE
from codetape.errors import UsageError
from codetape.fold import fold
from codetape.packs import load_pack
from codetape.ports import EventStore, Model, Sandbox, Stream
from codetape.result import GenerateResult, run_sync
from codetape.run import Run
from codetape.strict import Follow, Replayed

DEFAULT_STORE = ".codetape/tape.db"


@dataclass(frozen=True)
class RecordedSession:
    """A session as it is recorded: its events and texts, checked, and what they fold to."""

    session: str
    stream: Stream

    @property
    def events(self) -> tuple[Event, ...]:
        """The events in order."""
        return self.stream.events

    @property
    def texts(self) -> Mapping[str, str]:
        """The texts that the events refer to, by hash."""
        return self.stream.texts

    @cached_property
    def run(self) -> Run:
        """The state after the last event."""
        return fold(self.events, self.texts)

    @property
    def task(self) -> Task:
        """What was asked for."""
        return self.run.the_task

    @cached_property
    def result(self) -> GenerateResult:
        """The outcome, as `generate` gave it."""
        return GenerateResult.of(self.run, self.stream)

    @property
    def head(self) -> str:
        """The last event's hash: it covers everything before it."""
        return self.events[-1].hash


def open_tape(place: str | Path, *, store: str | Path | EventStore = DEFAULT_STORE) -> RecordedSession:
    """Read a tape file, or a session of a store. Hashes, chain and texts are checked.

    Raises UsageError where there is no such file, StoreError where there is no such session, CorruptTape for a bad one.
    """
    if not str(place):
        raise UsageError("No tape is named.", remedy="Give a file, or a session's id, or `last`.")
    if Path(place).is_file() or place == "demo":
        read = tape.load(str(place))
        return RecordedSession(read.session, read.stream)
    if isinstance(place, Path):
        raise UsageError(f"There is no tape {place}.")
    if str(place).endswith(".jsonl"):
        raise UsageError(f"There is no tape {place}.", remedy="A session is named by its id, or `last`.")
    opened = _opened(store)
    name = _found(opened, place)
    return RecordedSession(name, run_sync(opened.read(name)))


def replay(
    place: str | Path | RecordedSession,
    *,
    store: str | Path | EventStore = DEFAULT_STORE,
    prompts: str | Path = "recorded",
    rules: Follow = "recorded",
) -> Replayed:
    """Derive every request and decision of a recorded session anew, and compare. No key, sandbox or network.

    ``prompts`` is "recorded" for the pack on the tape, "current" for the one that ships, or a folder. ``rules`` says
    whether what only these versions derive otherwise is listed as drift ("recorded") or is a divergence ("current").
    Raises Divergence at the first event that differs, and what `open_tape` raises.
    """
    if rules not in ("recorded", "current"):
        raise UsageError(f"There are no rules {rules!r}.", remedy="Give recorded or current.")
    found = place if isinstance(place, RecordedSession) else open_tape(place, store=store)
    pack = None if prompts == "recorded" else load_pack(None if prompts == "current" else prompts)
    return strict.replay(found.stream, pack=pack, rules=rules)


def resume(
    session: str,
    *,
    store: str | Path | EventStore = DEFAULT_STORE,
    model: Model | None = None,
    sandbox: str | Sandbox = "auto",
    base_url: str | None = None,
    api_key_env: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    answers: Mapping[str, Literal["allow", "deny"]] | None = None,
    max_iterations: int | None = None,
    on_event: EventHook | None = None,
) -> GenerateResult:
    """Go on with a session from exactly where its log ends, under its own model and prompts; return the outcome.

    ``model`` is an object that stands for the recorded model, where its name alone does not make one. ``answers`` says
    of packages that were asked about whether they may be installed. Recorded answers are never asked for again.
    Raises UsageError for what would change nothing, or would be another session (a fork); LeaseHeld where another
    process drives it.
    """
    known = open_tape(session, store=store)
    given = tuple((answers or {}).items())
    check_resumable(known.run, dict(given), max_iterations)
    agent = AutoCoderAgent(
        model=model or known.run.the_config.model,
        base_url=base_url,
        api_key_env=api_key_env,
        model_options=model_options or {},
        sandbox=sandbox,
        store=store,
    )
    changes = {"max_iterations": max_iterations} if max_iterations else {}
    return run_sync(agent.aresume(known.session, answers=dict(given), changes=changes, on_event=on_event))


def check_resumable(run: Run, answers: Mapping[str, str], max_iterations: int | None) -> None:
    """Refuse what would do nothing: an answer to another question, a session that has ended for good. Raises UsageError."""
    name = run.session
    if wrong := sorted({*answers.values()} - {"allow", "deny"}):
        raise UsageError(f"{wrong[0]!r} is no answer.", remedy="Give allow or deny.")
    if run.state == "succeeded":
        raise UsageError(f"Session {name} has succeeded: there is nothing to resume.")
    asked = run.work.question.subject if run.work.question and run.state == "suspended" else ""
    if other := sorted(set(answers) - {asked}):
        about = f"It asks about {spoken(asked)}." if asked else "It asks about nothing."
        raise UsageError(f"Session {name} does not ask about {', '.join(map(spoken, other))}.", remedy=about)
    if run.state == "failed":
        ran = run.ledger.iteration
        if run.cause != "iterations":
            raise UsageError(f"Session {name} has failed: {run.reason}", remedy="Its end is final.")
        if (max_iterations or run.the_config.max_iterations) <= ran:
            raise UsageError(f"Session {name} has failed: {run.reason}", remedy=f"It goes on with --max-iterations above {ran}.")  # fmt: skip


def spoken(subject: str) -> str:
    """Return a question's subject as a person names it."""
    return subject.rpartition("::")[2] if subject.startswith(EXAMPLE) else subject


def _opened(store: str | Path | EventStore) -> EventStore:
    if not isinstance(store, str | Path):
        return store
    opened = registry.store(str(store))
    path = getattr(opened, "path", None)
    if isinstance(path, Path) and not path.exists():
        raise UsageError(f"There is no database at {store}.", remedy="`codetape run` makes one; --db names another.")
    return opened


def _found(store: EventStore, name: str) -> str:
    find = getattr(store, "find", None)
    return str(find(name)) if find else name


__all__ = ["RecordedSession", "check_resumable", "open_tape", "replay", "resume"]
