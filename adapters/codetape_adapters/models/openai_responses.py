"""OpenAI's Responses API: a request in its form, and its reply."""

import json
from typing import Any

from codetape.domain.model_request import ModelRequest
from codetape.ports import Reply
from codetape_adapters.models.chat_completions import said
from codetape_adapters.models.provider_errors import provider_error
from codetape_adapters.models.provider_usage import usage
from codetape_adapters.models.server_calls import BadReply


def response_request(name: str, request: ModelRequest) -> dict[str, Any]:
    """Return the body of a request. Nothing is stored at the provider: the tape holds it."""
    given = dict(request.parameters)
    effort, verbosity = given.pop("reasoning_effort", None), given.pop("verbosity", None)
    body: dict[str, Any] = {
        "model": name,
        "input": [{"role": m.role, "content": m.content} for m in request.messages],
        "max_output_tokens": request.max_output_tokens,
        "store": False,
    }
    text: dict[str, Any] = {} if verbosity is None else {"verbosity": verbosity}
    if request.json_mode:
        text["format"] = {"type": "json_object"}
    if request.reply_schema is not None:
        text["format"] = {
            "type": "json_schema",
            "name": request.purpose,
            "schema": request.reply_schema,
            "strict": True,
        }
    if text:
        body["text"] = text
    if effort is not None:
        body["reasoning"] = {"effort": effort}
    return {**given, **body}


def response_reply(body: Any, request: ModelRequest) -> Reply:
    """Read the decoded body of a reply. Raises BadReply where it holds no response, or one that failed."""
    output = body.get("output") if isinstance(body, dict) else None
    if not isinstance(output, list) or body.get("status") == "failed":
        raise BadReply("The server answered, but not with a response.", provider_error(body))
    items = [item for item in output if isinstance(item, dict)]
    parts = [p for i in items if i.get("type") == "message" for p in _parts(i.get("content"))]
    texts = [t for p in parts if p.get("type") in ("output_text", "text") and isinstance(t := p.get("text"), str)]
    refusals = [t for p in parts if p.get("type") == "refusal" and isinstance(t := p.get("refusal"), str)]
    thoughts = [
        t for i in items if i.get("type") == "reasoning" and (t := said(i.get("summary")) or said(i.get("content")))
    ]
    details, raw = body.get("incomplete_details"), body.get("usage")
    why = details.get("reason") if isinstance(details, dict) else ""
    cut = {"max_output_tokens": "length", "content_filter": "content_filter"}.get(str(why), "length")
    text = "".join(texts) if texts else None
    return Reply(
        text=text,
        reasoning="\n".join(thoughts),
        refusal=refusals[0] if refusals else "",
        finish_reason=cut if body.get("status") == "incomplete" else "stop",
        model=model if isinstance(model := body.get("model"), str) else "",
        usage=usage(raw, request, (text or "") + "".join(thoughts)),
        usage_raw=json.dumps(raw, sort_keys=True) if isinstance(raw, dict) and raw else "",
    )


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "output_text", "text": content}]
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
