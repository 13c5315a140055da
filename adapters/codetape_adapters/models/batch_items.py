"""What batch endpoints have in common: files of a JSON object a line, names that go into addresses, items that failed."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from codetape.domain.model_request import ModelRequest
from codetape.ports import ItemFailed, Reply, RequestRefused
from codetape_adapters.models.bounded_http import MAX_BYTES, MOST_BYTES
from codetape_adapters.models.provider_errors import ProviderError, provider_error, refusal
from codetape_adapters.models.server_calls import BadReply, decoded

MAX_FILE = 256 << 20  # bytes of a file of answers
MAX_LISTED = 20  # pages of batches that are looked through
_CLOCKS = timedelta(minutes=10)  # by which this machine's and the provider's may differ
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def named(value: Any) -> str:
    """Return a name that a server gave, which becomes part of an address. Raises BadReply for what is none."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadReply("The server answered, but not with the name of a batch or a file.")
    return value


def object_of(body: bytes) -> dict[str, Any]:
    """Return the object that a reply's body holds. Raises BadReply for an error in its place, or none."""
    value = decoded(body)
    if not isinstance(value, dict) or value.get("type") == "error" or (value.get("error") and "id" not in value):
        raise BadReply("The server answered, but not with a batch.", provider_error(value))
    return value


def listed(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the batches on a page of them."""
    found = page.get("data")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def earliest(since: str) -> datetime | None:
    """Return when a batch that was sent since then may have been made by the provider's clock; None for any time."""
    return datetime.fromisoformat(since.replace("Z", "+00:00")) - _CLOCKS if since else None


def count(value: Any) -> int:
    """Return a number that a server counted; 0 where it is none."""
    return value if type(value) is int and 0 <= value < 2**53 else 0


@contextmanager
def long_replies() -> Iterator[None]:
    """Let replies be as long as a file of many answers may be."""
    token = MOST_BYTES.set(MAX_FILE)
    try:
        yield
    finally:
        MOST_BYTES.reset(token)


def lines(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file; lines that hold none, or are longer than a reply may be, are left out."""
    for line in body.splitlines():
        if not line.strip() or len(line) > MAX_BYTES:
            continue
        try:
            value = decoded(line)
        except BadReply:
            continue
        if isinstance(value, dict):
            yield value


def file_of(items: Iterable[dict[str, Any]]) -> bytes:
    """Return objects as a file, one a line."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def item_answered(
    body: Any, request: ModelRequest, read: Callable[[Any, ModelRequest], Reply]
) -> Reply | RequestRefused | ItemFailed:
    """Return what an item's body of status 200 says."""
    try:
        return read(body, request)
    except BadReply as error:
        if error.error is not None:
            return item_failed(200, error.error, request)
        return ItemFailed(str(error), again=True, maybe_billed=True)


def item_failed(status: int, body: Any, request: ModelRequest) -> RequestRefused | ItemFailed:
    """Return what an item's error says: a refusal of the request's form, or why there is no answer."""
    error = body if isinstance(body, ProviderError) else provider_error(body) or ProviderError(f"status {status}")
    if refused := refusal(status, error, request):
        return refused
    words = f"{status}: {error.message}" if status >= 400 else error.message
    return ItemFailed(words or "the provider says nothing", error.passes(status), status >= 500 or status < 400)
