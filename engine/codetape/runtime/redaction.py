"""Secrets out of texts, once, on arrival: before a text is used, written or shown.

Values of known secrets are replaced, plain, as base64 and URL-encoded; so are credentials in headers.
Strings that look like keys but are nobody's known secret are reported, not replaced: code may hold them rightly.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

from codetape.errors import UsageError

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
MIN_LENGTH = 8  # shorter values would redact ordinary words

_HEADER = re.compile(
    r"(?i)\b(authorization|x-api-key|api-key|proxy-authorization|cookie)(['\"]?\s*[:=]\s*['\"]?)((?:bearer|basic)\s+)?[^\s'\",;}]{6,}"
)
_BEARER = re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{12,}")
KEY_PATTERNS = {
    "OpenAI key": re.compile(r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20,}"),
    "Anthropic key": re.compile(r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,})"),
    "Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{25,}"),
    "AWS access key": re.compile(r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b"),
    "Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
}

T = TypeVar("T", bound=BaseModel)


class Redactor:
    """Replaces the values of known secrets, given by name, and what matches a user's own patterns, with
    ``[redacted:NAME]``."""

    def __init__(
        self, secrets: Mapping[str, str] | None = None, patterns: Mapping[str, re.Pattern[str]] | None = None
    ) -> None:
        forms: dict[str, str] = {}
        for name, value in (secrets or {}).items():
            if len(value) >= MIN_LENGTH:
                forms.update(dict.fromkeys(_forms(value), name))
        self._names = forms
        self._own = dict(patterns or {})
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    @classmethod
    def of_environment(
        cls,
        environment: Mapping[str, str],
        also: Mapping[str, str] | None = None,
        patterns: Mapping[str, re.Pattern[str]] | None = None,
    ) -> "Redactor":
        """Take every variable whose name says that it is secret, further secrets by name, and patterns of the
        user's."""
        named = {
            name: value
            for name, value in environment.items()
            if SECRET_NAME.search(name) and not (value.startswith("/") and os.path.exists(value))  # noqa: PTH110 - a text
        }
        return cls({**named, **(also or {})}, patterns)

    def text(self, text: str) -> str:
        """Return the text without the known secrets, and without what the user's patterns match."""
        if self._pattern is not None:
            text = self._pattern.sub(lambda match: f"[redacted:{self._names[match.group()]}]", text)
        return self._match(text)

    def error(self, text: str) -> str:
        """Return an error's text without the known secrets, and without credentials in headers it echoes."""
        text = _HEADER.sub(lambda m: f"{m.group(1)}{m.group(2)}[redacted]", self.text(text))
        text = _BEARER.sub("Bearer [redacted]", text)
        for name, pattern in KEY_PATTERNS.items():
            text = pattern.sub(f"[redacted: {name}]", text)
        return text

    def model(self, value: T) -> T:
        """Return a record with every string in it redacted; what a user's patterns match, in its free texts alone."""
        if self._pattern is not None and (self._pattern.search(value.model_dump_json()) or not self._plain()):
            value = type(value).model_validate(self._walk(value.model_dump(mode="json")))
        return self._free(value) if self._own else value

    def _free(self, value: T) -> T:
        """Redact the fields that hold any text; words of our own, versions and figures are none."""
        changed = {}
        for name, field in type(value).model_fields.items():
            old = getattr(value, name)
            new = self._part(old, free=_is_free(field.annotation) and not field.metadata)
            if new is not old:
                changed[name] = new
        return value.model_copy(update=changed) if changed else value

    def _part(self, value: Any, *, free: bool) -> Any:
        if isinstance(value, BaseModel):
            return self._free(value)
        if isinstance(value, str):
            return self._match(value) if free else value
        if isinstance(value, tuple | list):
            return type(value)(self._part(item, free=free) for item in value) if value else value
        if isinstance(value, dict):
            return {key: self._part(item, free=free) for key, item in value.items()} if value else value
        return value

    def _match(self, text: str) -> str:
        for name, pattern in self._own.items():
            text = pattern.sub(lambda match, name=name: f"[redacted:{name}]" if match.group() else "", text)  # type: ignore[misc]  # mypy knows no defaults of lambdas
        return text

    def _plain(self) -> bool:
        """Whether JSON's escapes cannot hide a secret: none holds a character that JSON would escape."""
        return all(form.isascii() and form.isprintable() and not set(form) & set('"\\') for form in self._names)

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._walk(item) for key, item in value.items()}
        return value


def _forms(value: str) -> set[str]:
    """Return the spellings of a value: plain, URL-encoded, and base64 at each of its three alignments."""
    found = {value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}
    found |= {json.dumps(value, ensure_ascii=plain)[1:-1] for plain in (True, False)}
    raw = value.encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        start = (0, 2, 3)[shift]
        inner = encoded[start : len(encoded) - (1 if (len(raw) + shift) % 3 else 0)]
        if len(inner) >= MIN_LENGTH:
            found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return found


def _is_free(annotation: Any) -> bool:
    """Whether a field's type is any text, or a collection of such: a Literal's words are ours."""
    if annotation is str or annotation is Any:
        return True
    return get_origin(annotation) is not Literal and any(map(_is_free, get_args(annotation)))


def read_patterns(given: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    """Compile a user's patterns, by name. Raises UsageError for one that is no regular expression, or matches nothing
    at all."""
    found = {}
    for name, text in given.items():
        try:
            pattern = re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise UsageError(f"The pattern {name} is no regular expression: {error}.") from error
        if pattern.search(""):
            raise UsageError(f"The pattern {name} matches the empty text.", remedy="Say what it is to match.")
        found[name] = pattern
    return found


def find_keys(text: str) -> tuple[str, ...]:
    """Return the kinds of keys that the text seems to hold."""
    return tuple(name for name, pattern in KEY_PATTERNS.items() if pattern.search(text))
