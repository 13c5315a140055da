"""A fake of each port: a few lines, deterministic, and held to the same contract suite as the real ones."""

from collections.abc import Callable, Iterable, Mapping

from codetape.domain.budget import Reservation, Spent, check
from codetape.domain.job import BuildSpec, Job
from codetape.domain.model_request import ModelRequest
from codetape.domain.money import pico
from codetape.domain.report import Report, TestResult
from codetape.domain.task import SandboxFacts
from codetape.domain.usage import Usage
from codetape.errors import LeaseHeld, ModelUnavailable, StaleLease, StoreError
from codetape.eventlog.envelope import GENESIS, Event
from codetape.eventlog.events import Answered, CallClosed, SessionForked, SessionStarted, maybe_billed
from codetape.eventlog.hash_chain import check_chain
from codetape.ports import BuildRejected, Built, Execution, Reply, RequestRefused, Stream
from codetape.rules.classify import expected_names

Answer = str | Reply | RequestRefused | Exception


class ScriptedModel:
    """Answers from a script: by purpose in order (the last one repeats), or by a function of the request."""

    def __init__(
        self, answers: Mapping[str, Iterable[Answer]] | Callable[[ModelRequest], Answer], *, name: str = "scripted"
    ) -> None:
        self.name = name
        self.requests: list[ModelRequest] = []
        self._function = answers if callable(answers) else None
        self._answers = {} if callable(answers) else {purpose: list(given) for purpose, given in answers.items()}

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Give the next answer; an Exception in the script is raised."""
        self.requests.append(request)
        answer = self._function(request) if self._function else self._next(request.purpose)
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, str):
            return answer
        usage = Usage(input=request.input_estimate, output=len(answer) // 4 + 1, source="estimated")
        return Reply(text=answer, model=self.name, usage=usage)

    def _next(self, purpose: str) -> Answer:
        left = self._answers.get(purpose)
        if not left:
            raise ModelUnavailable(f"The script has no answer for {purpose}.")
        return left.pop(0) if len(left) > 1 else left[0]


class FakeSandbox:
    """Runs nothing: a function says what came of a job. Without one every expected test passes, and fails vetting."""

    def __init__(
        self,
        execute: Callable[[Job], Report] | None = None,
        build: Callable[[BuildSpec], Built | BuildRejected] | None = None,
        *,
        facts: SandboxFacts | None = None,
    ) -> None:
        self._execute, self._build = execute or passing_report, build
        self._facts = facts or SandboxFacts(name="fake", python="3.11")
        self.jobs: list[Job] = []
        self.specs: list[BuildSpec] = []

    def facts(self) -> SandboxFacts:
        """Say what this sandbox is."""
        return self._facts

    async def build(self, spec: BuildSpec) -> Built | BuildRejected:
        """Have the function decide; without one every build succeeds."""
        self.specs.append(spec)
        lock = "".join(f"{name}==1.0\n" for name in spec.all_packages)
        return self._build(spec) if self._build else Built(image=spec.name, lock=lock, cached=False)

    async def execute(self, job: Job) -> Execution:
        """Have the function decide."""
        self.jobs.append(job)
        return Execution(self._execute(job), {})


def passing_report(job: Job) -> Report:
    """Return a whole report in which every expected test passes; under vetting, every one fails."""
    targets = {name: job.files[name] for name in job.targets}
    names = [n for n in expected_names(targets) if n not in job.deselect]
    vetting = job.purpose == "vet"
    results = tuple(
        TestResult(id=n, outcome="failed" if vetting else "passed", exception="AssertionError" if vetting else "")
        for n in names
    )
    return Report(
        exit="tests_failed" if vetting and names else "ok",
        whole=True,
        exit_code=int(vetting),
        collected=tuple(names),
        tests=results,
    )


class FakeClock:
    """A clock that moves a second at each look."""

    def __init__(self) -> None:
        self._seconds = 0

    def now(self) -> str:
        """Return the next second of 2026."""
        self._seconds += 1
        minutes, seconds = divmod(self._seconds, 60)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        return f"2026-01-{days + 1:02d}T{hours:02d}:{minutes:02d}:{seconds:02d}.000Z"

    def monotonic_ms(self) -> int:
        """Return the seconds looked at so far, in milliseconds."""
        return self._seconds * 1000


class MemoryLease:
    """A lease of a MemoryStore."""

    def __init__(self, store: "MemoryStore", session: str, token: int) -> None:
        self.session, self.token, self._store = session, token, store

    def renew(self) -> None:
        """Nothing expires here."""

    def release(self) -> None:
        """Give the session free."""
        if self._store.holders.get(self.session) == self.token:
            del self._store.holders[self.session]


class MemoryStore:
    """An event store in memory, with the same checks as a real one."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.texts: dict[str, str] = {}
        self.holders: dict[str, int] = {}
        self.reserved: dict[str, Spent] = {}
        self._token = 0

    async def acquire(self, session: str) -> MemoryLease:
        """Take the session's lease."""
        if session in self.holders:
            raise LeaseHeld(f"Session {session} is driven by this process already.")
        self._token += 1
        self.holders[session] = self._token
        return MemoryLease(self, session, self._token)

    async def append(
        self, event: Event, texts: Mapping[str, str], lease: MemoryLease, reserve: Reservation | None = None
    ) -> None:
        """Append one event."""
        if self.holders.get(event.session) != lease.token:
            raise StaleLease(f"Session {event.session} was taken over: event {event.seq} was not written.")
        own = self.events.setdefault(event.session, [])
        payload = event.payload
        if isinstance(payload, SessionForked) and not own:
            chain = self._chain(payload.parent)[: payload.seq + 1]
        else:
            chain = self._chain(event.session)
        if event.seq != len(chain) or event.prev_hash != (chain[-1].hash if chain else GENESIS):
            raise StoreError(f"Event {event.session}:{event.seq} does not follow the log.")
        for limit in reserve.limits if reserve else ():
            check(limit, self._spent(limit.scope, event.session), reserve or Reservation(0, 0))
        if reserve:
            self.reserved[f"{event.session}:{event.seq}"] = Spent(reserve.tokens, reserve.cost or 0)
        elif isinstance(payload, CallClosed) and not maybe_billed(payload):
            self.reserved.pop(payload.call, None)
        own.append(event)
        self.texts.update(texts)

    async def read(self, session: str) -> Stream:
        """Return a session's stream."""
        if not self.events.get(session):
            raise StoreError(f"There is no session {session}.")
        chain = self._chain(session)
        check_chain(chain)
        return Stream(tuple(chain), dict(self.texts))

    def _spent(self, scope: str, session: str) -> Spent:
        kind, _, tag = scope.partition(":")
        names = [
            name for name in self.events if kind == "database" or (tag in self._tags(name) if tag else name == session)
        ]
        found = [self.reserved[call] for call in self.reserved if call.rpartition(":")[0] in names]
        tokens, cost = sum(one.tokens for one in found), sum(one.cost for one in found)
        for event in (event for name in names for event in self.events[name]):
            if isinstance(payload := event.payload, Answered) and not payload.matched_by:
                tokens += payload.usage.total_input + payload.usage.total_output
                cost += pico(payload.price.cost) if payload.price else 0
        return Spent(tokens, cost)

    def _tags(self, session: str) -> tuple[str, ...]:
        starts = [e.payload for e in self._chain(session)]
        return tuple(tag for p in starts if isinstance(p, SessionStarted | SessionForked) for tag in p.tags)

    def _chain(self, session: str) -> list[Event]:
        own = self.events.get(session, [])
        if own and isinstance(first := own[0].payload, SessionForked):
            return [*self._chain(first.parent)[: first.seq + 1], *own]
        return list(own)
