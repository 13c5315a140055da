"""A reply that came as server-sent events, put together to the body that it would have been in one piece.

Some servers and proxies stream whatever they were asked for.
"""

import json
from typing import Any

MAX_EVENTS = 1_000_000


def is_stream(body: bytes) -> bool:
    """Whether a body is a stream of events."""
    return body.lstrip()[:6].lower().startswith((b"data:", b"event:", b": ", b":\n"))


def whole(body: bytes) -> Any:
    """Return the body that the events of a stream make. Raises ValueError where an event is no JSON."""
    made: Any = None
    for event in _events(body):
        if isinstance(event, dict) and isinstance(event.get("response"), dict) and event["response"].get("output"):
            return event["response"]  # the last event of a response holds all of it
        made = _with(made, event)
    return made


def _events(body: bytes) -> list[Any]:
    events, data = list[Any](), list[str]()
    for line in [*body.decode("utf-8", "replace").splitlines(), ""][:MAX_EVENTS]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line.strip() and data:
            text = "\n".join(data)
            data.clear()
            if text.strip() != "[DONE]":
                events.append(json.loads(text))
    return events


def _with(made: Any, event: Any) -> Any:
    """Return what was made so far with one more event: a chunk of a chat completion, or an event of a message."""
    if not isinstance(event, dict):
        return made
    kind = event.get("type")
    if kind == "message_start" and isinstance(event.get("message"), dict):
        return {**event["message"], "content": []}
    if made is not None and isinstance(made.get("content"), list):
        return _message(made, kind, event)
    choices = event.get("choices")
    delta = choices[0].get("delta") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if made is None:
        made = {**event, "choices": [{**choices[0], "message": {}}] if isinstance(delta, dict) else choices}  # type: ignore[index]
    if isinstance(delta, dict):
        message, choice = made["choices"][0]["message"], choices[0]  # type: ignore[index]
        for key, value in delta.items():
            old = message.get(key)
            message[key] = old + value if isinstance(old, str) and isinstance(value, str) and key != "role" else value
        made["choices"][0]["finish_reason"] = choice.get("finish_reason") or made["choices"][0].get("finish_reason")
    if event.get("usage"):
        made["usage"] = event["usage"]
    return made


_PARTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def _message(made: dict[str, Any], kind: Any, event: dict[str, Any]) -> dict[str, Any]:
    content = made["content"]
    if kind == "content_block_start" and isinstance(event.get("content_block"), dict):
        content.append(dict(event["content_block"]))
    elif kind == "content_block_delta" and content and isinstance(delta := event.get("delta"), dict):
        name = _PARTS.get(str(delta.get("type")), "")
        if isinstance(delta.get(name), str):
            content[-1][name] = str(content[-1].get(name, "")) + delta[name]
    elif kind == "content_block_stop" and content and "partial_json" in content[-1]:
        content[-1]["input"] = json.loads(content[-1].pop("partial_json") or "{}")
    elif kind == "message_delta":
        made |= event["delta"] if isinstance(event.get("delta"), dict) else {}
        made["usage"] = {**(made.get("usage") or {}), **(event.get("usage") or {})}
    return made
