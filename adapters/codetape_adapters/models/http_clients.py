"""One client of a server for as long as an event loop lasts: making a client takes longer than a call of it."""

import asyncio
import importlib
import sys
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

from codetape_adapters.models.bounded_http import ask_for_plain, bounded, only_plain_headers

Server = tuple[str, str | None, str, float, float, bool]
"""Library, address, key, seconds to connect and to read, and whether nothing of the environment may go along."""
_CLIENTS = {"openai": "AsyncOpenAI", "anthropic": "AsyncAnthropic"}

_open: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Server, tuple[AsyncGenerator[Any], Any]]] = WeakKeyDictionary()


async def client_of(server: Server) -> Any:
    """Return the running loop's client of a server, made at the first call.

    It is held by an asynchronous generator, which the loop closes when it shuts down: nothing else has to.
    """
    clients = _open.setdefault(asyncio.get_running_loop(), {})
    if server not in clients:
        generator = _client_lifetime(server)
        clients[server] = (generator, await anext(generator))
    return clients[server][1]


async def _client_lifetime(server: Server) -> AsyncGenerator[Any]:
    name, address, key, connect, read, plain = server
    library = importlib.import_module(name)
    timeout = library.Timeout(read, connect=connect)
    hooks: dict[str, list[Any]] = {
        "request": [*([only_plain_headers] if plain else []), ask_for_plain],
        "response": [bounded],
    }
    # No redirects: a prompt goes to the server that was named, and to no other.
    http = library.DefaultAsyncHttpxClient(event_hooks=hooks, timeout=timeout, follow_redirects=False)
    async with getattr(library, _CLIENTS[name])(
        api_key=key, base_url=address, max_retries=0, timeout=timeout, http_client=http
    ) as client:
        yield client


def never_sent(error: BaseException | None) -> bool:
    """Whether an error of the HTTP client says that no connection was made: the request never reached the server."""
    library = sys.modules.get(type(error).__module__.partition(".")[0])
    kinds = tuple(
        kind for name in ("ConnectError", "ConnectTimeout", "PoolTimeout") if (kind := getattr(library, name, None))
    )
    return bool(kinds) and isinstance(error, kinds)
