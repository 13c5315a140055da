"""OpenAI's batch endpoint: a file of requests is sent, a batch made of it, and files of answers are fetched.

A batch bears its key as metadata, by which it is found among the account's batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from codetape.domain.model_request import ModelRequest
from codetape.errors import ModelUnavailable
from codetape.ports import BatchEndpoint, BatchState, ItemFailed, Reply, RequestRefused
from codetape_adapters.models.batch_items import (
    MAX_LISTED,
    count,
    earliest,
    file_of,
    item_answered,
    item_failed,
    lines,
    listed,
    long_replies,
    named,
    object_of,
)
from codetape_adapters.models.provider_errors import provider_error
from codetape_adapters.models.server_calls import Server, ask_server, getter, poster

_KEY = "codetape"
_ENDED = frozenset({"completed", "expired", "cancelled"})
_EXPIRED = frozenset({"batch_expired"})
_CANCELLED = frozenset({"batch_cancelled"})


class OpenAIBatches(BatchEndpoint):
    """The batches of one server. ``path`` and ``form`` are the API's that answers, ``read`` reads its replies."""

    price_share = "0.5"

    def __init__(
        self,
        server: Server,
        path: str,
        form: Callable[[ModelRequest], dict[str, Any]],
        read: Callable[[Any, ModelRequest], Reply],
    ) -> None:
        self._server, self._path, self._form, self._read = server, path, form, read

    async def send(self, key: str, requests: Mapping[str, ModelRequest]) -> str:
        """Send the requests as a file, and have a batch made of it."""
        items = [
            {"custom_id": name, "method": "POST", "url": f"/v1{self._path}", "body": self._form(request)}
            for name, request in requests.items()
        ]
        try:
            upload = await poster("openai", self._server, "/files", {"purpose": "batch"}, file_of(items))
            file = await ask_server(self._server, upload, lambda body: named(object_of(body).get("id")))
        except ModelUnavailable as error:  # a file alone costs nothing
            error.maybe_billed, error.unanswered = False, 0
            raise
        body = {
            "input_file_id": file,
            "endpoint": f"/v1{self._path}",
            "completion_window": "24h",
            "metadata": {_KEY: key},
        }
        make = await poster("openai", self._server, "/batches", body)
        one_try = _once(self._server)  # another one might make another batch
        return await ask_server(one_try, make, lambda body: named(object_of(body).get("id")))

    async def find(self, key: str, since: str) -> str | None:
        """Look the key up among the batches, newest first."""
        first = earliest(since)
        after: dict[str, Any] = {}
        for _ in range(MAX_LISTED):
            page = await self._get("/batches", {"limit": 100, **after})
            batches = listed(page)
            for batch in batches:
                metadata = batch.get("metadata")
                if isinstance(metadata, dict) and metadata.get(_KEY) == key:
                    return named(batch.get("id"))
            if (
                not batches
                or page.get("has_more") is not True
                or (first is not None and count(batches[-1].get("created_at")) < first.timestamp())
            ):
                return ""
            after = {"after": named(batches[-1].get("id"))}
        return ""

    async def state(self, batch_id: str) -> BatchState:
        """Say how far a batch is."""
        batch = await self._get(f"/batches/{named(batch_id)}")
        counts = counts if isinstance(counts := batch.get("request_counts"), dict) else {}
        answered = count(counts.get("completed")) + count(counts.get("failed"))
        failed = ""
        if batch.get("status") == "failed":
            told = errors.get("data") if isinstance(errors := batch.get("errors"), dict) else None
            said = provider_error({"error": told}) if told else None
            failed = said.message if said and said.message else "it failed"
        ended = bool(failed) or batch.get("status") in _ENDED
        return BatchState(ended, answered, count(counts.get("total")), failed)

    async def replies(
        self, batch_id: str, requests: Mapping[str, ModelRequest]
    ) -> Mapping[str, Reply | RequestRefused | ItemFailed]:
        """Fetch the files of answers and of errors, and read them."""
        batch = await self._get(f"/batches/{named(batch_id)}")
        found: dict[str, Reply | RequestRefused | ItemFailed] = {}
        for field in ("error_file_id", "output_file_id"):
            if not batch.get(field):
                continue
            get = await getter("openai", self._server, f"/files/{named(batch[field])}/content")
            with long_replies():
                body = await ask_server(self._server, get, lambda body: body)
            for item in lines(body):
                name = item.get("custom_id")
                if isinstance(name, str) and name in requests:
                    found[name] = self._item(item, requests[name])
        if batch.get("status") == "cancelled":
            stopped = ItemFailed("The batch was cancelled.")
            return {name: found.get(name, stopped) for name in requests}
        return found

    def _item(self, item: dict[str, Any], request: ModelRequest) -> Reply | RequestRefused | ItemFailed:
        response, error = item.get("response"), item.get("error")
        if isinstance(response, dict):
            status = count(response.get("status_code"))
            if status == 200:
                return item_answered(response.get("body"), request, self._read)
            return item_failed(status, response.get("body"), request)
        code = str(error.get("code") or "") if isinstance(error, dict) else ""
        if code in _EXPIRED | _CANCELLED:
            words = "Its time was over before it was answered." if code in _EXPIRED else "The batch was cancelled."
            return ItemFailed(words, again=code in _EXPIRED)
        return item_failed(0, {"error": error}, request)

    async def _get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        get = await getter("openai", self._server, path, query)
        return await ask_server(self._server, get, object_of)


def _once(server: Server) -> Server:
    return replace(server, tries=1)
