"""The state of a session. `codetape.eventlog.fold` makes it of events, and nothing else does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from codetape.domain.canonical import canonical_without_floats
from codetape.domain.findings import Checkpoint, Confirmation, Finding, FixCounts, Quarantined, Question, Strength
from codetape.domain.frozen_model import FrozenModel
from codetape.domain.reply_shapes import CodePlan, ErrorDiagnosis, Fix, Opinion, Proposal
from codetape.domain.report import Environment, Report
from codetape.domain.task import Config, Task
from codetape.domain.usage import Usage
from codetape.errors import CorruptTape
from codetape.eventlog import machine
from codetape.eventlog.events import CallClosed, Versions

MAX_COUNT = 1_000_000
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]


class Counters(FrozenModel):
    """The plain part of a state: what is pending, counters, names. Decisions hold its new values as they are."""

    owed: tuple[str, ...] = ()
    iteration: Count = 0
    code_asks: Count = 0
    fix_asks: Count = 0
    chain: Count = 0
    replacements: Count = 0
    repairs: Count = 0
    trimmed: bool = False
    schemaless: bool = False
    formless: bool = False
    dropped_parameters: tuple[str, ...] = ()
    output_cap: Count = 0
    window: Count = 0
    lowered: Count = 0
    forms: tuple[str, ...] = ()
    fresh: bool = False
    rewritten: bool = False
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    from_plan: bool = False
    cured: bool = True
    replacing: str = ""
    executed: str = ""
    tried: tuple[str, ...] = ()
    doubted: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    evaluated: str = ""
    confirmed: str = ""
    differing: tuple[str, ...] = ()
    proven: bool = False
    strengthened: Count = 0
    adding: bool = False


BOOKKEEPING = frozenset({"executed", "tried", "best", "samples"})
"""Fields of Counters and Artifacts that record past executions; each version of the rules keeps them in its own way."""


class Artifacts(FrozenModel):
    """What the session has made so far. Decisions hold each change as a blob: a text raw, the rest as JSON."""

    plan: CodePlan | None = None
    code: str = ""
    tests: str = ""
    report: Report | None = None
    findings: tuple[Finding, ...] = ()
    diagnosis: ErrorDiagnosis | None = None
    fixes: tuple[Fix, ...] = ()
    missing: tuple[Fix, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    attempts: tuple[FixCounts, ...] = ()
    notes: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    best: Checkpoint | None = None
    quarantined: tuple[Quarantined, ...] = ()
    vacuous: tuple[str, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    environment: Environment | None = None
    question: Question | None = None
    bad_reply: str = ""
    repair: str = ""
    confirmation: Confirmation | None = None
    strength: Strength | None = None
    oracle_confirmation: Confirmation | None = None


@dataclass(frozen=True)
class OpenCall:
    """A call whose outcome is not in the log. ``batch`` is the key of the batch that it waits in, ``batch_id`` the
    provider's name of that, where it is known."""

    call: str
    effect: str
    purpose: str
    fingerprint: str
    input_estimate: int
    batch: str = ""
    batch_id: str = ""


@dataclass(frozen=True)
class PendingOutcome:
    """A closed call that waits for a decision, with the texts of its outcome."""

    purpose: str
    event: CallClosed
    text: str | None = None
    message: str = ""
    report: Report | None = None


@dataclass(frozen=True)
class Spending:
    """What a session's own calls came to: time, money in picodollars, answers without a price, answers reused."""

    ms: int = 0
    cost: int = 0
    unpriced: int = 0
    reused: int = 0
    reused_tokens: int = 0


@dataclass(frozen=True)
class SessionState:
    """A session's state. Decisions change `ledger` (counters) and `work` (artifacts); other events change the rest."""

    session: str = ""
    seq: int = 0
    head: str = "0" * 64
    state: str = "new"
    task: Task | None = None
    config: Config | None = None
    pack: Mapping[str, str] = field(default_factory=dict)
    versions: Versions | None = None
    started_at: str = ""
    ended_at: str = ""
    anchors: str | None = None
    anchor_count: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    ledger: Counters = Counters()
    work: Artifacts = Artifacts()
    call: OpenCall | None = None
    outcome: PendingOutcome | None = None
    noted: int = 0
    answers: tuple[tuple[str, str], ...] = ()
    resumes_to: str = ""
    cause: str = ""
    reason: str = ""
    confidence: str = ""
    usage: Usage = Usage()
    usage_estimated: bool = False
    calls: int = 0
    parent: str = ""
    forked_at: int = 0
    inherited: Usage = Usage()
    inherited_calls: int = 0
    spent: Spending = Spending()
    forgotten: bool = False

    def evolve(self, **changes: Any) -> "SessionState":
        """Return this state with some fields changed.

        The same as `dataclasses.replace` in a tenth of its time: every event calls it, some more than once.
        """
        if not changes.keys() <= _FIELDS:
            raise TypeError(f"a run has no {', '.join(changes.keys() - _FIELDS)}")
        new = object.__new__(SessionState)
        new.__dict__.update(self.__dict__, **changes)
        return new

    def __repr__(self) -> str:
        """Name only session and state: `asyncio.run` makes the repr of every result, and this holds all blobs."""
        return f"Run({self.session!r}, seq {self.seq}, {self.state})"

    @property
    def rules(self) -> int:
        """The recorded version of the rules, which decides here."""
        return self.versions.rules if self.versions else 0

    @property
    def machine(self) -> int:
        """The version of the machine that moves here: the recorded one, the present one where none is recorded."""
        return self.versions.machine if self.versions else machine.VERSION

    @property
    def the_task(self) -> Task:
        """The task of a session that has started."""
        if self.task is None:
            raise CorruptTape("the session has no SessionStarted.", seq=0)
        return self.task

    @property
    def the_config(self) -> Config:
        """The configuration of a session that has started."""
        if self.config is None:
            raise CorruptTape("the session has no SessionStarted.", seq=0)
        return self.config


_FIELDS = SessionState.__dataclass_fields__.keys()


@cache
def field_adapter(model: type[FrozenModel], name: str) -> TypeAdapter[Any]:
    """Return the validator of one field of Counters or Artifacts."""
    return TypeAdapter(model.model_fields[name].rebuild_annotation())


def artifact_text(name: str, value: Any) -> str:
    """Return the blob text of an `Artifacts` field: a str as it is, everything else as canonical JSON."""
    if isinstance(value, str):
        return value
    return canonical_without_floats(field_adapter(Artifacts, name).dump_python(value, mode="json"))
