"""Anthropic's Messages API, by its official library (extra `codetape[anthropic]`).

The form of a reply is asked for as a tool that must be called; prompts are cached up to the end of the first message.
"""

import importlib.util
import json
import os
from typing import Any, Unpack

from codetape.domain.model_request import ModelRequest
from codetape.errors import UsageError
from codetape.ports import Billing, Model, Reply, RequestRefused
from codetape_adapters.models.addresses import library_version, refuse_secrets, without_user
from codetape_adapters.models.anthropic_batches import AnthropicBatches
from codetape_adapters.models.provider_errors import provider_error
from codetape_adapters.models.provider_usage import usage
from codetape_adapters.models.server_calls import BadReply, Server, Waits, call, poster

DEFAULT_KEY = "ANTHROPIC_API_KEY"
_CACHED = {"cache_control": {"type": "ephemeral"}}
_LENGTH = frozenset({"max_tokens", "model_context_window_exceeded"})


class AnthropicModel(Model):
    """One of Anthropic's models, at their server or at one that speaks their API."""

    api = "messages"

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = None,
        api: str = "messages",
        stream: bool | None = None,
        **waits: Unpack[Waits],
    ) -> None:
        if importlib.util.find_spec("anthropic") is None:
            raise UsageError(
                "anthropic: needs Anthropic's library, which is not installed.",
                remedy="Install codetape[anthropic].",
            )
        if api != self.api:
            raise UsageError(f"anthropic: speaks the API {self.api}, not {api[:40]!r}.")
        self.name = f"anthropic:{name}"
        self._name = name
        address = base_url or os.environ.get("ANTHROPIC_BASE_URL") or ""
        refuse_secrets(address)
        self.server = without_user(address)
        self.adapter = f"anthropic {library_version('anthropic')}"
        self.billing = Billing(address=self.server) if address else Billing("anthropic")
        self._streams = not address if stream is None else stream
        variable = api_key_env or DEFAULT_KEY
        key = os.environ.get(variable, "")
        if not key and not address:
            raise UsageError(f"No key: the environment has no {variable}.", remedy="Set it, or name a server.")
        self._server = Server(
            address=address,
            key=key or "none",
            **waits,
        )
        self.batches = AnthropicBatches(self._server, lambda request: message_request(name, request), message_reply)

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Ask once, and again after faults that pass. Raises ModelUnavailable when it gives up."""
        body = message_request(self._name, request) | ({"stream": True} if self._streams else {})

        send = await poster("anthropic", self._server, "/v1/messages", body)
        return await call(self._server, request, send, lambda decoded: message_reply(decoded, request))


def message_request(name: str, request: ModelRequest) -> dict[str, Any]:
    """Return the body of a request: instructions apart from messages, the form of the reply as a tool."""
    system = [m.content for m in request.messages if m.role == "system"]
    turns: list[dict[str, Any]] = [
        {"role": m.role, "content": [{"type": "text", "text": m.content}]}
        for m in request.messages
        if m.role != "system"
    ]
    if turns:  # what follows, a repair or another reading of the same task, begins with the same words
        turns[0]["content"][-1] |= _CACHED
    body: dict[str, Any] = {"model": name, "max_tokens": request.max_output_tokens, "messages": turns}
    if system:
        body["system"] = [{"type": "text", "text": "\n\n".join(system), **_CACHED}]
    if request.reply_schema is not None:
        tool = {"name": request.purpose, "description": "Give the answer.", "input_schema": request.reply_schema}
        thinks = "thinking" in request.parameters  # a model that thinks cannot be made to call a tool
        body |= {
            "tools": [tool],
            "tool_choice": {"type": "auto"} if thinks else {"type": "tool", "name": request.purpose},
        }
    return {**request.parameters, **body}


def message_reply(body: Any, request: ModelRequest) -> Reply:
    """Read the decoded body of a reply. Raises BadReply where it holds no message."""
    content = body.get("content") if isinstance(body, dict) else None
    if not isinstance(content, list):
        raise BadReply("The server answered, but not with a message.", provider_error(body))
    blocks = [block for block in content if isinstance(block, dict)]
    texts = [t for b in blocks if b.get("type") == "text" and isinstance(t := b.get("text"), str)]
    thoughts = [t for b in blocks if b.get("type") == "thinking" and isinstance(t := b.get("thinking"), str)]
    forms = [json.dumps(b["input"]) for b in blocks if b.get("type") == "tool_use" and isinstance(b.get("input"), dict)]
    text = forms[0] if forms else "".join(texts) if texts else None
    stop, raw = body.get("stop_reason"), body.get("usage")
    return Reply(
        text=text,
        reasoning="\n".join(thoughts),
        refusal="The model declined to answer." if stop == "refusal" else "",
        finish_reason="length" if stop in _LENGTH else "stop",
        model=model if isinstance(model := body.get("model"), str) else "",
        usage=usage(raw, request, (text or "") + "".join(thoughts), cache_beside=True),
        usage_raw=json.dumps(raw, sort_keys=True) if isinstance(raw, dict) and raw else "",
    )


def create(name: str, **options: Any) -> AnthropicModel:
    """Make the model of that name."""
    return AnthropicModel(name, **options)
