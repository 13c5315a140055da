"""Anthropic's Message Batches: requests are sent together, and their results fetched when the batch has ended.

A batch there bears no name of ours: it is found by the names of its results, which can be read when it has ended.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from codetape.domain.model_request import ModelRequest
from codetape.ports import BatchEndpoint, BatchState, ItemFailed, Reply, RequestRefused
from codetape_adapters.models.batch_items import (
    MAX_LISTED,
    count,
    earliest,
    item_answered,
    item_failed,
    lines,
    listed,
    long_replies,
    named,
    object_of,
)
from codetape_adapters.models.server_calls import Server, ask_server, getter, poster

_PATH = "/v1/messages/batches"
_NO_ANSWER = {
    "expired": ItemFailed("Its time was over before it was answered.", again=True),
    "canceled": ItemFailed("The batch was cancelled."),
}


class AnthropicBatches(BatchEndpoint):
    """The batches of one server. ``form`` makes a request's body, ``read`` reads a message."""

    price_share = "0.5"

    def __init__(
        self,
        server: Server,
        form: Callable[[ModelRequest], dict[str, Any]],
        read: Callable[[Any, ModelRequest], Reply],
    ) -> None:
        self._server, self._form, self._read = server, form, read

    async def send(self, key: str, requests: Mapping[str, ModelRequest]) -> str:
        """Send the requests."""
        body = {"requests": [{"custom_id": name, "params": self._form(asked)} for name, asked in requests.items()]}
        make = await poster("anthropic", self._server, _PATH, body)
        once = replace(self._server, tries=1)  # another try might make another batch
        return await ask_server(once, make, lambda body: named(object_of(body).get("id")))

    async def find(self, key: str, since: str) -> str | None:
        """Look through the results of the batches made since then; one that has not ended leaves it open."""
        first = earliest(since)
        after: dict[str, Any] = {}
        open_ones = False
        for _ in range(MAX_LISTED):
            page = await self._get(_PATH, {"limit": 100, **after})
            batches = listed(page)
            for batch in batches:
                if first is not None and _time(batch.get("created_at")) < first:
                    return None if open_ones else ""
                if batch.get("processing_status") != "ended":
                    open_ones = True
                elif any(str(item.get("custom_id")).startswith(f"{key}-") for item in await self._results(batch)):
                    return named(batch.get("id"))
            if not batches or page.get("has_more") is not True:
                break
            after = {"after_id": named(batches[-1].get("id"))}
        return None if open_ones else ""

    async def state(self, batch_id: str) -> BatchState:
        """Say how far a batch is."""
        batch = await self._get(f"{_PATH}/{named(batch_id)}")
        counts = counts if isinstance(counts := batch.get("request_counts"), dict) else {}
        total = sum(map(count, counts.values()))
        return BatchState(batch.get("processing_status") == "ended", total - count(counts.get("processing")), total)

    async def replies(
        self, batch_id: str, requests: Mapping[str, ModelRequest]
    ) -> Mapping[str, Reply | RequestRefused | ItemFailed]:
        """Fetch the results, and read them."""
        return {
            name: self._item(item.get("result"), requests[name])
            for item in await self._results({"id": batch_id})
            if isinstance(name := item.get("custom_id"), str) and name in requests
        }

    def _item(self, result: Any, request: ModelRequest) -> Reply | RequestRefused | ItemFailed:
        kind = result.get("type") if isinstance(result, dict) else None
        if kind == "succeeded":
            return item_answered(result.get("message"), request, self._read)
        if kind in _NO_ANSWER:
            return _NO_ANSWER[kind]
        error = result.get("error") if isinstance(result, dict) else None
        inner = error.get("error", error) if isinstance(error, dict) else error
        status = 400 if isinstance(inner, dict) and inner.get("type") == "invalid_request_error" else 0
        return item_failed(status, {"error": inner}, request)

    async def _results(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        # by our own path: an address that a reply names is not followed
        get = await getter("anthropic", self._server, f"{_PATH}/{named(batch.get('id'))}/results")
        with long_replies():
            return await ask_server(self._server, get, lambda body: [*lines(body)])

    async def _get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        get = await getter("anthropic", self._server, path, query)
        return await ask_server(self._server, get, object_of)


def _time(value: Any) -> datetime:
    """Return a time that the provider names; the latest one for what is none, so that nothing is passed over."""
    try:
        read = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return read if read.tzinfo else read.replace(tzinfo=UTC)
