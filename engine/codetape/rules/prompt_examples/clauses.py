"""Clauses of a task that say what a call gives: ``f(1) -> 2`` (also ``=>``, ``==``, ``returns``), and assertions."""

import ast
import builtins
import re
from functools import cached_property

from codetape.rules.packages import standard_library
from codetape.rules.prompt_examples.example import (
    BUILTINS,
    PromptExample,
    free_names,
    is_expression,
    is_literal,
    is_literal_call,
    is_plain_call,
    parses,
)
from codetape.rules.prompt_examples.reader import Reader

_WORDS_2 = r"returns|gives"
_WORDS = (
    r"returns|gives|yields|produces|becomes|equals|is|results? in|evaluates? to"
    r"|(?:should|must|shall|will) (?:return|give|yield|be|equal|become|produce)"
)


_ARROW_2 = re.compile(rf"`?\s*(->|=>|→|==+|{_WORDS_2})\s*`?\s*")
_ARROW = re.compile(rf"`?[ \t]*(->|=>|[→➞⟶⇒➔➜]|==+|\b(?:{_WORDS})\b:?)\s*`?\s*")
_RAISES = re.compile(r"`?[ \t]*(?:->|=>|→)?\s*\b(?:raises|throws|(?:should|must|will) raise)\s+(?:an? )?`?([A-Z]\w*)`?")
_QUOTED = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""
_BECOMES = re.compile(
    rf"(?<![\w.,(=\[{{])`?({_QUOTED})`?[ \t]*(?:becomes|->|→|=>|turns into|is turned into|gives|yields)[ \t]*`?({_QUOTED})`?"
)
_NAMED = re.compile(r"(?<![\w.])([a-z_]\w*)\(\s*([A-Za-z_]\w*)\s*(?::\s*[\w.\[\], |]+)?\)")
_CONTINUED = 8  # lines that a value may go on for


_CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\(")


_TYPES = frozenset(
    {"int", "str", "float", "bool", "bytes", "list", "dict", "set", "tuple", "None", "object", "complex"}
)


_BULLET = re.compile(r"^\s*(?:[-*+>]|\d+[.)])\s+")


_OPERATOR = re.compile(r"(?:[-+*/%<>&|^~@=!]|\b(?:not|and|or|in|is|lambda|await))\s*$")


_NO_PROMISE = re.compile(
    r"(?i)\b(currently|wrongly|incorrectly|instead|old|before|not|never|if|unless|buggy|actually)\b"
)


class ClauseReader:
    """Takes lines and clauses that say what a call gives, and assertions."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.text = reader, reader.text

    @cached_property
    def _one_function(self) -> str:
        """The name of the one function of one argument that the task speaks of; empty where there are others."""
        named = {m.group(1) for m in _NAMED.finditer(self.reader.prose)} - BUILTINS
        calls = {m.group(1) for m in _CALL.finditer(self.reader.prose)} - BUILTINS
        return named.pop() if len(named) == 1 and calls == named and not self._asks_for_class else ""

    def read(self, passage: str) -> None:
        """Take the clauses of one passage that say what a call gives."""
        lines = passage.splitlines()
        for number, line in enumerate(lines):
            if line.lstrip().startswith((">>>", "def ", "class ", "async def ", "...")):
                continue
            if line.lstrip().startswith("assert ") and self._assertion(line.strip()):
                continue
            following = lines[number + 1 : number + _CONTINUED] if self.reader.rules > 2 else []
            for match in _CALL.finditer(line):
                self._arrow(line, match, following)
            if self.reader.rules > 2:
                self._becomes(line)

    def _assertion(self, line: str) -> bool:
        """Take an assertion of the task as it is; whether it was one, be it taken or left out with a reason."""
        if self.reader.spent() or not parses(line):
            return False
        statement = ast.parse(line).body[0]
        if not isinstance(statement, ast.Assert):
            return False
        test, source = statement.test, ast.unparse(statement)
        if isinstance(test, ast.Compare) and [type(by) for by in test.ops] == [ast.Eq] and is_plain_call(test.left):
            want = ast.unparse(test.comparators[0])
            if is_literal(want):
                self.reader.found.append(PromptExample((), ast.unparse(test.left), want, "value"))
                return True
        modules = [n for n in free_names([source]) if n in standard_library("3.13") and n not in self.text.functions]
        setup = tuple(f"import {name}" for name in dict.fromkeys(modules))
        if unknown := self.reader.unknown([*setup, source]):
            self.reader.leave_out(source, f"nothing says what {unknown} is")
        elif any(isinstance(n, ast.Call) for n in ast.walk(test)):
            self.reader.found.append(PromptExample(setup, source, "", "true"))
        return True

    def _arrow(self, line: str, match: re.Match[str], following: list[str]) -> None:
        call = self._balanced(line, match.start())
        if not call or not is_literal_call(call):
            return
        if self.reader.rules > 2 and (raised := _RAISES.match(line, match.start() + len(call))):
            self._raises(line, match, call, raised)
            return
        arrow = (_ARROW if self.reader.rules > 2 else _ARROW_2).match(line, match.start() + len(call))
        if arrow is None:
            return
        if why := _not_alone(line[: match.start()]):
            self.reader.leave_out(f"{call} {arrow.group(1)} {line[arrow.end() :]}", why)
            return
        rest = line[arrow.end() :]
        want = self._literal_prefix(rest)
        if not want and (not rest.strip() or rest[0] in "[({"):  # it goes on below
            want = self._literal_prefix("\n".join([rest, *following]))
        if self._is_signature(call, arrow.group(1), rest, want):
            return
        if want:
            self.reader.found.append(
                PromptExample((), call, want, "value", prints=match.group(1) in self.text.returning_none)
            )
        elif not re.match(_WORDS, arrow.group(1)) and rest.strip():
            self.reader.leave_out(f"{call} {arrow.group(1)} {rest}", "its right side is no value")

    def _raises(self, line: str, match: re.Match[str], call: str, raised: re.Match[str]) -> None:
        """Take a call that is said to raise one of Python's own exceptions, without a condition."""
        kind = getattr(builtins, raised.group(1), None)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            return
        if _ends_clause(line[raised.end() :]) and not _not_alone(line[: match.start()]):
            self.reader.found.append(PromptExample((), call, raised.group(1), "raises"))

    def _becomes(self, line: str) -> None:
        """Take texts that are said to become others, where the task names one function, of one argument."""
        for match in _BECOMES.finditer(line) if self._one_function else ():
            if not _not_alone(line[: match.start()]) and _ends_clause(line[match.end() :]):
                call = f"{self._one_function}({match.group(1)})"
                self.reader.found.append(PromptExample((), call, match.group(2), "value"))

    def _is_signature(self, call: str, arrow: str, rest: str, want: str) -> bool:
        """Whether an arrow leads to a type, or belongs to a method: nothing that a call of a function could give."""
        node = ast.parse(call, mode="eval").body
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        method = name in self.text.methods and name not in self.text.functions
        if method or (self._asks_for_class and name not in self.text.functions and not name[:1].isupper()):
            return True
        if want == "None" and call.endswith("()") and arrow in ("->", "→", "=>", *"➞⟶⇒➔➜"):
            return True
        if arrow not in ("->", *"→➞⟶⇒➔➜"):
            return False
        if want:
            value = ast.literal_eval(want)
            named = isinstance(value, str) and (value in _TYPES or value in self.text.names or self._is_class(value))
            return value is None or (named and call.endswith("()"))
        return re.match(r"[A-Za-z_]\w*", rest) is not None

    @cached_property
    def _asks_for_class(self) -> bool:
        return re.search(r"\bclass\s+`?[A-Z]\w*", self.reader.prose) is not None

    def _is_class(self, name: str) -> bool:
        return name.isidentifier() and re.search(rf"\bclass\s+`?{name}\b", self.reader.prose) is not None

    def _balanced(self, line: str, start: int) -> str:
        """Return the call that begins at ``start``, up to its closing bracket; empty where none closes in 500
        characters."""
        for end in range(start, min(len(line), start + 500)):
            if line[end] == ")" and not self.reader.spent() and is_expression(line[start : end + 1]):
                return line[start : end + 1]
        return ""

    def _literal_prefix(self, text: str) -> str:
        """Return the longest beginning of the text that is a literal, where its clause ends after it."""
        text = text.strip().lstrip("`")
        for end in range(min(len(text), 2000), 0, -1):
            rest = text[end:]
            if text[:end].rstrip().endswith((".", ",")):  # the sentence's, not the number's
                continue
            if _ends_clause(rest) and not self.reader.spent() and is_literal(text[:end].strip()):
                return text[:end].strip()
        return ""


def _not_alone(before: str) -> str:
    """Return why a call does not stand for itself after such a text; empty where it does.

    It may be part of an expression, or what is said of it may be no promise.
    """
    text = _BULLET.sub("", before).rstrip()
    if _OPERATOR.search(text):
        return "" if re.search(r",\s*and$|\band$", text) else "it is part of a larger expression"
    sentence = re.split(r"[.;!?]\s|(?i:\b(?:new|now|expected)\b)", text)[-1]
    return "what is said of it is no promise" if _NO_PROMISE.search(sentence) else ""


def _ends_clause(rest: str) -> bool:
    """Whether a literal may end before this: "5 results", "1/3" and "-1 or None" are no literals."""
    left = rest.lstrip()
    if rest.lstrip(" \t`")[:1] == "\n":
        return True
    if re.match(r"[.,]\s*(?:\.|['\"\d\[({-]|None\b|True\b|False\b)", left):
        return False  # "3.14159..." and "1, 3" continue
    return not left or left[0] in ",;)`" or left.startswith("and ") or (left[0] == "." and not left[1:2].isalnum())
