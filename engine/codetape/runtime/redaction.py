"""Secrets out of texts, once, on arrival: before a text is used, written or shown.

Values of known secrets are replaced, plain, as base64 and URL-encoded; so are credentials in headers.
Strings that look like keys but are nobody's known secret are reported, not replaced: code may hold them rightly.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin
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


class OwnPattern(Protocol):
    """A user's pattern, compiled."""

    def search(self, text: str) -> Any:
        """Return its first match, or None."""

    def findall(self, text: str) -> list[Any]:
        """Return its matches."""

    def sub(self, replacement: Callable[[Any], str], text: str) -> str:
        """Return the text with its matches replaced."""


class Redactor:
    """Replaces the values of known secrets, given by name, and what matches a user's own patterns, with
    ``[redacted:NAME]``."""

    def __init__(
        self, secrets: Mapping[str, str] | None = None, patterns: Mapping[str, "OwnPattern"] | None = None
    ) -> None:
        forms: dict[str, str] = {}
        for name, value in (secrets or {}).items():
            if len(value) >= MIN_LENGTH:
                forms.update(dict.fromkeys(_forms(value), name))
        self._names = forms
        self._secrets = [_Secret(name, value) for name, value in (secrets or {}).items() if len(value) >= MIN_LENGTH]
        self._own = dict(patterns or {})
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    @classmethod
    def of_environment(
        cls,
        environment: Mapping[str, str],
        also: Mapping[str, str] | None = None,
        patterns: Mapping[str, "OwnPattern"] | None = None,
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
            text = self._spelled_otherwise(text)
        return self._match(text)

    def _spelled_otherwise(self, text: str) -> str:
        """Return the text without secrets whose characters are escaped, whose encoding is broken into lines, or that
        its end cuts off. Whether there are any is seen in the text's decoded forms: looking for them takes longer."""
        decoded = _decoded(text)
        dense = "".join(text.split())
        plain_hex = dense.replace(":", "").lower()
        broken = _LINE_ENDS.sub("", dense) if "\\" in text else dense
        for secret in self._secrets:
            if any(secret.bare in one for one in decoded):
                text = secret.escaped.sub(secret.mark, text)
            if secret.hex in plain_hex:
                text = secret.hex_pattern.sub(secret.mark, text)
            for inner in secret.base64:
                if inner in broken:
                    text = _with_gaps(inner, _GAP).sub(secret.mark, text)
            text = secret.without_cut_ends(text)
        return text

    def error(self, text: str) -> str:
        """Return an error's text without the known secrets, and without credentials in headers it echoes."""
        text = _HEADER.sub(lambda m: f"{m.group(1)}{m.group(2)}[redacted]", self.text(text))
        text = _BEARER.sub("Bearer [redacted]", text)
        for name, pattern in KEY_PATTERNS.items():
            text = pattern.sub(f"[redacted: {name}]", text)
        return text

    def model(self, value: T) -> T:
        """Return a record with every string in it redacted; what a user's patterns match, in its free texts alone."""
        if self._pattern is not None and self._is_in(value.model_dump_json()):
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

    def _is_in(self, dumped: str) -> bool:
        """Whether a record's JSON may hold a secret; where JSON escapes one, or a string ends within it, it may."""
        if self._spelled_otherwise(dumped) != dumped or (self._pattern is not None and self._pattern.search(dumped)):
            return True
        return not self._plain() or any(secret.value[:MIN_LENGTH] in dumped for secret in self._secrets)

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


_GAP = r"(?:\s|\\+[nr])*"
_LINE_ENDS = re.compile(r"\\+[nr]")
_PERCENT = re.compile(r"%(?P<hex>[0-9A-Fa-f]{2})(?P<octal>(?!))?(?P<sign>(?!))?")
_BACKSLASH = re.compile(r"\\+(?:(?:u00|x)(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-7]{3})|(?P<sign>[^A-Za-z0-9\s\\]))")


class _Secret:
    """One secret, and the patterns of its spellings, each made when it is first needed."""

    def __init__(self, name: str, value: str) -> None:
        self.value = value
        self.bare = value.replace("\\", "")  # what follows a backslash of its own may be escaped: then it reads as one
        self.hex = value.encode().hex()
        self.base64 = _base64_forms(value)
        self._name = name

    def mark(self, _match: re.Match[str]) -> str:
        """Return what takes its place."""
        return f"[redacted:{self._name}]"

    @cached_property
    def escaped(self) -> re.Pattern[str]:
        """Matches it with any of its characters escaped: percent-encoded, as JSON, or as a string of a language."""
        return re.compile("".join(map(_character, self.value)))

    @cached_property
    def hex_pattern(self) -> re.Pattern[str]:
        """Matches its bytes in hex, with blanks or colons between them."""
        return re.compile("(?i)" + r"[\s:]*".join(self.hex))

    def without_cut_ends(self, text: str) -> str:
        """Return the text without a part of the secret where the text's end, or its beginning, cut it off."""
        value = self.value
        if value[:MIN_LENGTH] in text[-len(value) :]:
            for size in range(len(value) - 1, MIN_LENGTH - 1, -1):
                if text.endswith(value[:size]):
                    return f"{text[:-size]}[redacted:{self._name}]"
        if value[-MIN_LENGTH:] in text[: len(value)]:
            for size in range(len(value) - 1, MIN_LENGTH - 1, -1):
                if text.startswith(value[-size:]):
                    return f"[redacted:{self._name}]{text[size:]}"
        return text


def _character(sign: str) -> str:
    code = ord(sign)
    if code > 0x7F:
        percent = "".join(f"%{byte:02x}" for byte in sign.encode())
        units = sign.encode("utf-16-be").hex()
        json_form = "".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4))
        return f"(?:{re.escape(sign)}|(?i:{percent}|{json_form}))"
    octal = rf"\\+{code:03o}"
    quoted = "" if sign.isalnum() else rf"|\\+{re.escape(sign)}"
    return rf"(?:{re.escape(sign)}|(?i:%{code:02x}|\\+u00{code:02x}|\\+x{code:02x})|{octal}{quoted})"


def _decoded(text: str) -> list[str]:
    """Return the text with escapes of ASCII characters taken off (percent, backslashes, one within the other), and
    without backslashes."""
    found = []
    if "%" in text:
        found.append(_PERCENT.sub(_plain_character, text))
    if "\\" in text:
        found.append(_BACKSLASH.sub(_plain_character, text))
        if "%" in text:
            found += [_BACKSLASH.sub(_plain_character, found[0]), _PERCENT.sub(_plain_character, found[1])]
    return [one.replace("\\", "") for one in found]


def _plain_character(match: re.Match[str]) -> str:
    digits = match["hex"]
    code = int(digits, 16) if digits else int(match["octal"], 8) if match["octal"] else -1
    return chr(code) if 0 <= code < 0x80 else match["sign"] or match[0]


def _with_gaps(text: str, gap: str) -> re.Pattern[str]:
    return re.compile(gap.join(map(re.escape, text)))


def _forms(value: str) -> set[str]:
    """Return the spellings of a value that are looked for as they are: plain, URL-encoded, escaped, in hex, as base64."""
    found = {value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1], *_base64_forms(value)}
    found |= {json.dumps(value, ensure_ascii=plain)[1:-1] for plain in (True, False)}
    return found | {value.encode().hex(), value.encode().hex().upper()}


def _base64_forms(value: str) -> set[str]:
    """Return what base64 makes of a value at each of its three alignments, in both of its alphabets."""
    found: set[str] = set()
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


def read_patterns(given: Mapping[str, str]) -> dict[str, OwnPattern]:
    """Compile a user's patterns, by name. Raises UsageError for one that is no regular expression, or matches nothing
    at all.

    Their engine takes time that grows with the text and not with its powers: Python's own could take hours for one.
    """
    if not given:
        return {}
    import re2

    options, found = re2.Options(), dict[str, OwnPattern]()
    options.log_errors = False
    for name, text in given.items():
        try:
            pattern: OwnPattern = re2.compile(text, options)
        except (re2.error, UnicodeError) as error:
            reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
            raise UsageError(
                f"The pattern {name} is no regular expression of RE2's: {reason}.",
                remedy="It takes no lookarounds and no references back, so that no pattern takes for ever.",
            ) from error
        if pattern.search(""):
            raise UsageError(f"The pattern {name} matches the empty text.", remedy="Say what it is to match.")
        found[name] = pattern
    return found


def find_keys(text: str) -> tuple[str, ...]:
    """Return the kinds of keys that the text seems to hold."""
    return tuple(name for name, pattern in KEY_PATTERNS.items() if pattern.search(text))
