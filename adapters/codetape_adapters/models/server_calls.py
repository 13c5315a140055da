"""A call of a server: tries, waits and deadlines, the same for every API.

The libraries' own retries are off: ours wait as the server asks (Retry-After), stop after a few, and record each.
"""

import asyncio
import ipaddress
import json
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, TypeVar
from urllib.parse import urlsplit

from codetape.domain.model_request import ModelRequest
from codetape.errors import ModelUnavailable
from codetape.ports import Reply, RequestRefused
from codetape_adapters.models.addresses import without_user
from codetape_adapters.models.bounded_http import ReplyTooLarge, ReplyTooSlow, ReplyUnbounded
from codetape_adapters.models.event_streams import StreamBroken, is_stream, whole
from codetape_adapters.models.http_clients import client_of, never_sent
from codetape_adapters.models.provider_errors import ProviderError, provider_error, refusal

CONNECT_SECONDS, READ_SECONDS, CALL_SECONDS = 10.0, 600.0, 600.0
GRACE_SECONDS = 0.5  # the client's read timeout strikes first where no reply began; this ends one that trickles in
TRIES = 5
LOOPBACK_TRIES, LOOPBACK_WAIT = 3, 0.3  # a server of this machine that does not listen: it may be starting
MAX_WAIT_SECONDS = 60.0
MAX_DIGITS = 40  # of an integer in a reply
LOG = logging.getLogger("codetape.models")


T = TypeVar("T")
Send = Callable[[], Awaitable[bytes]]


class BadReply(ValueError):
    """A reply of status 200 that is no answer of the API: another shape, an error in place of an answer."""

    def __init__(self, words: str, error: ProviderError | None = None) -> None:
        super().__init__(words)
        self.error = error


@dataclass(frozen=True)
class Server:
    """Where calls go, how long they may take, and how the server is started where it is one of this machine.

    ``address`` is empty for the provider's own. ``read_seconds`` bounds one try, ``call_seconds`` all of them.
    """

    address: str = ""
    key: str = ""
    plain: bool = False
    start_with: str = ""
    tries: int = TRIES
    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float = READ_SECONDS
    call_seconds: float = CALL_SECONDS
    sleep: Callable[[float], Any] = asyncio.sleep

    @property
    def name(self) -> str:
        """The server, as messages call it."""
        return without_user(self.address) if self.address else "the provider"


class Waits(TypedDict, total=False):
    """How often and how long a server is asked, as options of every model of a server."""

    tries: int
    sleep: Callable[[float], Any]
    connect_seconds: float
    read_seconds: float
    call_seconds: float


async def poster(library: str, server: Server, path: str, body: dict[str, Any], file: bytes | None = None) -> Send:
    """Return what posts a body to a server's path, by a library's client, and returns the reply's.

    With a ``file`` the body is sent as a form of which that is the field "file". The client is there before the first
    try: loading its library takes no time of that.
    """
    client = await _client(library, server)
    form: dict[str, Any] = {}
    if file is not None:
        named = {"file": ("requests.jsonl", file, "application/jsonl")}
        form = {"files": named, "options": {"headers": {"Content-Type": "multipart/form-data"}}}

    async def send() -> bytes:
        content: bytes = await client.post(path, body=body, cast_to=bytes, **form)
        return content

    return send


async def getter(library: str, server: Server, path: str, query: dict[str, Any] | None = None) -> Send:
    """Return what gets a server's path, as `poster` does."""
    client = await _client(library, server)

    async def send() -> bytes:
        content: bytes = await client.get(path, cast_to=bytes, options={"params": query or {}})
        return content

    return send


async def _client(library: str, server: Server) -> Any:
    address = server.address or None
    return await client_of((library, address, server.key, server.connect_seconds, server.read_seconds, server.plain))


@dataclass
class _Tries:
    """Failed tries at one request: what was said of each, and how many of them may have been billed."""

    said: list[str] = field(default_factory=list)
    unanswered: int = 0


async def call(
    server: Server, request: ModelRequest, send: Send, read: Callable[[Any], Reply]
) -> Reply | RequestRefused:
    """Ask until there is an answer. ``send`` returns a reply's body, ``read`` makes a Reply of the decoded body.

    Raises ModelUnavailable where there is none after all tries, or where another try would end the same way.
    """
    tries = _Tries()
    answer = await _tried(server, request, send, lambda body: read(decoded(body)), tries)
    return answer if isinstance(answer, RequestRefused) else _with_tries(answer, tries)


async def ask_server(server: Server, send: Send, read: Callable[[bytes], T]) -> T:
    """Ask a server for something that is no model's answer, as `call` does; ``read`` makes it of a reply's body."""
    answer = await _tried(server, None, send, read, _Tries())
    if isinstance(answer, RequestRefused):
        raise TypeError("only a model's request is refused for its form")
    return answer


async def _tried(
    server: Server, request: ModelRequest | None, send: Send, read: Callable[[bytes], T], tries: "_Tries"
) -> T | RequestRefused:
    loop = asyncio.get_running_loop()
    end = loop.time() + server.call_seconds
    for number in range(1, server.tries + 1):
        seconds = min(server.read_seconds + GRACE_SECONDS, max(0.0, end - loop.time()))
        try:
            async with asyncio.timeout(seconds):
                body = await send()
            answer = read(body)
        except Exception as error:
            failure = _failure(error, server, request)
            if isinstance(failure, RequestRefused):
                return failure
            if failure is None:
                raise
        else:
            return answer
        tries.said.append(failure.said)
        tries.unanswered += failure.maybe_billed
        last = number >= min(server.tries, LOOPBACK_TRIES if failure.refused_here else server.tries)
        wait = LOOPBACK_WAIT if failure.refused_here else _wait(failure, number)
        if last or not failure.passes or loop.time() + wait >= end:
            raise _unavailable(failure, server, tries) from failure.cause
        LOG.warning("try %d of %d: %s; the next in %.1f s", number, server.tries, failure.kind, wait)
        await server.sleep(wait)
    raise AssertionError("the last try returns or raises")


def decoded(body: bytes) -> Any:
    """Return a reply's JSON. Raises BadReply."""
    if not body.strip():
        raise BadReply("The reply is empty.")
    try:
        return whole(body) if is_stream(body) else json.loads(body, parse_int=_whole)
    except StreamBroken as error:
        raise BadReply(str(error)) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadReply(f"The reply is no JSON: {' '.join(_text(body, 200).split())}") from error


def _whole(digits: str) -> int | None:
    """Read an integer; one that is too long to be any count is none."""
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _text(body: bytes, size: int = 2000) -> str:
    return body[:size].decode("utf-8", "replace")


def _with_tries(reply: Reply, tries: _Tries) -> Reply:
    return replace(reply, tries=tuple(tries.said), unanswered=tries.unanswered) if tries.said else reply


# ---- what a failed try was


@dataclass(frozen=True)
class _Failure:
    """One failed try: what to say of it, whether another may succeed, and whether it may be billed."""

    said: str
    kind: str
    passes: bool
    maybe_billed: bool = False
    status: int | None = None
    headers: Any = None
    refused_here: bool = False
    cause: BaseException | None = None
    remedy: str = ""


def _failure(error: Exception, server: Server, request: ModelRequest | None) -> _Failure | RequestRefused | None:
    """Return what a try's error means; a refusal of the request's form; None for an error that is no server's."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _of_status(error, status, request)
    if isinstance(error, BadReply):
        return _of_bad_reply(error, request)
    unbounded = next((e for e in (error, error.__cause__) if isinstance(e, ReplyUnbounded)), None)
    if unbounded is None and isinstance(error, TimeoutError):
        unbounded = ReplyTooSlow()
    if unbounded is not None:
        remedy = "Look at what the server sends, or name another with --base-url."
        if isinstance(unbounded, ReplyTooSlow):
            remedy = "Give it more time with --read-timeout and --call-timeout, or look at what the server sends."
        return _Failure(str(unbounded), type(unbounded).__name__, False, True, cause=unbounded, remedy=remedy)
    if type(error).__name__ in ("APIConnectionError", "APITimeoutError"):
        unsent = never_sent(error.__cause__)
        here = unsent and _is_loopback(server.address) and type(error.__cause__).__name__ == "ConnectError"
        said = f"{type(error).__name__}: {error}"
        return _Failure(said, type(error).__name__, True, not unsent, refused_here=here, cause=error)
    if isinstance(error, ValueError | RecursionError):  # an encoding that does not unpack
        return _Failure(f"{type(error).__name__}: {error}", type(error).__name__, True, True, cause=error)
    return None


def _of_status(error: Any, status: int, request: ModelRequest | None) -> _Failure | RequestRefused:
    response = getattr(error, "response", None)
    said = _provider_words(error, response)
    if request is not None and (refused := refusal(status, said, request)):
        return refused
    return _Failure(
        said=f"{status}: {said.message}" if said.message else f"{status}",
        kind=str(status),
        passes=said.passes(status) and status >= 400,
        maybe_billed=status >= 500,
        status=status,
        headers=getattr(response, "headers", None),
        cause=error,
        remedy=_REMEDIES[402] if said.lasts and status not in (401, 403) else "",
    )


def _provider_words(error: Any, response: Any) -> ProviderError:
    """Return what a body of an error status says; the body as it came where it is no JSON."""
    try:
        body: Any = json.loads(response.text)
    except (ValueError, RecursionError, AttributeError):
        body = getattr(response, "text", "")
    return provider_error(body) or ProviderError(" ".join(str(getattr(response, "text", ""))[:2000].split()))


def _of_bad_reply(error: BadReply, request: ModelRequest | None) -> _Failure | RequestRefused:
    if error.error is None:
        remedy = "Check --base-url: it usually ends in /v1."
        return _Failure(str(error), "BadReply", True, True, cause=error, remedy=remedy)
    if request is not None and (refused := refusal(200, error.error, request)):
        return refused
    inner = error.error.status
    said = f"{inner}: {error.error.message}" if inner else error.error.message
    billed = inner == 0 or inner >= 500
    return _Failure(said, str(inner or "BadReply"), error.error.passes(200), billed, status=inner or None, cause=error)


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _wait(failure: _Failure, number: int) -> float:
    """Return the seconds to wait: what Retry-After says, else doubling from half a second, with jitter."""
    try:
        seconds = float((failure.headers or {}).get("retry-after", ""))
        if math.isfinite(seconds):
            return min(MAX_WAIT_SECONDS, max(0.0, seconds))
    except ValueError:
        pass
    return float(min(MAX_WAIT_SECONDS, 0.5 * 2**number) * (0.5 + random.random() / 2))  # noqa: S311 - jitter


_REMEDIES = {
    401: "Check the key.",
    402: "Check the account's balance; then resume.",
    403: "Check what the key may do.",
    404: "Check the model's name and --base-url.",
    429: "Wait, or raise the account's limit; then resume.",
}


def _unavailable(failure: _Failure, server: Server, tries: _Tries) -> ModelUnavailable:
    line = failure.said.rstrip()
    stop = "" if line.endswith((".", "!", "?")) else "."
    return ModelUnavailable(
        f"{server.name} gave no answer: {line}{stop}",
        remedy=failure.remedy or _remedy(failure, server),
        tries=tuple(tries.said),
        maybe_billed=tries.unanswered > 0,
        unanswered=tries.unanswered,
        status=failure.status,
    )


def _remedy(failure: _Failure, server: Server) -> str:
    status = failure.status
    if failure.refused_here:
        started = f"Start it (`{server.start_with}`)" if server.start_with else "Start the server"
        return f"{started}, or name another with --base-url; then resume."
    if status is None:
        return "Check that the server runs, then resume."
    if 300 <= status < 400:
        return "The server sends its callers elsewhere: name that address with --base-url."
    return _REMEDIES.get(status, "Resume later.")


__all__ = ["BadReply", "ReplyTooLarge", "Server", "Waits", "ask_server", "call", "decoded", "getter", "poster"]
