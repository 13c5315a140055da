"""Corpora of generated sessions: random worlds, and noisy models that solve a task with a chance of their own."""

import asyncio
import random

from codetape import AutoCoderAgent
from codetape.domain.report import Report, TestResult
from codetape.domain.task import SandboxFacts
from codetape.domain.usage import Usage
from codetape.ports import Built, Reply
from codetape.rules.classify import expected_names
from codetape.testing import FakeClock, FakeSandbox
from tests.support import block, diagnosis, failure, plan, verification
from tests.worlds import World

ORACLE = "from solution import add\n\n\ndef test_oracle():\n    assert add(0, 0) == 0\n"


def random_corpus(store, count, *, attempts=1, trouble=(0.05, 0.25, 0.5)):
    """Put sessions of random worlds into a store; tasks are t0, t1, ... with so many attempts each."""
    for number in range(count):
        world = World(number, trouble[number % len(trouble)])
        agent = AutoCoderAgent(
            model=world, sandbox=world.sandbox, store=store, clock=FakeClock(), max_iterations=4,
            parameters={"temperature": 0},
        )  # fmt: skip
        task = f"t{number // attempts}"
        oracle = ORACLE if number % 3 == 0 else None
        asyncio.run(agent.agenerate("Add.", task=task, oracle=oracle, session=f"s{number}", tags=["corpus"]))


class Noisy:
    """A model whose script is right with a chance that each task has for itself; it answers nothing twice in the same way."""

    name = "noisy"

    def __init__(self, seed, chance=None):
        self.random = random.Random(seed)
        self.chance = chance
        self.requests = []

    async def ask(self, request):
        self.requests.append(request)
        text = getattr(self, request.purpose)(request)
        return Reply(text=text, model="noisy", usage=Usage(input=request.input_estimate, output=len(text) // 4 + 1))

    def plan(self, request):
        return plan("def add(a, b)")

    def code(self, request):
        prompt = request.messages[1].content
        chance = self.chance if self.chance is not None else int(prompt.split("chance ")[1][:3]) / 100
        right = self.random.random() < chance
        return block(f"def add(a, b):\n    return a + b{'' if right else ' + 1'}  # {self.random.random()}")

    def tests(self, request):
        return block("from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3")

    def diagnose(self, request):
        return diagnosis(failure("test_sum"))

    def verify_code(self, request):
        return verification()


def judged(job):
    """Say what came of a job of `Noisy`: its script is right, or one too much."""
    names = [n for n in expected_names({t: job.files[t] for t in job.targets}) if n not in job.deselect]
    right = "+ 1" not in job.files["solution.py"] and job.purpose != "vet"
    results = tuple(
        TestResult(id=n, outcome="passed" if right else "failed", exception="" if right else "TypeError") for n in names
    )
    return Report(
        exit="ok" if right else "tests_failed",
        whole=True,
        exit_code=int(not right),
        collected=tuple(names),
        tests=results,
    )


def noisy_agent(store, seed, **settings):
    """Return an agent whose model is noisy and whose sandbox judges it."""
    sandbox = FakeSandbox(
        judged, lambda spec: Built(spec.name, "", cached=False), facts=SandboxFacts(name="fake", python="3.11")
    )
    return AutoCoderAgent(
        model=Noisy(seed), sandbox=sandbox, store=store, clock=FakeClock(), max_iterations=1, **settings
    )


def noisy_corpus(store, tasks, *, seed=0, attempts=1, oracle=ORACLE):
    """Put sessions of a noisy model into a store: as many tasks, each with a chance between 30 and 90 per cent."""
    chances = random.Random(seed)
    for task in range(tasks):
        chance = chances.randint(30, 90)
        for number in range(attempts):
            agent = noisy_agent(store, f"{seed}-{task}-{number}")
            prompt = f"Add two numbers, chance {chance:03}."
            asyncio.run(agent.agenerate(prompt, task=f"t{task}", oracle=oracle, session=f"n{seed}-{task}-{number}"))
