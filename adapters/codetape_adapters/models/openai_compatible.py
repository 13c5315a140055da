"""Any OpenAI-compatible server, by chat completions. Its errors become ours, and every failed try is recorded.

The library's own retries are off: ours wait as the server asks (Retry-After), and stop after a few.
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from codetape.domain.model_request import LENGTH_PARAMETER, ModelRequest
from codetape.domain.usage import Usage
from codetape.errors import ModelUnavailable, UsageError
from codetape.ports import Billing, Model, Reply, RequestRefused
from codetape_adapters.models.bounded_http import ReplyTooSlow, ReplyUnbounded
from codetape_adapters.models.http_clients import client_of, never_sent
from codetape_adapters.models.openai_usage import usage

CONNECT_SECONDS, READ_SECONDS = 10.0, 600.0
GRACE_SECONDS = 0.5  # the client's read timeout strikes first where no reply began; this ends one that trickles in
DEFAULT_KEY = "OPENAI_API_KEY"
TRIES = 5
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
MAX_WAIT_SECONDS = 60.0
LOG = logging.getLogger("codetape.models.openai")
_NO_KEY = "none"  # local servers want no key, but the library requires some text
_PARAMETERS = ("temperature", "seed", "top_p", "reasoning_effort", "verbosity", "presence_penalty", "frequency_penalty")


class OpenAIModel(Model):
    """One model of one server. A client is kept for as long as a loop lasts, and nothing else between calls.

    A ``local`` server gets no key, and nothing else of the environment, unless ``api_key_env`` names one for it.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = None,
        kind: str = "openai",
        local: bool = False,
        tries: int = TRIES,
        sleep: Callable[[float], Any] = asyncio.sleep,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self.name = f"{kind}:{name}"
        self._name = name
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        provider = "openai" if kind == "openai" else ""
        self.billing = Billing(provider) if self._base_url is None else Billing(address=self._billed(kind))
        self.server = without_user(self._base_url or "")
        self._plain = local and not api_key_env
        variable = api_key_env or DEFAULT_KEY
        self._key = "" if self._plain else os.environ.get(variable, "")
        self._tries, self._sleep = tries, sleep
        self._connect_seconds, self._read_seconds = connect_seconds, read_seconds
        if self._base_url is not None and urlsplit(self._base_url).scheme not in ("http", "https"):
            raise UsageError(
                f"{without_user(self._base_url)!r} is no address of a server.",
                remedy="Begin it with http:// or https://.",
            )
        if not self._key and self._base_url is None:
            raise UsageError(
                f"No key: the environment has no {variable}.",
                remedy="Set it, name a local server with --base-url, or try `codetape demo`, which needs neither.",
            )

    def _billed(self, kind: str) -> str:
        """Return the address by which a price list may know the provider; a local server bills nobody."""
        return without_user(self._base_url or "") if kind == "openai" else ""

    async def ask(self, request: ModelRequest) -> Reply | RequestRefused:
        """Ask once, and again after faults that pass. Raises ModelUnavailable when it gives up."""
        import openai

        tries = _Tries()
        key = self._key or _NO_KEY
        client = await client_of((self._base_url, key, self._connect_seconds, self._read_seconds, self._plain))
        for number in range(1, self._tries + 1):
            try:
                async with asyncio.timeout(self._read_seconds + GRACE_SECONDS):
                    answer = await client.chat.completions.create(**self._arguments(request))
                if not getattr(answer, "choices", None):
                    raise _no_completion(self._base_url)
                return _reply(answer, request, tuple(tries.errors))
            except openai.APIStatusError as error:
                if refusal := _refused(error, request):
                    return refusal
                await self._again(error, number, tries, error.status_code in RETRIED)
            except openai.APIConnectionError as error:
                endless = isinstance(error.__cause__, ReplyUnbounded)
                await self._again(error.__cause__ if endless else error, number, tries, retryable=not endless)
            except (ReplyUnbounded, TimeoutError) as error:
                endless_error = error if isinstance(error, ReplyUnbounded) else ReplyTooSlow()
                await self._again(endless_error, number, tries, retryable=False)
            except (openai.APIError, ValueError, RecursionError) as error:  # no valid reply: HTML, half a JSON
                await self._again(error, number, tries, retryable=True)
        raise AssertionError("the last try returns or raises")

    async def _again(self, error: BaseException | None, number: int, tries: "_Tries", retryable: bool) -> None:
        """Wait for the next try, or give up: after the last one, or where another would end the same way."""
        tries.errors.append(_error_line(error))
        tries.maybe_billed = tries.maybe_billed or _maybe_billed(error)
        if not retryable or number == self._tries:
            raise _unavailable(error, self._base_url, tries) from error
        seconds = _wait(error, number)
        status = getattr(error, "status_code", None) or type(error).__name__
        LOG.warning("try %d of %d: %s; the next in %.1f s", number, self._tries, status, seconds)
        await self._sleep(seconds)

    def _arguments(self, request: ModelRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._name,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "max_tokens" if request.older_limit else LENGTH_PARAMETER: request.max_output_tokens,
        }
        if request.json_mode:
            arguments["response_format"] = {"type": "json_object"}
        if request.reply_schema is not None:
            schema = {"name": request.purpose, "schema": request.reply_schema, "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        standard = {k: v for k, v in request.parameters.items() if k in _PARAMETERS}
        extra = {k: v for k, v in request.parameters.items() if k not in _PARAMETERS}
        return {**arguments, **standard, **({"extra_body": extra} if extra else {})}


@dataclass
class _Tries:
    """Failed tries at one request: the error of each, and whether the provider may have worked on any."""

    errors: list[str] = field(default_factory=list)
    maybe_billed: bool = False


def _maybe_billed(error: Any) -> bool:
    """Whether the provider may have worked on a request: not where it never arrived, or a status rejected it."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return bool(status >= 500)
    return not never_sent(getattr(error, "__cause__", None))


def _reply(answer: Any, request: ModelRequest, tries: tuple[str, ...]) -> Reply:
    choice = answer.choices[0]
    if choice.message is None:
        return Reply(text=None, finish_reason="no choice", tries=tries)
    raw = answer.usage.model_dump(mode="json", exclude_none=True) if answer.usage else None
    content = choice.message.content
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    return Reply(
        text=text,
        refusal=getattr(choice.message, "refusal", None) or "",
        finish_reason=choice.finish_reason or "stop",
        model=answer.model or "",
        fingerprint=getattr(answer, "system_fingerprint", None) or "",
        usage=usage(raw) if raw else _estimate(request, text or ""),
        usage_raw=json.dumps(raw, sort_keys=True) if raw else "",
        tries=tries,
    )


def _estimate(request: ModelRequest, text: str) -> Usage:
    """Return tokens by rule of thumb, marked as such, for servers that say nothing of usage."""
    return Usage(source="estimated", input=request.input_estimate, output=len(text) // 4 + 1)


def _body(error: Any) -> str:
    return str(getattr(error, "message", "") or error)[:2000]


def _refused(error: Any, request: ModelRequest) -> RequestRefused | None:
    """Read a 400 that refuses the request's form: its length, its schema, or one of its parameters."""
    if error.status_code not in (400, 413, 422):
        return None
    text, code = _body(error).lower(), str(getattr(error, "code", "") or "")
    parameter = str(getattr(error, "param", "") or "")
    if code == "context_length_exceeded" or error.status_code == 413 or ("context" in text and "length" in text):
        return RequestRefused("context", _body(error))
    schema_words = ("response_format", "json_schema", "grammar", "structured output")
    formed = request.reply_schema is not None or request.json_mode
    if formed and (parameter.startswith("response_format") or any(w in text for w in schema_words)):
        return RequestRefused("schema", _body(error))
    if not request.older_limit and (parameter == LENGTH_PARAMETER or LENGTH_PARAMETER in text):
        return RequestRefused("parameter", _body(error), LENGTH_PARAMETER)
    refused_parameter = (
        parameter if parameter in request.parameters else next((p for p in request.parameters if p in text), "")
    )
    return RequestRefused("parameter", _body(error), refused_parameter) if refused_parameter else None


def _error_line(error: Any) -> str:
    if isinstance(error, ReplyUnbounded):
        return str(error)
    status = getattr(error, "status_code", None)
    return f"{status or type(error).__name__}: {_body(error)}"  # redacted first, cut later


def _wait(error: Any, number: int) -> float:
    """Return the seconds to wait: what Retry-After says, else doubling from half a second, with jitter."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return float(min(MAX_WAIT_SECONDS, max(0.0, float(headers.get("retry-after", "")))))
    except ValueError:
        return float(min(MAX_WAIT_SECONDS, 0.5 * 2**number) * (0.5 + random.random() / 2))  # noqa: S311 - jitter


def _unavailable(error: Any, base_url: str | None, tries: _Tries) -> ModelUnavailable:
    status = getattr(error, "status_code", None)
    server = without_user(base_url) if base_url else "the provider"
    remedies = {
        401: "Check the key.",
        403: "Check what the key may do.",
        404: "Check the model's name and --base-url.",
        429: "Wait, or raise the account's limit; then resume.",
    }
    default_remedy = "Check that the server runs, then resume." if status is None else "Resume later."
    if isinstance(error, ReplyUnbounded):
        default_remedy = "Look at what the server sends, or name another with --base-url."
    if status is not None and 300 <= status < 400:
        default_remedy = "The server sends its callers elsewhere: name that address with --base-url."
    line = _error_line(error).rstrip()
    stop = "" if line.endswith((".", "!", "?")) else "."
    return ModelUnavailable(
        f"{server} gave no answer: {line}{stop}",
        remedy=remedies.get(status or 0, default_remedy),
        tries=tuple(tries.errors),
        maybe_billed=tries.maybe_billed,
    )


def _no_completion(base_url: str | None) -> ModelUnavailable:
    server = without_user(base_url) if base_url else "the provider"
    message = f"{server} answered, but not with a chat completion."
    return ModelUnavailable(
        message, remedy="Check --base-url: it usually ends in /v1.", tries=(message,), maybe_billed=True
    )


def without_user(url: str) -> str:
    """Return an address without the name and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def create(name: str, **options: Any) -> OpenAIModel:
    """Make the model of that name."""
    return OpenAIModel(name, **options)
