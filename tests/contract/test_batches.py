"""Sessions that go forward together through a provider's batch endpoint, on servers on loopback that speak each.

No paid endpoint was tried.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

import codetape
from codetape.api import run_tasks, spend
from codetape.domain.budget import Limit
from codetape.errors import UsageError
from codetape.evals.task_file import TaskSpec
from codetape.eventlog.events import Answered, CallBatched, CallLost, GaveUp
from codetape.eventlog.fold import fold
from codetape.runtime import batched_calls
from codetape.runtime.pricing import Prices
from codetape.testing import FakeSandbox, MemoryStore
from codetape_adapters.models.openai_compatible import OpenAIModel
from tests.contract.test_apis import REPLIES, Chat, Messages, Responses, purpose_of
from tests.helpers.batch_server import AnthropicHandler, OpenAIHandler, batching
from tests.helpers.forked import codetape as codetape_command

PROMPT = "Write add(a, b), the sum of two numbers."
HANDLERS = {Chat: OpenAIHandler, Responses: OpenAIHandler, Messages: AnthropicHandler}
every_api = pytest.mark.parametrize("api", HANDLERS, ids=lambda api: api.api)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(batched_calls, "FIRST_POLL", 0.01)
    monkeypatch.setattr(batched_calls, "LAST_POLL", 0.02)


def serving(api, **options):
    def body(asked):
        return api.body(REPLIES[purpose_of(asked)], structured=bool(asked.get("tools")))

    return batching(HANDLERS[api], body, **options)


def tasks(count):
    return [TaskSpec(f"t{number}", f"{PROMPT} Variant {number}.", {}) for number in range(count)]


def agent(api, url, store, **options):
    quick = {"tries": 2, "sleep": lambda _: asyncio.sleep(0)}
    return codetape.AutoCoderAgent(model=api.model(url, **quick), sandbox=FakeSandbox(), store=store, **options)


def of_kind(store, kind):
    return [
        event.payload
        for row in store.sessions().rows
        for event in asyncio.run(store.read(row["session"])).events
        if isinstance(event.payload, kind)
    ]


@every_api
def test_sessions_go_forward_together_and_each_tape_replays(api):
    store, said = MemoryStore(), []
    with serving(api, slow=2) as (url, held):
        done = run_tasks(tasks(4), agent(api, url, store), in_batches=True, on_batch=said.append)
    assert done.progress.solved == 4
    assert [len(batch["requests"]) for batch in held.batches.values()] == [4, 4, 4]  # plans, then programs, then tests
    for row in store.sessions().rows:
        assert codetape.replay(row["session"], store=store).drift == ()
    waits = of_kind(store, CallBatched)
    assert [bool(wait.batch_id) for wait in waits] == [False, True] * 12
    assert {wait.batch_id for wait in waits if wait.batch_id} == {*held.batches}
    assert any("4 calls" in words for words in said)
    counts = api.usage
    sent = sum(v for k, v in counts.items() if k in ("prompt_tokens", "input_tokens") or k.startswith("cache_"))
    spent = spend(store=store).total
    assert spent.input + spent.cache_read + spent.cache_write == len(held.answered) * sent


@every_api
def test_what_was_stopped_while_its_batch_was_out_is_found_again_and_paid_once(api):
    store = MemoryStore()

    async def stopped(url):
        work = asyncio.create_task(
            codetape.api.arun_tasks(tasks(3), agent(api, url, store), in_batches=True, on_batch=said)
        )
        await asyncio.wait_for(sent.wait(), 20)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    def said(words):
        if "sent together" in words:
            loop.call_soon_threadsafe(sent.set)

    with serving(api, slow=10**9) as (url, held):
        loop, sent = asyncio.new_event_loop(), asyncio.Event()
        loop.run_until_complete(stopped(url))
        loop.close()
        assert not of_kind(store, CallLost)
        assert all(fold(s.events, s.texts).call.batch for s in streams(store))
        held.slow = 1
        done = run_tasks(tasks(3), agent(api, url, store), in_batches=True)
    assert done.progress.solved == 3
    assert len(held.batches) == 3
    assert len(held.answered) == len(of_kind(store, Answered)) == 9
    assert not of_kind(store, CallLost)
    assert all(codetape.replay(row["session"], store=store).drift == () for row in store.sessions().rows)


def streams(store):
    return [asyncio.run(store.read(row["session"])) for row in store.sessions().rows]


@every_api
@pytest.mark.parametrize("others", [0, 3], ids=["alone", "among others"])
def test_a_batch_whose_name_was_never_read_is_found_by_its_key(api, others):
    """The connection broke when the provider had made the batch: nobody knows its id."""
    store = MemoryStore()
    with serving(api, drop_made=1, per_page=2) as (url, held):
        done = run_tasks(tasks(2), agent(api, url, store), in_batches=True)
        assert done.progress.stopped == 2
        assert "cannot be reached" in done.attempts[0].reason
        assert all(not wait.batch_id for wait in of_kind(store, CallBatched))
        for number in range(others):  # of other users of the account, made since
            more = {"metadata": None} if api is not Messages else {}
            created = next(iter(held.batches.values()))["created"]
            held.made([(f"other-{number}", {})], created=created, **more)
            held.batches[f"batch_{number + 2}"]["results"] = {}
        done = run_tasks(tasks(2), agent(api, url, store), in_batches=True)
    assert done.progress.solved == 2
    assert len(held.answered) == 6
    assert len(held.batches) == 3 + others


def test_a_batch_that_was_never_made_is_sent_when_it_is_not_found():
    store = MemoryStore()
    with serving(Chat, drop_made=1) as (url, held):
        run_tasks(tasks(2), agent(Chat, url, store), in_batches=True)
        held.batches.clear()  # what broke off never reached the provider
        done = run_tasks(tasks(2), agent(Chat, url, store), in_batches=True)
    assert done.progress.solved == 2
    assert len(held.answered) == 6


@every_api
def test_items_whose_time_was_over_are_asked_again(api):
    def refuse(asked, batch):
        return "batch_expired" if batch == "batch_1" and "Variant 1" in json.dumps(asked) else None

    store, said = MemoryStore(), []
    with serving(api, refuse=refuse) as (url, held):
        done = run_tasks(tasks(3), agent(api, url, store), in_batches=True, on_batch=said.append)
    assert done.progress.solved == 3
    assert len(held.answered) == 9
    assert sum(len(answer.tries) for answer in of_kind(store, Answered)) == 1
    assert any("1 asked again" in words for words in said)


@every_api
def test_an_item_that_is_refused_suspends_its_session_alone(api):
    refused = (401, {"error": {"type": "authentication_error", "message": "no right to it"}})

    def refuse(asked, batch):
        return refused if "Variant 1" in json.dumps(asked) else None

    store = MemoryStore()
    with serving(api, refuse=refuse) as (url, _):
        done = run_tasks(tasks(3), agent(api, url, store), in_batches=True)
    assert [attempt.solved for attempt in done.attempts] == [True, None, True]
    assert "no right to it" in done.attempts[1].reason
    assert [gone.maybe_billed for gone in of_kind(store, GaveUp)] == [False] or api is Messages


@every_api
def test_a_form_that_is_refused_is_asked_in_another(api):
    words = "This model does not support response_format: json_schema"
    refused = (400, {"error": {"type": "invalid_request_error", "message": words, "param": "response_format"}})

    def refuse(asked, batch):
        return refused if batch == "batch_1" else None

    store = MemoryStore()
    with serving(api, refuse=refuse) as (url, held):
        run_tasks(tasks(1), agent(api, url, store), in_batches=True)
        asked = [batch["requests"][0][1] for batch in held.batches.values()]
    assert ['"schema"' in json.dumps(one) or "tools" in one for one in asked[:2]] == [True, False]
    assert "CallRefused" in [event.kind for event in streams(store)[0].events]


def test_a_batch_that_the_provider_refuses_ends_every_session_of_it_resumable():
    store = MemoryStore()
    with serving(Chat) as (url, held):
        whole = held.polled

        def failing(name):
            held.batches[name]["failed"] = "line 3: the model is unknown"
            return whole(name)

        held.polled = failing
        done = run_tasks(tasks(2), agent(Chat, url, store), in_batches=True)
        assert {attempt.solved for attempt in done.attempts} == {None}
        assert "line 3: the model is unknown" in done.attempts[0].reason
        held.polled = whole
        assert run_tasks(tasks(2), agent(Chat, url, store), in_batches=True).progress.solved == 2


def test_its_price_is_a_part_of_the_price_and_is_reserved_so():
    own = {"openai:x": {"input": Decimal(1000), "output": Decimal(1000)}}
    options = {"prices": Prices(own), "max_output_tokens": 256}
    store, plain = MemoryStore(), MemoryStore()
    with serving(Chat) as (url, _):
        run_tasks(tasks(1), agent(Chat, url, store, **options), in_batches=True)
        prices = [answer.price for answer in of_kind(store, Answered)]
        assert {price.share for price in prices} == {"0.5"}
        assert {Decimal(price.cost) for price in prices} == {Decimal("0.06")}
        most = max(Decimal(price.cost) for price in prices)
        # a budget that half the price of the first call fits into, and its whole price does not
        first = asyncio.run(store.read(store.sessions().rows[0]["session"])).events[1:4]
        asked = next(event.payload for event in first if event.kind == "Requested")
        whole = (asked.input_estimate * 5 // 4 + asked.max_output_tokens) / 1000
        limit = Limit("database", cost=int(whole * 0.75 * 10**12))
        with_limit = agent(Chat, url, plain, limits=(limit,), **options)
        run_tasks(tasks(1), with_limit, in_batches=True)
    assert most < Decimal(whole)
    assert of_kind(plain, Answered)


def test_a_model_without_a_batch_endpoint_is_refused_before_anything_starts():
    model = OpenAIModel("x", base_url="http://127.0.0.1:9/v1", kind="ollama", local=True)
    store = MemoryStore()
    own = codetape.AutoCoderAgent(model=model, sandbox=FakeSandbox(), store=store)
    with pytest.raises(UsageError, match="answers no batches"):
        run_tasks(tasks(1), own, in_batches=True)
    assert not store.sessions().rows


# ---- as a user runs it


@pytest.fixture
def corpus():
    lines = [json.dumps({"id": f"t{n}", "prompt": f"{PROMPT} Variant {n}."}) for n in range(3)]
    Path("tasks.jsonl").write_text("\n".join(lines))
    return "tasks.jsonl"


@pytest.mark.sandbox
def test_a_killed_run_finds_its_batch_again_and_pays_once(bubblewrap, corpus):
    def words(url):
        return ["run", "--tasks", corpus, "--batch", "--model", "openai:x", "--base-url", f"{url}/v1", "--sandbox", "bubblewrap", "--n-concurrent", "2"]  # fmt: skip

    with serving(Chat, slow=10**9) as (url, held):
        environment = {**os.environ, "OPENAI_API_KEY": "k"}
        process = subprocess.Popen([sys.executable, "-m", "codetape", *words(url)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        deadline = time.monotonic() + 60
        while not held.batches and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        process.kill()
        process.wait()
        assert not held.answered
        shown = codetape_command("show", "last").stdout
        assert "planning: its call waits in batch" in shown
        assert "codetape resume" in shown
        held.slow = 1
        done = codetape_command(*words(url), env={"OPENAI_API_KEY": "k"})
    assert done.returncode == 0, done.stderr
    assert "3 of 3 done, 0 left: 3 solved" in done.stdout
    assert len(held.batches) == 3
    assert len(held.answered) == 9
    assert codetape_command("verify", "--all").returncode == 0
    assert codetape_command("replay", "--task", "t*").returncode == 0


@pytest.mark.sandbox
def test_a_check_goes_through_batches_and_its_estimate_names_both_prices(bubblewrap, corpus, monkeypatch):
    monkeypatch.setenv("CODETAPE_TRUST", str(Path.cwd()))
    Path("codetape.toml").write_text('[prices]\n"openai:*" = {input = 10, output = 100}\n')
    with serving(Chat) as (url, held):
        server = ["--base-url", f"{url}/v1", "--sandbox", "bubblewrap"]
        key = {"OPENAI_API_KEY": "k"}
        made = codetape_command("run", "--tasks", corpus, "--batch", "--model", "openai:x", *server, env=key)
        assert made.returncode == 0, made.stderr
        change = ["check", "--model", "openai:y", "--batch", "-k", "2", "--accept-self-graded", *server]
        estimated = codetape_command(*change, "--dry-run", env=key)
        estimate = estimated.stdout
        each, batch = (line for line in estimate.splitlines() if "to be made, $" in line)
        costs = [Decimal(line.split("$")[1].split()[0]) for line in (each, batch)]
        assert costs[0] == 2 * costs[1] > 0
        assert "--batch" in batch
        both = json.loads(codetape_command(*change, "--dry-run", "--json", env=key).stdout)["dollars"]
        assert Decimal(both["each"][0]) == 2 * Decimal(both["batch"][0])
        before = len(held.batches)
        report = codetape_command(*change, "--yes", "--json", env=key)
        assert len(held.batches) == before + 3  # six attempts: their plans, programs and tests
        again = codetape_command(*change, "--yes", "--json", env=key)
        assert len(held.batches) == before + 3
    rows = json.loads(report.stdout)
    assert all(outcome["solved"] for outcome in rows["outcomes"]) if "outcomes" in rows else rows
    assert again.returncode == report.returncode
    assert codetape_command("replay", "--task", "t*").returncode == 0


def test_one_prompt_is_no_batch():
    done = codetape_command("run", PROMPT, "--model", "openai:x", "--batch", "--base-url", "http://127.0.0.1:9/v1")
    assert done.returncode == 2
    assert "--tasks" in done.stderr
