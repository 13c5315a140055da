"""A reply that came as server-sent events, put together to the body that it would have been in one piece.

Some servers and proxies stream whatever they were asked for.
"""

import json
from typing import Any

MAX_EVENTS = 1_000_000


def is_stream(body: bytes) -> bool:
    """Whether a body is a stream of events."""
    return body.lstrip()[:6].lower().startswith((b"data:", b"event:", b": ", b":\n"))


class StreamBroken(ValueError):
    """A stream that ended before its reply did; what came of it is said."""


_ENDS = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})


def whole(body: bytes) -> Any:
    """Return the body that the events of a stream make. Raises StreamBroken, and ValueError where an event is no JSON."""
    made, ended = None, False
    for event in _events(body):
        if event is None:  # [DONE]
            ended = True
        elif isinstance(event, dict):
            kind = event.get("type")
            ended = ended or kind in _ENDS or _finishes(event)
            if isinstance(event.get("response"), dict) and kind in _ENDS:
                return event["response"]  # the last event of a response holds all of it
            if event.get("error"):
                return event
            made = _with(made, event)
    if not ended:
        raise StreamBroken(f"the stream broke off after {len(body):,} bytes: {_text_of(made)[:200]!r}")
    return made


def _finishes(event: dict[str, Any]) -> bool:
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and bool(first.get("finish_reason"))


def _text_of(made: Any) -> str:
    """Return the text that came so far."""
    if not isinstance(made, dict):
        return ""
    if isinstance(made.get("content"), list):
        return "".join(str(block.get("text", "")) for block in made["content"] if isinstance(block, dict))
    choices = made.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices else None
    return str(message.get("content") or "") if isinstance(message, dict) else ""


def _events(body: bytes) -> list[Any]:
    """Return the data of each event; None for the mark of the end."""
    events, data = list[Any](), list[str]()
    for line in [*body.decode("utf-8", "replace").splitlines(), ""][:MAX_EVENTS]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line.strip() and data:
            text = "\n".join(data)
            data.clear()
            events.append(None if text.strip() == "[DONE]" else json.loads(text))
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
