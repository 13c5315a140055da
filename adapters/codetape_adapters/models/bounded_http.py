"""Limits on a server's reply while it is read, whatever its encoding, and on the headers of a request.

Both are hooks of the HTTP client, so that a body is counted before anything is made of it.
"""

import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

from codetape.ports import RECEIVING

MAX_BYTES = 16 << 20  # of a reply, decoded; no script is that long
MOST_BYTES: ContextVar[int] = ContextVar("most_bytes", default=MAX_BYTES)
"""The bound on a reply that is asked for now: a file of many answers may be longer than one of them."""
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_PLAIN_HEADERS = frozenset(
    {"host", "connection", "user-agent", "accept", "content-type", "content-length", "content-encoding"}
)


class ReplyUnbounded(Exception):
    """A reply that began and would not end: another try would end the same way."""


class ReplyTooLarge(ReplyUnbounded):
    """The reply is larger than any may be, or in an encoding whose size cannot be bounded."""


class ReplyTooSlow(ReplyUnbounded):
    """The reply was not complete when its time was over."""

    def __init__(self) -> None:
        super().__init__("the reply broke off: it was begun, and not whole in the time for it (--read-timeout)")


async def only_plain_headers(request: Any) -> None:
    """Remove from a request what the environment would add: keys, an organisation, custom headers."""
    for name in list(request.headers):
        if name.lower() not in _PLAIN_HEADERS:
            del request.headers[name]


async def ask_for_plain(request: Any) -> None:
    """Ask for encodings whose size can be bounded while they are read."""
    request.headers["accept-encoding"] = "gzip, deflate"


async def bounded(response: Any) -> None:
    """Put a bound on a response's body; it is decoded here, and no longer by the client."""
    encodings = [word.strip().lower() for word in response.headers.get("content-encoding", "").split(",")]
    applied = [word for word in encodings if word not in ("", "identity")]
    if len(applied) > 1 or any(word not in _WINDOW for word in applied):
        raise ReplyTooLarge(f"The reply is encoded as {', '.join(applied)[:80]}, whose size cannot be bounded.")
    if applied:
        del response.headers["content-encoding"]
    unpack = _unpacker(applied[0]) if applied else None
    # The client library has used more than one HTTP library: the stream's class must come from the response's.
    library = sys.modules[type(response).__module__.partition(".")[0]]
    response.stream = _stream(library)(response.stream, unpack)


def _stream(library: Any) -> type:
    """Return the class of a bounded stream, of the HTTP library in use."""

    class Bounded(library.AsyncByteStream):  # type: ignore[misc]  # its base is known when a response comes
        def __init__(self, stream: Any, unpack: Callable[[bytes], bytes] | None) -> None:
            self._inner, self._unpack = stream, unpack

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size, most, tell = 0, MOST_BYTES.get(), RECEIVING.get()
            try:
                async for raw in self._inner:
                    data = self._unpack(raw) if self._unpack else raw
                    size += len(data)
                    tell(size)
                    if size > most:
                        raise ReplyTooLarge(f"The reply is larger than {most >> 20} MB.")
                    if data:
                        yield data
            except library.TimeoutException as error:
                raise ReplyTooSlow from error

        async def aclose(self) -> None:
            await self._inner.aclose()

    return Bounded


def _unpacker(encoding: str) -> Callable[[bytes], bytes]:
    """Return a function that unpacks a body part by part, never to more than a reply may hold."""
    packed = zlib.decompressobj(_WINDOW[encoding])

    def unpack(raw: bytes) -> bytes:
        try:
            return packed.decompress(raw, MOST_BYTES.get() + 1)
        except zlib.error as error:
            raise ValueError("the reply's encoding is broken") from error

    return unpack
