"""Serves pages to a browser on this machine: loopback alone, a secret in the address, nothing can be changed.

Every address begins with the secret. A request must name this server as its host, and come from its own pages or from
nowhere, so that a page of the internet can neither read what is here nor make the browser fetch it.
"""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from codetape.errors import CodetapeError, SessionNotFound, UsageError
from codetape.inspector.library import Library
from codetape.inspector.rendering import ASSETS, Links, asset, policy, render

HOST = "127.0.0.1"
POLL_SECONDS = 0.4
_KEEP_ALIVE = 40  # polls without news after which the stream says that it is alive
HEADERS = {
    "Content-Security-Policy": policy(True),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass
class PageServer:
    """Pages of a library behind a secret. ``address`` is where they begin."""

    library: Library
    listening: socket.socket
    secret: str
    start: str = "sessions"

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self.listening.getsockname()[1])

    @property
    def address(self) -> str:
        """The address to open first."""
        return f"http://{HOST}:{self.port}/{self.secret}/{self.start}"

    def serve(self) -> None:
        """Serve until the process is interrupted."""
        uvicorn = _web()
        config = uvicorn.Config(
            application(self.library, self.secret, self.port, lambda: bool(server.should_exit)),
            log_level="critical",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        server = uvicorn.Server(config)
        server.run(sockets=[self.listening])


def listen(library: Library, port: int = 0, start: str = "sessions") -> PageServer:
    """Return a server that listens already. Raises UsageError where the port is taken, or the extra is missing."""
    _web()
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"Port {port} cannot be used: {error.strerror}.", remedy="Give another --port, or none."
        ) from error
    return PageServer(library, listening, secrets.token_urlsafe(18), start)


def _web() -> Any:
    """Return the library that serves. Raises UsageError where it, or what answers with it, is not installed."""
    try:
        import starlette  # noqa: F401 - looked for
        import uvicorn
    except ImportError as error:
        raise UsageError(
            "Serving pages needs codetape[view].",
            remedy="Install it, such as by `uv tool install 'codetape[view]'`; `codetape view --export F.html` needs nothing.",
        ) from error
    return uvicorn


def application(library: Library, secret: str, port: int, stopping: Callable[[], bool] = lambda: False) -> Any:
    """Return the pages as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
    from starlette.routing import Route

    base = f"/{secret}"
    links = Links(base)

    def page(make: Callable[[Request], str | None]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                text = make(request)
            except CodetapeError as error:
                code = 404 if isinstance(error, SessionNotFound | UsageError) else 500
                return HTMLResponse(_told(links, error.message, error.remedy), code)
            except Exception as error:  # noqa: BLE001 - a page that fails says so, and the others are still served
                words = f"An error of codetape's own: {type(error).__name__}: {error}"
                return HTMLResponse(_told(links, words, "Please report it."), 500)
            return (
                HTMLResponse(text)
                if text is not None
                else HTMLResponse(_told(links, "There is no such page.", ""), 404)
            )

        return answer

    def file(name: str) -> Callable[[Request], Response]:
        return lambda _request: Response(asset(name), media_type=ASSETS[name])

    async def changes(_request: Request) -> Response:
        return StreamingResponse(_changes(library, stopping), media_type="text/event-stream")

    def begin(_request: Request) -> Response:
        return RedirectResponse(f"{base}/sessions")

    pages: dict[str, Callable[[Request], str | None]] = {
        "/sessions": lambda r: library.sessions(links, dict(r.query_params)),
        "/session/{session}": lambda r: library.session(r.path_params["session"], links),
        "/session/{session}/call/{seq}": lambda r: library.call(r.path_params["session"], r.path_params["seq"], links),
        "/compare": lambda r: library.compared(r.query_params.get("a", ""), r.query_params.get("b", ""), links),
        "/checks": lambda r: library.checks(links),
        "/check/{check}": lambda r: library.check(r.path_params["check"], links),
        "/spend": lambda r: library.spend(links, everything=bool(r.query_params.get("all"))),
    }
    routes = [Route(f"{base}{path}", page(make), methods=["GET"]) for path, make in pages.items()]
    routes += [Route(f"{base}/{name}", file(name), methods=["GET"]) for name in ASSETS]
    routes += [Route(f"{base}/changes", changes, methods=["GET"]), Route(f"{base}/", begin, methods=["GET"])]
    routes += [Route(f"{base}/{{other:path}}", page(lambda _request: None), methods=["GET"])]
    return _guarded(Starlette(routes=routes), secret, port)


def _told(links: Links, words: str, remedy: str) -> str:
    return render("message.html", links, title="codetape", head="", words=words, remedy=remedy)


async def _changes(library: Library, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield an event whenever the store was added to."""
    last, quiet = await asyncio.to_thread(library.store.position), 0
    yield ": watching\n\n"
    while not stopping():
        await asyncio.sleep(POLL_SECONDS)
        try:
            position = await asyncio.to_thread(library.store.position)
        except CodetapeError:
            continue  # the database is away for a moment, as while it is rewritten
        quiet += 1
        if position != last:
            last, quiet = position, 0
            yield f"event: changed\ndata: {position}\n\n"
        elif quiet >= _KEEP_ALIVE:
            quiet = 0
            yield ": still watching\n\n"


def _guarded(app: Any, secret: str, port: int) -> Any:
    """Wrap an application: other hosts, other origins, other secrets and other methods are refused before it."""
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    origins = {f"http://{host}" for host in hosts}

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        sent = {name: value.decode("latin-1") for name, value in scope["headers"]}
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        known = secrets.compare_digest(first.encode("utf-8", "replace"), secret.encode())
        if sent.get(b"host", "") not in hosts or sent.get(b"origin", next(iter(origins))) not in origins:
            await _refuse(send, 421 if sent.get(b"host", "") not in hosts else 403)
        elif not known:
            await _refuse(send, 404)
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 405)
        else:
            await app(scope, receive, _with_headers(send))

    return guard


def _with_headers(send: Any) -> Any:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


async def _refuse(send: Any, status: int) -> None:
    headers = [(b"content-type", b"text/plain"), *((n.lower().encode(), v.encode()) for n, v in HEADERS.items())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"Not here.\n"})
