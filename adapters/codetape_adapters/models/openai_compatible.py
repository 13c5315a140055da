"""OpenAI by its Responses API, and any compatible server by chat completions or responses, as it is told."""

import os
from collections.abc import Callable
from typing import Any, Unpack
from urllib.parse import urlsplit

from codetape.domain.model_request import ModelRequest
from codetape.errors import UsageError
from codetape.ports import Billing, Model, Reply, RequestRefused
from codetape_adapters.models.addresses import library_version, refuse_secrets, without_user
from codetape_adapters.models.chat_completions import chat_reply, chat_request
from codetape_adapters.models.openai_batches import OpenAIBatches
from codetape_adapters.models.openai_responses import response_reply, response_request
from codetape_adapters.models.server_calls import Server, Waits, call, poster

DEFAULT_KEY = "OPENAI_API_KEY"
Form = Callable[[str, ModelRequest], dict[str, Any]]
Read = Callable[[Any, ModelRequest], Reply]
APIS: dict[str, tuple[str, Form, Read]] = {
    "responses": ("/responses", response_request, response_reply),
    "chat": ("/chat/completions", chat_request, chat_reply),
}
"""APIs by name: where a request goes, its form, and how a reply is read."""
_NO_KEY = "none"  # local servers want no key, but the library requires some text


class OpenAIModel(Model):
    """One model of one server. A client is kept for as long as a loop lasts, and nothing else between calls.

    A ``local`` server gets no key, and nothing else of the environment, unless ``api_key_env`` names one for it;
    ``start_with`` is the usual command that starts it. ``api`` is "chat" or "responses"; without it responses are asked
    of OpenAI itself, and chat completions, which all have, of other servers. ``stream`` has replies sent while they
    are made; without it OpenAI itself does so, and others do not.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = None,
        kind: str = "openai",
        api: str = "",
        stream: bool | None = None,
        local: bool = False,
        start_with: str = "",
        **waits: Unpack[Waits],
    ) -> None:
        self.name = f"{kind}:{name}"
        self._name = name
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        provider = "openai" if kind == "openai" else ""
        self.billing = Billing(provider) if self._base_url is None else Billing(address=self._billed(kind))
        refuse_secrets(self._base_url or "")
        self.server = without_user(self._base_url or "")
        self.api = self._spoken(api)
        self._streams = self._base_url is None if stream is None else stream
        self.adapter = f"openai {library_version('openai')}"
        plain = local and not api_key_env
        variable = api_key_env or DEFAULT_KEY
        key = "" if plain else os.environ.get(variable, "")
        if self._base_url is not None and urlsplit(self._base_url).scheme not in ("http", "https"):
            raise UsageError(
                f"{without_user(self._base_url)!r} is no address of a server.",
                remedy="Begin it with http:// or https://.",
            )
        if not key and self._base_url is None:
            raise UsageError(
                f"No key: the environment has no {variable}.",
                remedy="Set it, name a local server with --base-url, or try `codetape demo`, which needs neither.",
            )
        self._server = Server(
            address=self._base_url or "",
            key=key or _NO_KEY,
            plain=plain,
            start_with=start_with,
            **waits,
        )
        path, form, read = APIS[self.api]
        self.batches = None if local else OpenAIBatches(self._server, path, lambda request: form(name, request), read)

    def _spoken(self, api: str) -> str:
        if api not in ("", *APIS):
            raise UsageError(f"{api[:40]!r} is no API that is spoken here.", remedy=f"Known are: {', '.join(APIS)}.")
        return api or ("responses" if self._base_url is None else "chat")

    def _billed(self, kind: str) -> str:
        """Return the address by which a price list may know the provider; a local server bills nobody."""
        return without_user(self._base_url or "") if kind == "openai" else ""

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Ask once, and again after faults that pass. Raises ModelUnavailable when it gives up."""
        path, form, read = APIS[self.api]
        body = form(self._name, request)
        if self._streams:
            body |= {"stream": True, **({"stream_options": {"include_usage": True}} if self.api == "chat" else {})}

        send = await poster("openai", self._server, path, body)
        return await call(self._server, request, send, lambda decoded: read(decoded, request))


def create(name: str, **options: Any) -> OpenAIModel:
    """Make the model of that name."""
    return OpenAIModel(name, **options)
