"""Sessions of the loop with a simulated programmer, and what else its tokens could have bought."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from codetape import AutoCoderAgent
from codetape.domain.task import SandboxFacts
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import TestsFinished
from codetape.eventlog.session_state import SessionState
from codetape.ports import Sandbox
from codetape.testing import FakeSandbox, MemoryStore
from tests.bench.loop.box import report_of
from tests.bench.loop.claims import BenchClaim
from tests.bench.loop.corpus import BenchTask, holds, outcome
from tests.bench.loop.programmer import Programmer, ProgrammerModel, Skill


@dataclass(frozen=True)
class Measured:
    """One session, or one draw of a baseline: how it ended, and what is true."""

    task: str
    seed: int
    claimed: bool
    right: bool
    confidence: str
    reason: str
    seen_right: bool
    tokens: int
    code_cost: int
    tests_cost: int
    runs: int
    by_purpose: dict[str, int]
    sandbox_ms: int = 0
    confirming_ms: int = 0


def measure(
    task: BenchTask, seed: int, skill: Skill, sandbox: Sandbox | None = None, min_strength: float = 0.0
) -> Measured:
    """Run one session; without a sandbox the tests run in this process, where no strength is measured."""
    programmer = Programmer(task, seed, skill)
    model, seen = ProgrammerModel(programmer), dict[str, int]()

    def follow(event: Event, session: SessionState) -> None:
        programmer.session = session
        if isinstance(event.payload, TestsFinished):
            report = session.outcome.report if session.outcome else None
            kind = "confirming" if event.payload.purpose in ("confirm", "evaluate") else "tests"
            seen[kind] = seen.get(kind, 0) + (report.duration_ms if report else 0)
            if event.payload.purpose == "run":
                seen["right"] = seen.get("right", 0) or int(task.right(session.work.code))

    facts = SandboxFacts(name="fake", python="3.11")
    box = sandbox if sandbox is not None else FakeSandbox(report_of, facts=facts)
    agent = AutoCoderAgent(model=model, sandbox=box, store=MemoryStore(), min_strength=min_strength)
    name = f"{task.name}-{seed}".replace("_", "-")
    result = asyncio.run(agent.agenerate(task.prompt, session=name, on_event=follow))
    return Measured(
        task=task.name,
        seed=seed,
        claimed=result.succeeded,
        right=bool(result.solution) and task.right(result.solution.code),  # type: ignore[union-attr]
        confidence=result.confidence,
        reason="" if result.succeeded else result.reason.split(":")[0][:60],
        seen_right=bool(seen.get("right")),
        tokens=model.tokens,
        code_cost=model.costs.get("code", 0),
        tests_cost=model.costs.get("tests", 0),
        runs=result.iterations,
        by_purpose=model.by_purpose,
        sandbox_ms=seen.get("tests", 0) + seen.get("confirming", 0),
        confirming_ms=seen.get("confirming", 0),
    )


# ---- what sampling would do with the same programmer


def single_shot(task: BenchTask, seed: int, skill: Skill, cost: Measured) -> Measured:
    """Return the first program, claimed as it is."""
    right = task.right(Programmer(task, seed, skill).sample(0))
    return _drawn(task, seed, cost, claimed=True, right=right, tokens=cost.code_cost)


def best_of(task: BenchTask, seed: int, skill: Skill, cost: Measured, samples: int) -> Measured:
    """Return the best of n programs by the examples, then by own tests; claimed where it passes all."""
    programmer = Programmer(task, seed, skill)
    programs, claims = [programmer.sample(n) for n in range(samples)], programmer.assertions(0)
    often = Counter(programs)

    def rank(place: int) -> tuple[int, int, int, int]:
        program = programs[place]
        return _examples(task, program), _passed(program, claims), often[program], -place

    best = programs[max(range(samples), key=rank)]
    claimed = (_examples(task, best), _passed(best, claims)) == (len(task.examples), len(claims))
    tokens = samples * cost.code_cost + cost.tests_cost
    return _drawn(task, seed, cost, claimed=claimed, right=task.right(best), tokens=tokens)


def agreement(task: BenchTask, seed: int, skill: Skill, cost: Measured, samples: int, sets: int = 3) -> Measured:
    """Return a program of the largest agreement: programs that pass the same tests, by how many both are (CodeT)."""
    programmer = Programmer(task, seed, skill)
    programs = [programmer.sample(n) for n in range(samples)]
    claims = list(dict.fromkeys(c for n in range(sets) for c in programmer.assertions(n)))
    groups: dict[frozenset[int], list[str]] = {}
    for program in programs:
        if _examples(task, program) == len(task.examples):
            passed = frozenset(i for i, c in enumerate(claims) if _passed(program, [c]))
            groups.setdefault(passed, []).append(program)
    best = max(groups, key=lambda g: len(g) * len(groups[g])) if groups else frozenset()
    program = groups[best][0] if groups else programs[0]
    tokens = samples * cost.code_cost + sets * cost.tests_cost
    return _drawn(task, seed, cost, claimed=bool(groups), right=task.right(program), tokens=tokens)


def _examples(task: BenchTask, program: str) -> int:
    return sum(holds(outcome(program, case), expected) for case, expected in task.examples)


def _passed(program: str, claims: Iterable[BenchClaim]) -> int:
    return sum(holds(outcome(program, claim.case), claim.expected) for claim in claims)


def _drawn(task: BenchTask, seed: int, cost: Measured, *, claimed: bool, right: bool, tokens: int) -> Measured:
    return Measured(
        task.name, seed, claimed, right, "", "", seen_right=right, tokens=tokens, code_cost=cost.code_cost,
        tests_cost=cost.tests_cost, runs=0, by_purpose={},
    )  # fmt: skip
