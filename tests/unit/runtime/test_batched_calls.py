"""Calls that go forward together: when a batch is sent, and that every call comes to its end once, whatever fails."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.model_request import Message, ModelRequest
from codetape.errors import BatchOutOfReach, ModelUnavailable
from codetape.eventlog.session_state import OpenCall
from codetape.ports import BatchEndpoint, BatchState, ItemFailed, Model, Reply
from codetape.runtime.batched_calls import MOST_BATCHES, MOST_FAILED_POLLS, BatchedCalls


def request(text="x"):
    message = Message(role="user", content=text)
    return ModelRequest(model="m:x", purpose="plan", messages=(message,), max_output_tokens=100)


class Endpoint(BatchEndpoint):
    """Answers a batch when it was asked for often enough; ``fates`` say which items expire, in the order asked."""

    price_share = "0.5"

    def __init__(self, fates=(), polls=1):
        self.sent, self.answered, self.fates, self.polls = {}, Counter(), list(fates), polls
        self.asked, self.on_send = Counter(), lambda: None

    async def send(self, key, requests):
        self.on_send()
        await asyncio.sleep(0)
        self.sent[key] = dict(requests)
        return f"id_{key}"

    async def find(self, key, since):
        return f"id_{key}" if key in self.sent else ""

    async def state(self, batch_id):
        self.asked[batch_id] += 1
        return BatchState(self.asked[batch_id] >= self.polls)

    async def replies(self, batch_id, requests):
        outcomes = {}
        for name in requests:
            if self.fates and self.fates.pop(0):
                outcomes[name] = ItemFailed("over", again=True)
            else:
                self.answered[name.partition("-")[2]] += 1
                outcomes[name] = Reply(text=name)
        return outcomes


class Served(Model):
    def __init__(self, endpoint, name="m:x"):
        self.name, self.batches = name, endpoint


async def no_wait(_seconds):
    await asyncio.sleep(0)


async def untold(key, batch_id):
    pass


@given(
    paces=st.lists(st.lists(st.integers(0, 3), min_size=0, max_size=4), min_size=1, max_size=6),
    fates=st.lists(st.booleans(), max_size=12),
    polls=st.integers(1, 3),
)
def test_a_batch_is_sent_when_no_session_goes_on_without_it_and_every_call_ends_once(paces, fates, polls):
    """Each session makes some calls, with some work before each; items expire as it comes."""
    at_work, told = set(range(len(paces))), []

    async def session(batched, model, number, pace):
        async with batched.places:
            try:
                for call, steps in enumerate(pace):
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    at_work.discard(number)

                    async def tell(key, batch_id, name=f"s{number}:{call}"):
                        told.append((name, key, batch_id))

                    try:
                        await batched.ask(model, f"s{number}:{call}", request(), tell)
                    except ModelUnavailable:
                        return
                    finally:
                        at_work.add(number)
            finally:
                at_work.discard(number)

    async def world():
        endpoint = Endpoint(fates, polls)
        endpoint.on_send = lambda: working.append(set(at_work))
        model = Served(endpoint)
        async with BatchedCalls(len(paces), sleep=no_wait) as batched:
            work = [session(batched, model, number, pace) for number, pace in enumerate(paces)]
            await asyncio.wait_for(asyncio.gather(*work), 20)
        return endpoint

    working = []
    endpoint = asyncio.run(world())
    assert all(not busy for busy in working)
    assert set(endpoint.answered.values()) <= {1}
    if not fates:
        assert sum(endpoint.answered.values()) == sum(map(len, paces))
    for name, key, batch_id in told:  # the tape says the key before the provider has the batch, then its id
        first = next(i for i, one in enumerate(told) if one[:2] == (name, key))
        assert told[first][2] == ""
        assert batch_id in ("", f"id_{key}")


def ask(endpoint, tell=untold):
    async def work():
        async with BatchedCalls(sleep=no_wait) as batched:
            return await asyncio.wait_for(batched.ask(Served(endpoint), "s:1", request(), tell), 20)

    return asyncio.run(work())


def test_a_call_is_put_into_so_many_batches_and_no_more():
    endpoint = Endpoint([True] * 10)
    with pytest.raises(ModelUnavailable, match="over") as raised:
        ask(endpoint)
    assert len(endpoint.sent) == MOST_BATCHES
    assert len(raised.value.tries) == MOST_BATCHES


def test_what_failed_before_is_told_with_the_answer():
    assert ask(Endpoint([True])).tries == ("over",)


@pytest.mark.parametrize(
    ("maybe", "kind"), [(False, ModelUnavailable), (True, BatchOutOfReach)], ids=["refused", "broke off"]
)
def test_a_batch_that_may_be_there_is_never_given_up(maybe, kind):
    class Refusing(Endpoint):
        async def send(self, key, requests):
            raise ModelUnavailable("no", maybe_billed=maybe)

    with pytest.raises(kind):
        ask(Refusing())


def test_a_provider_that_is_out_of_reach_for_a_while_is_waited_for_and_not_for_ever():
    class Away(Endpoint):
        def __init__(self, times):
            super().__init__()
            self.left = times

        async def state(self, batch_id):
            self.left -= 1
            if self.left >= 0:
                raise ModelUnavailable("away")
            return await super().state(batch_id)

    assert ask(Away(MOST_FAILED_POLLS - 1)).text
    with pytest.raises(BatchOutOfReach, match="away"):
        ask(Away(MOST_FAILED_POLLS))


def test_a_session_whose_tape_cannot_say_so_is_not_sent_and_harms_no_other():
    async def broken(key, batch_id):
        raise OSError("full")

    async def work():
        endpoint = Endpoint()
        async with BatchedCalls(2, sleep=no_wait) as batched:
            calls = [
                batched.ask(Served(endpoint), f"s{n}:1", request(), tell) for n, tell in ((0, broken), (1, untold))
            ]
            return endpoint, await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)

    endpoint, (first, second) = asyncio.run(work())
    assert isinstance(first, OSError)
    assert isinstance(second, Reply)
    assert [len(sent) for sent in endpoint.sent.values()] == [1]


def test_models_of_two_servers_wait_in_two_batches():
    async def work():
        first, second = Endpoint(), Endpoint()
        async with BatchedCalls(3, sleep=no_wait) as batched:
            models = [Served(first), Served(first), Served(second, "m:y")]
            await asyncio.gather(*(batched.ask(m, f"s{n}:1", request(), untold) for n, m in enumerate(models)))
        return first, second

    first, second = asyncio.run(work())
    assert [len(sent) for sent in first.sent.values()] == [2]
    assert [len(sent) for sent in second.sent.values()] == [1]


def test_what_was_sent_before_is_joined_and_asked_for_by_all_at_once():
    endpoint = Endpoint(polls=3)
    key = "0" * 16

    async def work():
        async with BatchedCalls(2, sleep=no_wait) as batched:
            first = Served(endpoint)
            calls = [
                batched.rejoin(first, OpenCall(f"s{n}:1", "ask", "plan", "f", 1, key, ""), "2026-01-01T00:00:00Z", request(), untold)
                for n in range(2)
            ]  # fmt: skip
            endpoint.sent[key] = {}
            return await asyncio.wait_for(asyncio.gather(*calls), 20)

    assert len(asyncio.run(work())) == 2
    assert endpoint.asked == {f"id_{key}": 3}
    assert [*endpoint.sent] == [key]
