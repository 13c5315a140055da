"""The state of a session: `Run`. `codetape.fold` makes it of events, and nothing else does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from codetape.domain.canonical import FrozenModel, canonical
from codetape.domain.findings import Checkpoint, Finding, FixCounts, Quarantined, Question
from codetape.domain.reply_shapes import CodePlan, ErrorDiagnosis, Fix, Opinion, Proposal
from codetape.domain.report import Environment, Report
from codetape.domain.task import Config, Task
from codetape.domain.usage import Usage
from codetape.errors import CorruptTape
from codetape.eventlog.events import CallClosed, Versions

Count = Annotated[int, Field(ge=0, le=1_000_000)]


class Counters(FrozenModel):
    """The plain part of a run: what is owed, counters, names. Decisions hold its new values as they are."""

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


BOOKKEEPING = frozenset({"executed", "tried", "best"})
"""Fields of ledger and work that remember what was run: versions of the rules keep them each in their own way."""


class Artifacts(FrozenModel):
    """What the run has made so far. Decisions hold each change as a blob: text raw, the rest as JSON."""

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


@dataclass(frozen=True)
class OpenCall:
    """A call whose outcome is not in the log."""

    call: str
    effect: str
    purpose: str
    fingerprint: str
    input_estimate: int


@dataclass(frozen=True)
class PendingOutcome:
    """A closed call that no decision has been taken on yet, with the texts that it brought."""

    purpose: str
    event: CallClosed
    text: str | None = None
    message: str = ""
    report: Report | None = None


@dataclass(frozen=True)
class Spending:
    """What a session's own calls came to: time in all, money in picodollars, and answers without a price, or reused."""

    ms: int = 0
    cost: int = 0
    unpriced: int = 0
    reused: int = 0
    reused_tokens: int = 0


@dataclass(frozen=True)
class SessionState:
    """A session's state. `ledger` and `work` change by decisions; the rest by what happened outside."""

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
        """Return this run with some fields changed: `dataclasses.replace`, at a tenth of its time, once or more an
        event."""
        if not changes.keys() <= SessionState.__dataclass_fields__.keys():
            raise TypeError(f"a run has no {', '.join(changes.keys() - SessionState.__dataclass_fields__.keys())}")
        new = object.__new__(SessionState)
        new.__dict__.update(self.__dict__, **changes)
        return new

    def __repr__(self) -> str:
        """Say which run and where: `asyncio.run` makes the repr of every result, and a run holds all its texts."""
        return f"Run({self.session!r}, seq {self.seq}, {self.state})"

    @property
    def rules(self) -> int:
        """The version of the rules that decide here: the recorded one."""
        return self.versions.rules if self.versions else 0

    @property
    def the_task(self) -> Task:
        """The task, of a run that has started."""
        if self.task is None:
            raise CorruptTape("the session has no SessionStarted.", seq=0)
        return self.task

    @property
    def the_config(self) -> Config:
        """The configuration, of a run that has started."""
        if self.config is None:
            raise CorruptTape("the session has no SessionStarted.", seq=0)
        return self.config


@cache
def field_adapter(model: type[FrozenModel], name: str) -> TypeAdapter[Any]:
    """Return the validator of one field of Ledger or Work."""
    return TypeAdapter(model.model_fields[name].rebuild_annotation())


def artifact_text(name: str, value: Any) -> str:
    """Return the blob text of a `Work` field: a str as it is, everything else as canonical JSON."""
    if isinstance(value, str):
        return value
    return canonical(field_adapter(Artifacts, name).dump_python(value, mode="json"))
