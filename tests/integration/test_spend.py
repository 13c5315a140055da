"""Spend: sums agree with the events to the last token, prices are those of their date, and every call has a disposition."""

import asyncio
import json
from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codetape import AutoCoderAgent
from codetape.domain.money import dollars, pico, picodollars
from codetape.domain.usage import Usage
from codetape.errors import UsageError
from codetape.eventlog.envelope import stored
from codetape.eventlog.events import Answered, CallLost, Requested
from codetape.playback import tape_file
from codetape.ports import CALL_EVENT_KINDS, Reply
from codetape.reporting.calls import DISPOSITIONS, records, records_of, stream_calls
from codetape.reporting.spend import KEYS, spend
from codetape.runtime.pricing import BUCKETS, Prices, read_prices
from codetape.testing import MemoryStore, ScriptedModel
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.corpora import random_corpus
from tests.property.test_machine import live, worlds
from tests.support import ADD, ADD_TESTS, SUBTRACT, HostSandbox, diagnosis, failure, generate, opinions, plan

ROOT = __import__("pathlib").Path(__file__).parents[2]


# ---- prices

at_dates = st.sampled_from(["2024-06-01T00:00:00Z", "2025-10-01T00:00:00Z", "2026-11-01T12:00:00.000Z"])
models = st.sampled_from(
    [("openai", "gpt-5-mini"), ("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")]
)
tokens = st.integers(0, 400_000)


@given(models, at_dates, tokens, tokens, tokens, tokens)
def test_our_price_is_the_price_lists_tiers_and_cache_and_date_among_it(model, at, plain, read, output, reasoning):
    from datetime import datetime

    usage = Usage(input=plain, cache_read=read, output=output, reasoning=reasoning)
    price = Prices().price((f"openai:{model[1]}",), (model[0], ""), usage, at)
    theirs = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=plain + read, cache_read_tokens=read, output_tokens=output + reasoning),
        model[1], provider_id=model[0], genai_request_timestamp=datetime.fromisoformat(at.replace("Z", "+00:00")),
    )  # fmt: skip
    assert Decimal(price.cost) == theirs.total_price
    assert (price.source, price.version) == ("genai-prices", genai_prices.__version__)
    assert set(price.per_mtok) <= {*BUCKETS}


def test_a_model_that_nobody_prices_has_no_price_and_one_that_the_user_prices_has_that():
    usage = Usage(input=1_000_000, output=500_000)
    at = "2026-01-01T00:00:00Z"
    assert Prices().price(("openai:nosuch",), ("openai", ""), usage, at) is None
    assert Prices().price(("ollama:gpt-4o",), ("", ""), usage, at) is None, (
        "a local server bills nobody, whatever its model's name"
    )
    assert Prices().price(("openai:gpt-4o",), ("", "http://127.0.0.1:8000/v1"), usage, at) is None
    own = read_prices({"ollama:*": {"input": 0.1, "output": "0.4"}}, "f")
    found = own.price(("ollama:gpt-4o",), ("", ""), usage, at)
    assert (found.cost, found.source) == ("0.3", "settings")


def test_a_cost_that_the_provider_reports_is_kept_beside_ours():
    raw = json.dumps({"prompt_tokens": 10, "cost": 0.000123})
    found = Prices().price(("openai:gpt-4o",), ("openai", ""), Usage(input=10), "2026-01-01T00:00:00Z", raw)
    assert (found.cost, found.source, found.computed) == ("0.000123", "provider", "0.000025")
    for bad in (
        '{"cost": 0}',
        '{"cost": -0.0}',
        '{"cost": 1e-3000000}',
        '{"cost": -1}',
        '{"cost": "x"}',
        '{"cost": 1e400}',
        "[",
        "[]",
        '{"cost": true}',
    ):
        assert Prices().price(("m",), ("", ""), Usage(input=10), "2026-01-01T00:00:00Z", bad) is None


@pytest.mark.parametrize("table", [{"m": 1}, {"m": {"input": 1}}, {"m": {"input": 1, "output": -1}}, {"m": {"input": 1, "output": "x"}}, {"m": {"input": True, "output": 1}}])  # fmt: skip
def test_a_price_that_is_none_is_refused(table):
    with pytest.raises(UsageError, match="price of m"):
        read_prices(table, "codetape.toml")


@given(st.integers(0, 10**18))
def test_money_is_exact(amount):
    assert pico(dollars(amount)) == amount if amount <= 10**18 else True
    assert picodollars(dollars(amount)) == amount


@pytest.mark.parametrize("text", ["", "x", "-1", "1e99", "nan", "inf"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UsageError, match="not a valid dollar amount"):
        pico(text)


class Priced(ScriptedModel):
    billing = ("openai", "")

    async def ask(self, request):
        reply = await super().ask(request)
        return Reply(
            text=reply.text,
            model="gpt-5-mini-2025-08-07",
            usage=Usage(input=1000, cache_read=500, output=200, reasoning=50),
        )


ANSWERS = {
    "plan": [plan()], "code": [SUBTRACT, ADD], "tests": [ADD_TESTS], "second_opinion": [opinions("3", "4")],
    "diagnose": [diagnosis(failure("test_sum"))],
}  # fmt: skip


def test_the_price_is_kept_with_the_call_and_the_sum_in_the_list():
    store = SqliteStore("tape.db")
    result, _ = generate(None, model=Priced(ANSWERS, name="openai:gpt-5-mini"), store=store)
    answers = [e.payload for e in asyncio.run(store.read(result.session)).events if e.kind == "Answered"]
    each = (Decimal(1000) * Decimal("0.25") + Decimal(500) * Decimal("0.025") + Decimal(250) * 2) / 1_000_000
    assert {Decimal(a.price.cost) for a in answers} == {each}
    assert answers[0].price.per_mtok == {"input": "0.25", "cache_read": "0.025", "output": "2"}
    assert store.sessions()[0][0]["cost"] == pico(str(each)) * len(answers)
    found = spend(records(store.kept_calls()), ("model",))
    assert found.total.cost == pico(str(each)) * len(answers)
    later = spend(records(store.kept_calls()), ("model",), as_of="2024-01-01T00:00:00Z")
    assert later.total.unpriced + bool(later.total.cost) > 0
    store.close()


# ---- sums


def tokens_of(streams):
    total = dict.fromkeys(("input", "cache_read", "cache_write", "output", "reasoning"), 0)
    for stream in streams:
        own = stream.events[-1].session
        for event in stream.events:
            if event.session == own and isinstance(event.payload, Answered) and not event.payload.matched_by:
                for name in total:
                    total[name] += getattr(event.payload.usage, name)
    return total


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = SqliteStore(tmp_path_factory.mktemp("spend") / "tape.db")
    random_corpus(store, 40, attempts=4)
    yield store
    store.close()


@pytest.fixture(scope="module")
def read(store):
    """The calls of all sessions, and their streams."""
    streams = [asyncio.run(store.read(row["session"])) for row in store.sessions()[0]]
    return list(records(store.kept_calls())), streams


@settings(max_examples=60)
@given(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
def test_sums_agree_with_the_events_to_the_last_token_however_they_are_told_apart(read, by):
    calls, streams = read
    found = spend(calls, by)
    for name, total in tokens_of(streams).items():
        assert getattr(found.total, name) == total
        assert sum(getattr(row, name) for row in found.rows) == total  # every session has one label
    asked = sum(isinstance(e.payload, Requested) and e.payload.effect == "ask" for s in streams for e in s.events)
    assert found.total.calls == asked
    lost = sum(isinstance(e.payload, CallLost) for s in streams for e in s.events)
    assert found.total.lost <= lost


@given(worlds)
def test_every_call_has_one_fate_and_the_database_says_what_the_stream_says(drawn):
    _, stream, *_ = live(*drawn)
    calls = list(stream_calls(stream))
    assert [c.seq for c in calls] == [
        e.seq for e in stream.events if isinstance(e.payload, Requested) and e.payload.effect == "ask"
    ]
    assert {c.disposition for c in calls} <= {*DISPOSITIONS}
    accepted = [c for c in calls if c.disposition == "accepted" and c.purpose == "code"]
    assert len(accepted) <= 1
    states = {e.seq: None for e in stream.events}
    assert all(c.seq in states for c in calls)
    refused = sum(e.kind == "CallRefused" for e in stream.events)
    assert sum(c.disposition == "rejected" for c in calls) >= refused


def test_fates_by_example():
    result, _ = generate({**ANSWERS, "plan": ["{", plan()], "code": [SUBTRACT, ADD]}, store=(store := MemoryStore()))
    assert result.succeeded
    calls = list(stream_calls(asyncio.run(store.read(result.session))))
    dispositions = [(c.purpose, c.disposition) for c in calls]
    assert dispositions[:4] == [("plan", "repair"), ("plan", "accepted"), ("code", "superseded"), ("tests", "accepted")]
    assert dispositions[-1] == ("code", "accepted")
    assert ("diagnose", "accepted") in dispositions
    assert [c.iteration for c in calls][-1] == 1


def test_a_label_that_is_given_twice_counts_once_and_a_lost_call_has_no_price():
    store = SqliteStore("twice.db")

    class Stops(Priced):
        async def ask(self, request):
            if request.purpose == "code" and len(self.requests) < 2:
                self.requests.append(request)
                raise asyncio.CancelledError
            return await super().ask(request)

    model = Stops(ANSWERS, name="openai:gpt-5-mini")
    with pytest.raises(asyncio.CancelledError):
        generate(None, model=model, store=store, ask={"tags": ["n", "n"], "session": "s"})
    found = spend(records(store.kept_calls()), ("tag",))
    assert [row.calls for row in found.rows] == [found.total.calls] == [2]
    lost = next(c for c in records(store.kept_calls()) if c.reserved)
    assert (lost.cost, lost.source, lost.disposition) == (None, "", "abandoned")
    agent = AutoCoderAgent(model=model, sandbox=HostSandbox(), store=store)
    asyncio.run(agent.aresume("s"))
    dispositions = [(c.purpose, c.disposition) for c in records(store.kept_calls())]
    assert dispositions[:3] == [("plan", "accepted"), ("code", "transport retry"), ("code", "superseded")]
    store.close()


def test_a_halt_between_an_answer_and_its_decision_does_not_change_its_fate():
    store = MemoryStore()
    result, _ = generate({**ANSWERS, "code": [ADD]}, store=store)
    stream = asyncio.run(store.read(result.session))
    facts = [stored(event) for event in stream.events if event.kind in CALL_EVENT_KINDS]
    at = next(
        n
        for n, f in enumerate(facts)
        if f.kind == "Answered" and facts[n + 1].kind == "Decided" and '"about":"code"' in facts[n + 1].payload
    )
    halt = json.dumps({"trigger": "suspend", "source": "coding", "target": "suspended", "about": "session", "usable": True, "reason": "outage", "ledger": {}, "changes": {}, "cause": "outage"})  # fmt: skip
    cut = [*facts[: at + 1], facts[at]._replace(kind="Suspended", payload=halt), *facts[at + 1 :]]
    assert [c.disposition for c in records_of(cut)] == [c.disposition for c in records_of(facts)]


def test_replayed_and_inherited_calls_cost_nothing_and_are_shown_apart():
    stream = tape_file.load(str(ROOT / "replays" / "demo.tape.jsonl")).stream
    assert spend(stream_calls(stream)).total.replayed == 0
    store = MemoryStore()
    result, _ = generate(None, model=__import__("codetape.playback.recorded_model", fromlist=["x"]).TapeModel("t", stream), store=store, prompt="other", max_iterations=1)  # fmt: skip
    found = spend(stream_calls(asyncio.run(store.read(result.session))))
    assert found.total.calls == 0
    assert found.total.tokens == found.total.cost == 0
    assert found.total.replayed == result.calls
    assert found.total.replayed_tokens == result.total_input_tokens + result.total_output_tokens


def test_a_key_that_there_is_not_is_told():
    with pytest.raises(UsageError, match="told apart"):
        spend([], ("nothing",))
