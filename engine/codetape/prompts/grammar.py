"""The part of the template language that a prompt pack may use: conditions, loops over what is known, and includes.

A pack may come from anywhere, and steps alone do not bound what one step makes: a text doubled forty times fills every
memory. So nothing is in here that makes a long text of short ones: no assignments, macros, arithmetic or concatenation,
and of the filters those whose arguments are short literals.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from codetape.errors import TemplateError

TAGS = ("if", "elif", "else", "endif", "for", "endfor", "include")
FILTERS = ("indent", "join", "length", "upper", "lower", "trim", "first", "last")
MAX_LITERAL = 200  # characters of a text between quotes
MAX_TOKENS = 100  # of one tag: the checks of nested brackets look ahead from each
MAX_TAGS = 1000  # of one template
_WORDS = ("and", "or", "not", "in", "is", "if", "else")
_SIGNS = (".", ",", "(", ")", "[", "]", "|", "==", "!=", "<", ">", "<=", ">=")
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"\\]*"|'[^'\\]*')|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)|(?P<sign>==|!=|<=|>=|[.,()\[\]|<>]))"""
)
_BLANKS = re.compile(r"\s*")
_OPENING = re.compile(r"\{\{|\{%|\{#")
_FOR = re.compile(r"[A-Za-z]\w* in [A-Za-z]\w*(?: \. [A-Za-z]\w*)*")
_CLOSING = {"{{": "}}", "{%": "%}"}


@lru_cache(maxsize=256)  # thousands of sessions share a pack, and each of them has it from its own tape
def check(name: str, text: str) -> None:
    """Raise TemplateError, naming the template and the line, for anything that a pack may not use."""
    at = tags = 0
    while found := _OPENING.search(text, at):
        tags += 1
        if tags > MAX_TAGS:
            raise TemplateError(f"The template {name} has more than {MAX_TAGS} tags.", remedy="Split it.")
        opening, line = found[0], text.count("\n", 0, found.start()) + 1
        if opening == "{#":
            end = text.find("#}", found.end())
            at = end + 2 if end >= 0 else len(text)
            continue
        start = found.end() + (text[found.end() : found.end() + 1] in ("-", "+"))
        try:
            tokens, at = _tokens(text, start, _CLOSING[opening])
            _check(opening, tokens)
        except ValueError as error:
            raise TemplateError(f"The template {name}, line {line}, uses {error}.", remedy=_REMEDY) from None


_REMEDY = f"A pack has {', '.join(TAGS)}; comparisons; and the filters {', '.join(FILTERS)}."


def _tokens(text: str, at: int, closing: str) -> tuple[list[tuple[str, str]], int]:
    """Return the tokens up to the closing mark, and the place behind it. Raises ValueError for any other."""
    found: list[tuple[str, str]] = []
    while True:
        at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
        for end in (closing, f"-{closing}", f"+{closing}"):
            if text.startswith(end, at):
                return found, at + len(end)
        match = _TOKEN.match(text, at)
        if match is None or not match.lastgroup:
            raise ValueError(f"{text[at : at + 10]!r}, which no pack may" if at < len(text) else "a tag without an end")
        if len(match[match.lastgroup]) > MAX_LITERAL:
            raise ValueError("a literal of more than 200 characters")
        if len(found) == MAX_TOKENS:
            raise ValueError(f"a tag of more than {MAX_TOKENS} words and signs")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()


def _check(opening: str, tokens: list[tuple[str, str]]) -> None:
    rest, tag = tokens, ""
    if opening == "{%":
        tag = tokens[0][1] if tokens else ""
        if tag not in TAGS:
            raise ValueError(f"the tag {tag!r}, which no pack may")
        rest = tokens[1:]
        if tag == "include" and [kind for kind, _ in rest] != ["text"]:
            raise ValueError("an include of something else than one literal name")
        if tag == "for" and not _FOR.fullmatch(" ".join(word for _, word in rest)):
            raise ValueError("a loop over something else than a name")
    for number, (kind, word) in enumerate(rest):
        before = rest[number - 1] if number else ("", "")
        if kind == "name" and word.startswith("_"):
            raise ValueError(f"the name {word!r}, which no pack may")
        if (kind, word) == ("sign", "|"):
            _check_filter(before, rest[number + 1 :])
        elif (kind, word) == ("sign", "["):
            if (
                before[0] != "name"
                or before[1] in _WORDS
                or [k for k, _ in rest[number + 1 : number + 2]] != ["number"]
            ):
                raise ValueError("a list, which no pack may")
        elif (kind, word) == ("sign", "("):
            _check_group(rest[:number], rest[number + 1 :])


def _check_group(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
    """A bracket holds a filter's arguments, a condition, or literals; it calls nothing and makes no lists of values."""
    kind, word = before[-1] if before else ("", "")
    if kind == "name" and word not in _WORDS:
        if before[-2:-1] != [("sign", "|")]:
            raise ValueError(f"a call of {word!r}, which no pack may")
        return
    if word in (")", "]") or kind in ("text", "number"):
        raise ValueError("a call, which no pack may")
    depth, inside = 1, []
    for token in after:
        depth += {"(": 1, ")": -1}.get(token[1], 0) if token[0] == "sign" else 0
        if not depth:
            break
        inside.append(token)
    if ("sign", ",") in inside and any(kind not in ("text", "number") and word != "," for kind, word in inside):
        raise ValueError("a list of values, which no pack may")


def _check_filter(before: tuple[str, str], after: list[tuple[str, str]]) -> None:
    """A filter takes a known value, or what another filter made of one; its arguments are literals."""
    if not after or after[0][1] not in FILTERS:
        raise ValueError(f"the filter {after[0][1] if after else ''!r}, which no pack may")
    if before[0] != "name" and before[1] not in ("]", ")"):
        raise ValueError(f"the filter {after[0][1]!r} of something else than a name")
    if after[1:2] == [("sign", "(")]:
        for kind, word in _until_closed(after[2:]):
            if kind not in ("text", "number") and word not in (",", "true", "false"):
                raise ValueError(f"{word!r} as an argument of the filter {after[0][1]!r}, where only literals may be")


def _until_closed(tokens: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for token in tokens:
        if token == ("sign", ")"):
            return
        yield token
