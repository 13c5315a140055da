"""What a provider says of an error, in whatever form, and what follows from it.

Servers put their words into ``error`` (an object, or a text), ``detail``, ``message`` or ``errors``; into a body of
status 200; around the error of another server. Statuses, codes and types decide whether another try may help; the
words decide only which numbers a limit has.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codetape.domain.model_request import LENGTH_PARAMETER, ModelRequest
from codetape.ports import RequestRefused

MAX_WORDS = 2000  # characters of a provider's words
_DEPTH = 6  # of an error within an error
PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_PASSING_CODES = frozenset(
    {
        "rate_limit_exceeded", "rate_limit_error", "rate_limit", "too_many_requests", "tokens", "requests",
        "overloaded_error", "overloaded", "server_error", "internal_error", "internal_server_error", "api_error",
        "timeout", "timeout_error", "service_unavailable", "unavailable", "resource_exhausted", "engine_overloaded_error",
        "model_overloaded", "deadline_exceeded", "internal",
    }
)  # fmt: skip
_LASTING_CODES = frozenset(
    {
        "insufficient_quota", "exceeded_current_quota_error", "billing_hard_limit_reached", "billing_not_active",
        "insufficient_balance", "insufficient_user_quota", "insufficient_credits", "arrearage", "account_deactivated",
        "invalid_api_key", "authentication_error", "permission_error", "permission_denied", "unauthenticated",
        "billing_error", "1113",
    }
)  # fmt: skip
"""No money, or no right: another try gets the same answer, whatever the status."""


@dataclass(frozen=True)
class ProviderError:
    """A provider's words of an error. ``codes`` are its code, type and status as texts, of the innermost error first."""

    message: str
    codes: tuple[str, ...] = ()
    status: int = 0
    parameter: str = ""

    @property
    def lasts(self) -> bool:
        """Whether it says that there is no money, or no right."""
        return bool(_LASTING_CODES & {*self.codes})

    def passes(self, status: int) -> bool:
        """Whether another try may be answered, where the HTTP status was this one."""
        if self.lasts:
            return False
        if status < 400 and (self.status or self.codes):  # an error inside an answer: what it says itself
            return self.status in PASSING_STATUS or bool(_PASSING_CODES & {*self.codes})
        return status in PASSING_STATUS or status < 400


def provider_error(body: Any) -> ProviderError | None:
    """Return the error that a decoded body holds; None where it holds none."""
    levels = list(_levels(body))
    if not levels:
        return None
    messages = list(dict.fromkeys(text for level in levels if (text := _words(level))))
    codes = [str(level.get(key) or "").lower() for level in reversed(levels) for key in ("code", "type", "status")]
    statuses = [number for level in levels if (number := _status(level))]
    parameters = [p for level in reversed(levels) if isinstance(p := level.get("param"), str) and p]
    return ProviderError(
        message=": ".join(messages)[:MAX_WORDS],
        codes=tuple(code for code in codes if code in _LASTING_CODES or (code and not code.isdecimal())),
        status=statuses[-1] if statuses else 0,
        parameter=parameters[0] if parameters else "",
    )


def _levels(body: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the objects that speak of an error, from the outermost in."""
    if depth > _DEPTH:
        return
    if isinstance(body, list):  # some servers put one object into a list
        yield from _levels(body[0] if body else None, depth + 1)
        return
    if isinstance(body, str):
        yield {"message": body}
        return
    if not isinstance(body, Mapping):
        return
    inner = next((body[key] for key in ("error", "detail", "errors") if body.get(key)), None)
    if inner is not None:
        if depth == 0 and isinstance(body.get("message"), str):
            yield {"message": body["message"]}
        yield from _levels(inner, depth + 1)
        return
    if depth == 0 and not (body.get("object") == "error" or body.get("type") == "error" or _says_only_words(body)):
        return
    yield body
    metadata = body.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("raw"):
        yield from _levels(_decoded(metadata["raw"]), depth + 1)


def _says_only_words(body: Mapping[str, Any]) -> bool:
    return bool(_words(body)) and "choices" not in body and "output" not in body and "content" not in body


def _decoded(raw: Any) -> Any:
    try:
        return json.loads(raw) if isinstance(raw, str) and raw.lstrip()[:1] in "{[" else raw
    except (ValueError, RecursionError):
        return raw


def _words(level: Mapping[str, Any]) -> str:
    words = level.get("message") or level.get("msg") or ""
    if isinstance(words, Mapping | list):
        words = json.dumps(words)[:MAX_WORDS]
    where = level.get("loc")
    place = ".".join(str(part) for part in where) + ": " if isinstance(where, list) and where else ""
    return f"{place}{words}".strip()[:MAX_WORDS] if isinstance(words, str) and words else ""


def _status(level: Mapping[str, Any]) -> int:
    for key in ("code", "status", "status_code"):
        value = level.get(key)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return 0


# ---- a request that is refused for its form


@dataclass(frozen=True)
class StatedLimits:
    """Numbers that a server names of its limits, in tokens; 0 where it names none."""

    window: int = 0
    prompt: int = 0
    output: int = 0


_DIGITS = r"\d[\d,]*"
_N = f"({_DIGITS})"
_WINDOW = (
    rf"maximum context length (?:is|of) {_N}",
    rf"context (?:length|window|size)[^.\d]{{0,40}}{_N}",
    rf"{_N} maximum context length",
    rf"context limit: {_N} \+ {_N} > (?P<window>{_DIGITS})",
    rf"max_new_tokens`? must be <= {_N}",
    rf"n_ctx[^\d]{{1,10}}{_N}",
    rf"> {_N} maximum",
)
_PROMPT = (
    rf"{_N} (?:tokens )?(?:in|from|of) (?:the |your )?(?:messages|prompt|input|text input)",
    rf"{_N} (?:text )?input tokens",
    rf"prompt (?:contains|has|is) (?:too long: )?{_N}",
    rf"{_N} `?inputs`? tokens",
    rf"{_N} of text input",
    rf"context limit: {_N} \+",
    rf"n_prompt_tokens[^\d]{{1,10}}{_N}",
    rf"input (?:token count|length)[^\d]{{1,20}}{_N}",
    rf"input tokens?[^\d]{{1,12}}{_N}",
    rf"prompt is too long: {_N}",
    rf"resulted in {_N}",
    rf"request \({_N} tokens\)",
)
_OUTPUT = (
    rf"at most {_N} (?:completion|output)",
    rf"{_N}, which is the maximum allowed number of output",
    rf"less than or equal to [`'\"]?{_N}",
    rf"valid range of `?max_\w*tokens`? is \[\d+, {_N}\]",
    rf"range of `?max_\w*tokens`? should be \[\d+, {_N}\]",
    rf"max_\w*tokens`?'?\)? (?:must be|should be|cannot exceed|exceeds)[^\d]{{0,60}}{_N}",
    rf"(?:maximum|max|limit)[^.\d]{{0,30}}(?:output|completion)[^.\d]{{0,20}}{_N}",
    rf"model limit of {_N}",
    rf"(?:supports?|allows?|allowed|maximum)[^.\d]{{0,20}}{_N} (?:output|completion)",
)


def _named(patterns: tuple[str, ...], text: str, *, below: int) -> int:
    for pattern in patterns:
        for match in re.finditer(pattern, text, re.IGNORECASE):
            group = match.groupdict().get("window") or match[1]
            number = int(group.replace(",", "")[:15] or 0)
            if 16 <= number < below:
                return number
    return 0


def stated_limits(text: str, asked: int) -> StatedLimits:
    """Return the limits that a server's words name, where so many tokens of output were asked for."""
    text = text[:MAX_WORDS]
    window = _named(_WINDOW, text, below=2**40)
    return StatedLimits(
        window=window,
        prompt=_named(_PROMPT, text, below=2**40),
        output=_named(_OUTPUT, text, below=asked) if not window else 0,
    )


def refusal(status: int, error: ProviderError, request: ModelRequest) -> RequestRefused | None:
    """Read an error that refuses the request's form: its length, its schema, or one of its parameters."""
    if status not in (400, 413, 422) and not (status < 400 and error.status in (400, 413, 422)):
        return None
    text, words = error.message.lower(), error.message
    if (limits := _limits_refused(status, error, text, request)) is not None:
        return limits
    schema_words = ("response_format", "json_schema", "grammar", "structured output", "text.format", "tool_choice")
    formed = request.reply_schema is not None or request.json_mode
    if formed and (error.parameter.startswith("response_format") or any(w in text for w in schema_words)):
        return RequestRefused("schema", words)
    if not request.older_limit and (error.parameter == LENGTH_PARAMETER or LENGTH_PARAMETER in text):
        return RequestRefused("parameter", words, LENGTH_PARAMETER)
    known = error.parameter if error.parameter in request.parameters else ""
    refused = known or next((name for name in request.parameters if name in text), "")
    return RequestRefused("parameter", words, refused) if refused else None


_CONTEXT_CODES = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "request_too_large"}
)
_LENGTH_WORDS = (
    "context length",
    "context window",
    "context size",
    "context limit",
    "prompt is too long",
    "max_new_tokens",
    "input token",
)


_TOO_MUCH = re.compile(r"too (?:large|long|many|high|big)|exceed|at most|maximum|less than|greater than|<=")


def _limits_refused(status: int, error: ProviderError, text: str, request: ModelRequest) -> RequestRefused | None:
    asked = request.max_output_tokens
    stated = stated_limits(error.message, asked)
    names_output = (
        error.parameter in ("max_tokens", LENGTH_PARAMETER, "max_output_tokens")
        or "max_tokens" in text
        or LENGTH_PARAMETER in text
        or "maximum tokens" in text
        or "max_output_tokens" in text
    )
    unknown = any(word in text for word in ("unsupported", "not supported", "unrecognized", "unknown", "extra"))
    if names_output and not stated.output and not stated.window and not unknown and _TOO_MUCH.search(text):
        return RequestRefused("output", error.message)  # it names no number: a person has to
    if stated.output and (names_output or "output" in text or "completion" in text):
        return RequestRefused("output", error.message, cap=stated.output)
    about_length = (
        status == 413
        or bool(_CONTEXT_CODES & {*error.codes})
        or any(w in text for w in _LENGTH_WORDS)
        or (stated.window and names_output and not unknown)
    )
    if not about_length:
        return None
    prompt = stated.prompt or request.input_estimate
    if stated.window and prompt < stated.window:  # it is the room for the answer that is missing
        return RequestRefused("output", error.message, window=stated.window, prompt=stated.prompt)
    return RequestRefused("context", error.message)
