"""Chat completions: a request in the API's form, and its reply, whatever shape the server gives it."""

import json
from collections.abc import Iterable
from typing import Any

from codetape.domain.model_request import LENGTH_PARAMETER, ModelRequest
from codetape.ports import Reply
from codetape_adapters.models.provider_errors import provider_error
from codetape_adapters.models.provider_usage import usage
from codetape_adapters.models.server_calls import BadReply

_NOT_ANSWERS = frozenset({"thinking", "reasoning", "reasoning_content", "thought", "redacted_thinking"})


def chat_request(name: str, request: ModelRequest) -> dict[str, Any]:
    """Return the body of a request; the fields of the API and those of ``parameters`` together."""
    body: dict[str, Any] = {
        "model": name,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "max_tokens" if request.older_limit else LENGTH_PARAMETER: request.max_output_tokens,
    }
    if request.json_mode:
        body["response_format"] = {"type": "json_object"}
    if request.reply_schema is not None:
        schema = {"name": request.purpose, "schema": request.reply_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**request.parameters, **body}


def chat_reply(body: Any, request: ModelRequest) -> Reply:
    """Read the decoded body of a reply. Raises BadReply where it holds no answer, with the provider's words."""
    if not isinstance(body, dict):
        raise BadReply("The server answered, but not with a chat completion.", provider_error(body))
    choice = _first_choice(body)
    if choice is None:
        raise BadReply("The server answered, but not with a chat completion.", provider_error(body))
    message = choice.get("message", choice)
    if not isinstance(message, dict):
        raise BadReply("The answer's message is no object.")
    content = message.get("content", message.get("text"))
    if not isinstance(content, str | list) and content is not None:
        raise BadReply("The answer's content is no text.")
    text, thoughts = parts(content)
    given = next((message[key] for key in ("reasoning_content", "reasoning", "thinking") if message.get(key)), None)
    detailed = message.get("reasoning_details")
    reasoning = "\n".join(part for part in (said(given), thoughts) if part) or said(detailed)
    raw = body.get("usage")
    refusal = message.get("refusal")
    return Reply(
        text=text,
        reasoning=reasoning,
        refusal=refusal if isinstance(refusal, str) else "",
        finish_reason=_text(choice.get("finish_reason")) or "stop",
        model=_text(body.get("model")),
        fingerprint=_text(body.get("system_fingerprint")),
        usage=usage(raw, request, (text or "") + reasoning),
        usage_raw=json.dumps(raw, sort_keys=True) if isinstance(raw, dict) and raw else "",
    )


def _first_choice(body: dict[str, Any]) -> dict[str, Any] | None:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or not {"message", "text"} & first.keys():
        return None
    return first


def parts(content: str | list[Any] | None) -> tuple[str | None, str]:
    """Return the text of a content that may be a list of parts, and the thoughts among them."""
    if not isinstance(content, list):
        return content, ""
    answer = [said(part) for part in content if not _is_thought(part)]
    thoughts = [said(part) for part in content if _is_thought(part)]
    return "".join(answer) if answer else None, "\n".join(filter(None, thoughts))


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _NOT_ANSWERS


def said(value: Any, depth: int = 0) -> str:
    """Return the text in a part, or in parts of parts: servers nest it under several names."""
    if isinstance(value, str):
        return value
    if depth > 4:
        return ""
    if isinstance(value, dict):
        keys: Iterable[str] = ("text", "content", "thinking", "reasoning", "summary")
        return next((text for key in keys if (text := said(value.get(key), depth + 1))), "")
    if isinstance(value, list):
        return "".join(said(part, depth + 1) for part in value)
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
