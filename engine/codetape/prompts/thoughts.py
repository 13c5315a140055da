"""What a reasoning model thought before it answered, where its server left that in the content.

Only thoughts at the beginning are told from the answer: a script may itself handle such marks.
"""

import re
from typing import NamedTuple

from codetape.prompts.fences import outside_fences

_TAGS = "think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad|seed:think"
_OPENED = re.compile(
    rf"<(?P<tag>{_TAGS})>|\[(?P<square>THINK)\]|◁(?P<kimi>think)▷|<\|(?P<begin>begin)_of_thought\|>", re.IGNORECASE
)
_CLOSED = re.compile(rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)
_CHANNEL = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|?>\s*(?P<name>\w+)[^<\n]{0,200}?\s*(?:<\|message\|>|\n)"
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call)\|>|<channel\|>")
_MARK = r"(?:<\|(?:start|end|return|im_end|im_start|begin_of_solution|end_of_solution|eot_id)\|>(?:assistant)?\s*)"
_MARKS_AROUND = re.compile(rf"\A\s*{_MARK}+|{_MARK}+\Z")
_ANSWER = re.compile(r"\s*<(?P<tag>answer|final|final_answer|output|response)>\n?(?P<body>.*)</(?P=tag)>\s*", re.DOTALL)
_LOST_MARKS = re.compile(r"analysis(?P<thought>.*?)assistant\s*final(?P<answer>.*)", re.DOTALL)


class Split(NamedTuple):
    """A reply's thoughts, and what was said after them."""

    thoughts: str
    answer: str


def split(text: str) -> Split:
    """Return the thoughts that a reply begins with, and the rest; no thoughts where nothing tells them for certain."""
    text = text.removeprefix("\ufeff")
    for reader in (_by_channels, _by_tags, _by_lost_marks, _by_lone_closing_tag):
        if found := reader(text):
            return Split(found.thoughts.strip(), _bare(found.answer))
    return Split("", _bare(text))


def _bare(answer: str) -> str:
    """Return an answer without the marks around it."""
    answer = _MARKS_AROUND.sub("", answer)
    whole = _ANSWER.fullmatch(answer)
    return whole["body"] if whole else answer


def _by_channels(text: str) -> Split | None:
    """Harmony: every channel but the final one is thought."""
    first = _CHANNEL.search(text)
    if first is None or text[: first.start()].strip():
        return None
    thoughts, answers = list[str](), list[str]()
    marks = [*_CHANNEL.finditer(text)]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : following.start() if following else len(text)]
        end = _CHANNEL_END.search(body)
        inside, rest = (body[: end.start()], body[end.end() :]) if end else (body, "")
        (answers if mark["name"].lower() == "final" else thoughts).append(inside)
        if rest.strip() and following is None:  # one channel for thoughts, and the answer after it without one
            answers.append(rest)
    return Split("\n".join(thoughts), "".join(answers))


def _by_tags(text: str) -> Split | None:
    """``<think>...</think>`` and its relatives at the beginning; several in a row; one that is never closed."""
    thoughts, rest = list[str](), text
    while (opened := _OPENED.match(rest.lstrip())) is not None:
        rest = rest.lstrip()
        closed = _CLOSED.search(rest, opened.end())
        if closed is None:
            return Split("\n".join([*thoughts, rest[opened.end() :]]), "")
        thoughts.append(rest[opened.end() : closed.start()].strip())
        rest = rest[closed.end() :]
    return Split("\n".join(thoughts), rest) if rest != text else None


def _by_lost_marks(text: str) -> Split | None:
    """Harmony whose marks were dropped: ``analysis...assistantfinal...``."""
    found = _LOST_MARKS.match(text.lstrip())
    return Split(found["thought"], found["answer"]) if found else None


def _by_lone_closing_tag(text: str) -> Split | None:
    """A closing tag whose opening one was in the prompt: it begins a line, and no code block is open there."""
    for position, line in outside_fences(text):
        if mark := _CLOSED.match(line.lstrip()):
            start = position + len(line) - len(line.lstrip())
            return Split(text[:start], text[start + mark.end() :])
    return None
