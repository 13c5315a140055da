"""Budgets: what a call may come to is reserved before it is made; nothing passes that does not fit, not even twice at once."""

import asyncio
import multiprocessing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape import AutoCoderAgent
from codetape.domain.budget import Limit, Reservation
from codetape.domain.usage import Usage
from codetape.errors import BudgetSpent, ModelUnavailable
from codetape.playback.strict_replay import replay
from codetape.ports import Reply
from codetape.runtime.pricing import read_prices
from codetape.testing import FakeClock, FakeSandbox, MemoryStore, ScriptedModel
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.support import ADD, ADD_TESTS, generate, plan
from tests.worlds import World

ANSWERS = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}
SMALL = {"max_output_tokens": 256}


class Counted(ScriptedModel):
    """Says what it used: never more than the request allows it."""

    def __init__(self, answers, used=200, **more):
        super().__init__(answers, **more)
        self.used = used

    async def ask(self, request):
        reply = await super().ask(request)
        return Reply(text=reply.text, usage=Usage(input=request.input_estimate, output=self.used))


def first_call():
    """What the first call of these tests reserves, in tokens."""
    _, model = generate(None, model=Counted(ANSWERS), **SMALL)
    return model.requests[0].reserved_input + 256


def stores():
    return [MemoryStore(), SqliteStore("budget.db")]


@pytest.mark.parametrize("kind", [0, 1], ids=["memory", "sqlite"])
def test_a_breach_suspends_before_the_call_and_a_higher_budget_goes_on_with_what_was_spent(kind):
    store = stores()[kind]
    model = Counted(ANSWERS)
    result, _ = generate(None, model=model, store=store, max_tokens=first_call() + 10, **SMALL)
    assert (result.status, [r.purpose for r in model.requests]) == ("suspended", ["plan"])
    assert f"does not fit into the budget of the session, {first_call() + 10:,} tokens" in result.reason
    events = asyncio.run(store.read(result.session)).events
    assert events[-1].payload.cause == "budget"
    assert replay(asyncio.run(store.read(result.session))).run.head == result.head
    agent = AutoCoderAgent(model=Counted(ANSWERS), sandbox=FakeSandbox(), store=store)
    again = asyncio.run(agent.aresume(result.session))
    assert again.status == "suspended"  # the same budget: nothing was reset
    more = asyncio.run(agent.aresume(result.session, changes={"max_tokens": 20_000}))
    assert more.status == "succeeded"
    assert more.calls == 3


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(500, 30_000))
def test_what_is_spent_is_never_above_the_budget_by_more_than_the_estimates_error(seed, budget):
    world, store = World(seed, 0.25), MemoryStore()
    asked = []

    class Watched:
        name = "w"

        async def ask(self, request):
            reply = await world.ask(request)
            if isinstance(reply, Reply):
                asked.append((request, reply.usage))
            return reply

    agent = AutoCoderAgent(model=Watched(), sandbox=world.sandbox, store=store, clock=FakeClock(), max_iterations=4, max_tokens=budget, **SMALL)  # fmt: skip
    asyncio.run(agent.agenerate("Add.", session="s"))
    spent = sum(u.total_input + u.total_output for _, u in asked)
    error = max(
        [max(0, u.total_input + u.total_output - r.reserved_input - r.max_output_tokens) for r, u in asked], default=0
    )
    assert spent <= budget + error


def test_a_lost_call_keeps_its_reservation_and_a_refused_or_given_up_one_does_not():
    store = SqliteStore("lost.db")

    class Stops(Counted):
        async def ask(self, request):
            if request.purpose == "code":
                raise asyncio.CancelledError
            return await super().ask(request)

    agent = AutoCoderAgent(model=Stops(ANSWERS), sandbox=FakeSandbox(), store=store, **SMALL)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(agent.agenerate("Add.", session="s"))
    row = store.sessions()[0][0]
    lost = next(e.payload for e in asyncio.run(store.read("s")).events if e.kind == "CallLost")
    assert row["reserved_tokens"] >= lost.input_estimate + 256
    done = asyncio.run(AutoCoderAgent(model=Counted(ANSWERS), sandbox=FakeSandbox(), store=store, **SMALL).aresume("s"))
    assert done.succeeded
    assert store.sessions()[0][0]["reserved_tokens"] == row["reserved_tokens"]
    store.close()


@pytest.mark.parametrize(("tries", "kept"), [(("Request timed out.",), True), (("Connection error: refused",), False)])
def test_a_try_that_may_have_been_billed_keeps_its_reservation(tries, kept):
    store = SqliteStore("tries.db")

    class Down(Counted):
        async def ask(self, request):
            raise ModelUnavailable("down", tries=tries, maybe_billed=kept)

    agent = AutoCoderAgent(model=Down(ANSWERS), sandbox=FakeSandbox(), store=store, **SMALL)
    asyncio.run(agent.agenerate("Add.", session="s"))
    assert bool(store.sessions()[0][0]["reserved_tokens"]) == kept
    store.close()


def test_a_prompt_in_a_dense_script_is_not_reserved_at_a_quarter():
    text = "\u6c42\u4e24\u4e2a\u6570\u7684\u548c" * 100
    _, model = generate(None, text, model=Counted(ANSWERS), **SMALL)
    assert model.requests[0].reserved_input > len(text)


def test_money_is_reserved_at_the_estimate_and_a_model_without_a_price_is_refused():
    prices = read_prices({"scripted": {"input": 1, "output": 10}}, "f")
    store = SqliteStore("money.db")
    result, model = generate(None, model=Counted(ANSWERS), store=store, max_cost="0.0034", prices=prices, **SMALL)
    assert (result.status, len(model.requests)) == ("suspended", 1)
    assert "budget of the session, $0.0034" in result.reason
    other, model = generate(None, model=Counted(ANSWERS), store=store, max_cost="5", **SMALL)
    assert (other.status, model.requests) == ("suspended", [])
    assert "no price" in other.reason
    whole, _ = generate(None, model=Counted(ANSWERS), store=store, max_cost="5", prices=prices, **SMALL)
    assert whole.succeeded
    store.close()


def test_time_is_of_work_and_holds_across_a_resume():
    class Slow(FakeClock):
        def monotonic_ms(self):
            self._seconds += 40
            return self._seconds * 1000

    store = MemoryStore()
    result, model = generate(None, model=Counted(ANSWERS), store=store, max_seconds=60, clock=Slow())
    assert result.status == "suspended"
    assert len(model.requests) == 2
    assert "60 s of work" in result.reason


def test_a_label_and_the_database_have_budgets_of_their_own():
    store = SqliteStore("tags.db")
    whole = generate(None, model=Counted(ANSWERS), **SMALL)[0]
    limits = (Limit("tag:a", tokens=whole.total_input_tokens + whole.total_output_tokens + 400),)
    first, _ = generate(None, model=Counted(ANSWERS), store=store, limits=limits, ask={"tags": ["a"]}, **SMALL)
    assert first.succeeded
    second, model = generate(
        None, model=Counted(ANSWERS), store=store, limits=limits, ask={"tags": ["a", "b"]}, **SMALL
    )
    assert second.status == "suspended"
    third, _ = generate(None, model=Counted(ANSWERS), store=store, limits=limits, ask={"tags": ["b"]}, **SMALL)
    assert third.status == "suspended", "the call is of another label, but the limit's label is spent"
    fourth, _ = generate(
        None, model=Counted(ANSWERS), store=store, limits=(Limit("database", tokens=100_000),), **SMALL
    )
    assert fourth.succeeded
    store.close()


def _reserves(number, budget, ready, results):
    store = SqliteStore("race.db")
    agent = AutoCoderAgent(
        model=Counted(ANSWERS),
        sandbox=FakeSandbox(),
        store=store,
        max_output_tokens=256,
        limits=(Limit("database", tokens=budget),),
    )
    ready.wait()
    result = asyncio.run(agent.agenerate("Add.", session=f"s{number}"))
    results.put((result.status, len(agent.model.requests)))


def test_two_processes_cannot_both_pass():
    """The budget lets one first call through, and not two: whoever comes second, at the same moment, is stopped before it asks."""
    SqliteStore("race.db").sessions()
    budget = first_call() + 10
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_reserves, args=(n, budget, ready, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(asked for _, asked in found) == 1
    assert {status for status, _ in found} == {"suspended"}


def test_what_does_not_fit_appends_nothing():
    store = SqliteStore("port.db")
    result, _ = generate(None, model=Counted(ANSWERS), store=store, **SMALL)
    db = store._db()
    before = db.execute("SELECT count(*), sum(open_tokens) FROM events, sessions").fetchone()
    from codetape_adapters.stores.sqlite import reservations

    with pytest.raises(BudgetSpent):
        reservations.reserve(db, result.session, Reservation(10, 0, (Limit("session", tokens=1),)))
    assert db.execute("SELECT count(*), sum(open_tokens) FROM events, sessions").fetchone() == before
    store.close()
