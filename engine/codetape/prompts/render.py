"""Renders one template, bounded in steps, input and output: a pack is untrusted."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import minijinja

from codetape.errors import TemplateError
from codetape.prompts import grammar
from codetape.prompts.pack import MAX_TEMPLATE

FUEL = 40_000  # template steps; the largest prompt of the default pack takes some thousands
MAX_MESSAGE = 600_000  # characters of one message
MAX_VALUE = 64_000  # characters of one value: more than any cap below
MAX_ENTRIES = 1_000  # of a list that a template sees
MAX_KNOWN = 4_000_000  # characters of all that a template sees


def _templates(pack: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in pack.items() if name.endswith(".md")}


@lru_cache(maxsize=32)
def _environment(templates: tuple[tuple[str, str], ...]) -> minijinja.Environment:
    for name, text in templates:
        if len(text) > MAX_TEMPLATE:
            raise TemplateError(f"The template {name} has more than {MAX_TEMPLATE} characters.")
        grammar.check(name, text)
    return minijinja.Environment(
        templates=dict(templates),
        filters={"indent": _indent},
        finalizer=_counted,
        fuel=FUEL,
        undefined_behavior="strict",
        trim_blocks=True,
        lstrip_blocks=True,
        auto_escape_callback=lambda _name: False,
        debug=True,  # so that an error names the variable that is unknown
    )


class _TooLong(Exception):
    """A rendering has written more than a message may have."""


_written: ContextVar[list[int]] = ContextVar("written")
"""How many characters of values the rendering under way has written."""


def _bounded(value: Any, room: list[int]) -> Any:
    """Return what a template sees, cut where a tape from elsewhere has more than any run makes; ``room`` is taken
    from."""
    kind = type(value)  # by type() first: a prompt is made of some hundreds of values, and a replay of all its prompts
    if kind is str or isinstance(value, str):
        if len(value) > MAX_VALUE:
            value = cut(value, MAX_VALUE)
        room[0] -= len(value)
        return value
    if kind is bool or kind is int or value is None:
        return value
    if kind is dict:
        return _bounded_dict(value, room)
    if isinstance(value, list | tuple):
        return [_bounded(one, room) for one in value[:MAX_ENTRIES]]
    return value


def _bounded_dict(value: Mapping[str, Any], room: list[int]) -> dict[str, Any]:
    """As `_bounded`, with the commonest values in place: most are short texts."""
    bounded: dict[str, Any] = {}
    for key, one in value.items():
        if type(one) is str and len(one) <= MAX_VALUE:
            room[0] -= len(one)
            bounded[key] = one
        else:
            bounded[key] = _bounded(one, room)
    return bounded


def _counted(value: Any) -> Any:
    """Count what a value writes, so that a loop that writes long values is stopped while it runs."""
    so_far = _written.get()
    so_far[0] += len(value) if type(value) is str else len(repr(value))
    if so_far[0] > MAX_MESSAGE:
        raise _TooLong
    return value


def _indent(text: str, width: int = 4, first: bool = False) -> str:
    """Indent a text by at most 64 blanks: a filter without a bound would be a way to fill the memory."""
    margin = " " * min(max(width, 0), 64)
    lines = str(text)[:MAX_MESSAGE].split("\n")
    return "\n".join(margin + line if line and (number or first) else line for number, line in enumerate(lines))


def render(pack: Mapping[str, str], name: str, known: Mapping[str, Any]) -> str:
    """Render one template of a pack. Raises TemplateError, naming the template."""
    return render_all(pack, (name,), known)[0]


def render_all(pack: Mapping[str, str], names: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """Render templates of a pack that see the same. Raises TemplateError, naming the template."""
    room = [MAX_KNOWN]
    bounded = _bounded_dict(known, room)
    if room[0] < 0:
        raise TemplateError(f"The template {names[0]} would see more than {MAX_KNOWN} characters.")
    environment = _environment(tuple(sorted(_templates(pack).items())))
    return [_rendered(environment, name, bounded) for name in names]


def _rendered(environment: minijinja.Environment, name: str, bounded: Mapping[str, Any]) -> str:
    _written.set([0])
    try:
        text = environment.render_template(name, **bounded)
    except minijinja.TemplateError as error:
        raise TemplateError(f"The template {name} does not render: {_cause(error)}") from error
    except _TooLong:
        text = "x" * (MAX_MESSAGE + 1)
    if len(text) > MAX_MESSAGE:
        raise TemplateError(f"The template {name} renders more than {MAX_MESSAGE} characters.")
    return text.strip() + "\n"


def _cause(error: minijinja.TemplateError) -> str:
    """Return the one line that says what is wrong, and in which file: the innermost of an include's."""
    lines = str(error).split("\n")
    causes = [line.removeprefix("caused by: ") for line in lines if line.startswith("caused by: ")]
    return causes[-1] if causes else lines[0]


def cut(text: str, cap: int) -> str:
    """Return the text, or its head (two thirds) and tail with the size of what was left out between them."""
    if len(text) <= cap:
        return text
    head, tail = cap * 2 // 3, cap // 3
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"
