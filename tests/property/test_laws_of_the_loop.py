"""The loop's laws, over random worlds: a task whose truth is known, and a programmer who is wrong in many ways."""

import asyncio
import os
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from codetape import AutoCoderAgent
from codetape.domain.task import ANCHOR_FILE, SandboxFacts
from codetape.eventlog.events import CallLost, CodeReverted, Decided, Requested, TestsFinished
from codetape.rules.pytest_source import file_of
from codetape.testing import FakeSandbox, MemoryStore
from tests.bench.loop.box import report_of
from tests.bench.loop.claims import claims_in
from tests.bench.loop.corpus import holds, outcome, tasks
from tests.bench.loop.programmer import WORLDS, Programmer, ProgrammerModel, Skill

WORLDS_TRIED = settings(max_examples=int(os.environ.get("CODETAPE_WORLDS", "15")))
"""Of each law. `CODETAPE_WORLDS=1000 pytest tests/property/test_laws_of_the_loop.py` is the long campaign."""
chances = st.sampled_from([0.2, 0.5, 0.8])
skills = st.sampled_from([*WORLDS.values()]) | st.builds(
    Skill,
    code=chances,
    assertion=chances,
    fix=chances,
    blames_test=chances,
    applies=chances,
    test_fix=chances,
    special_cases=chances,
    persists=st.booleans(),
    blames_code=st.booleans(),
)
TASKS = {task.name: task for task in tasks()}
drawn = st.tuples(st.sampled_from(sorted(TASKS)), st.integers(1, 10_000), skills)


@dataclass
class Session:
    """What happened: each event with the state after it."""

    programmer: Programmer
    result: object = None
    steps: list = field(default_factory=list)

    @property
    def asked(self):
        return [e.payload for e, _ in self.steps if isinstance(e.payload, Requested) and e.payload.effect == "ask"]

    def executed(self, purpose):
        requests = [e.payload for e, _ in self.steps if isinstance(e.payload, Requested)]
        return [r for r in requests if r.effect == "execute" and r.purpose == purpose]


def played(task, seed, skill, **settings):
    task = TASKS.get(task, task)
    session = Session(Programmer(task, seed, skill))

    def follow(event, state):
        session.programmer.session = state
        session.steps.append((event, state))

    agent = AutoCoderAgent(
        model=ProgrammerModel(session.programmer), sandbox=FakeSandbox(report_of, facts=SandboxFacts(name="fake", python="3.11")),
        store=MemoryStore(), **{"max_iterations": 8, **settings},
    )  # fmt: skip
    session.result = asyncio.run(agent.agenerate(task.prompt, session="s", on_event=follow))
    return session


@WORLDS_TRIED
@given(drawn)
def test_no_question_is_put_twice(world):
    session = played(*world)
    assert not any(isinstance(event.payload, CallLost) for event, _ in session.steps)
    prints = [request.fingerprint for request in session.asked]
    assert len(prints) == len(set(prints))


@WORLDS_TRIED
@given(drawn)
def test_no_run_is_made_twice_but_the_one_that_confirms(world):
    session = played(*world)
    prints = [request.fingerprint for request in session.executed("run")]
    assert len(prints) == len(set(prints))
    assert session.result.iterations == len(prints)


@WORLDS_TRIED
@given(drawn)
def test_the_best_program_that_ran_is_delivered(world):
    session = played(*world)
    task, delivered = session.programmer.task, session.result.solution
    ran = [s.work.code for e, s in session.steps if isinstance(e.payload, TestsFinished) and e.payload.purpose == "run"]
    if not ran:
        return
    counted = set(claims_in(session.result.anchors))
    aside = {q.test.partition("::")[2] for q in session.result.quarantined if file_of(q.test) == ANCHOR_FILE}
    examples = [c for name, c in claims_in(session.result.anchors).items() if name in counted - aside]

    def passes(code):
        return sum(holds(outcome(code, claim.case), claim.expected) for claim in examples)

    assert passes(delivered.code) == max(map(passes, ran)), task.name


@WORLDS_TRIED
@given(drawn)
def test_a_change_that_is_taken_back_is_a_spent_attempt_and_forgets_its_fixes(world):
    session = played(*world)
    for place, (event, before) in enumerate(session.steps):
        if isinstance(event.payload, CodeReverted):
            after = next(state for later, state in session.steps[place:] if isinstance(later.payload, Decided))
            assert after.work.fixes == ()
            had = [f for f in before.work.checkpoint.findings if f.error_type != "test_error"]
            assert not had or sum(a.logic for a in after.work.attempts) > sum(a.logic for a in before.work.attempts)


@WORLDS_TRIED
@given(drawn)
def test_no_change_that_answers_one_call_by_its_arguments_is_taken(world):
    task, seed, skill = world
    session = played(task, seed, replace(skill, special_cases=1.0))
    codes = {state.work.code for event, state in session.steps if isinstance(event.payload, Decided)}
    assert not any("_plain = " in code for code in codes)


@WORLDS_TRIED
@given(drawn)
def test_no_right_test_is_bent_where_the_task_is_read_rightly(world):
    """Readers of the task are right here; who writes, diagnoses and mends is as wrong as before."""
    task, seed, skill = world
    programmer = Programmer(TASKS[task], seed, skill)
    session = played(task, seed, replace(skill, opinion=1.0, common=0.0, persists=False))
    first = next((s.work.tests for _, s in session.steps if s.work.tests), "")
    last = claims_in(session.result.tests)
    for name, claim in claims_in(first).items():
        if programmer.is_right(claim) and name in last:
            assert programmer.is_right(last[name]), name


@WORLDS_TRIED
@given(drawn)
def test_no_example_makes_a_session_unwinnable(world):
    """An example that cannot hold is set aside, or put to a person: the task's words are read rightly here."""
    name, seed, skill = world
    task = TASKS[name]
    plain = [(case, value) for case, value in task.examples if f">>> {case}\n{value}\n" in f"{task.prompt}\n"]
    if not plain:
        return
    case, value = plain[0]
    wrong = Programmer(task, seed, skill).misread(case)
    if wrong.startswith("raises ") or "\n" in case or holds(outcome(task.programs[0], case), wrong):
        return
    prompt = f"{task.prompt}\n".replace(f">>> {case}\n{value}\n", f">>> {case}\n{wrong}\n")
    broken = replace(task, prompt=prompt.rstrip("\n"))
    able = replace(skill, code=1.0, assertion=1.0, opinion=1.0, common=0.0, persists=False, blames_code=False)
    session = played(broken, seed, able)
    assert session.result.status in ("succeeded", "suspended")
    if session.result.succeeded:
        assert session.result.confidence == "disputed"
        assert task.right(session.result.solution.code)
    else:
        assert session.result.question.startswith(f"example:{ANCHOR_FILE}::")
