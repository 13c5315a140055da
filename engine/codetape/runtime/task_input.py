"""What a user says of a task, read and checked before anything is spent."""

from collections.abc import Iterable, Mapping
from typing import Any

from codetape.domain.canonical import canonical, sha256, well_formed
from codetape.domain.task import Task
from codetape.errors import UsageError
from codetape.rules.pytest_source import functions, tests_another_module
from codetape.runtime.redaction import Redactor
from codetape.runtime.script_io import read_inputs, read_outputs

MAX_PROMPT = 200_000  # characters


def read_task(
    redactor: Redactor,
    prompt: str,
    schema: str | Mapping[str, Any] | None = None,
    constraints: Iterable[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    tests: str | None = None,
    oracle: str | None = None,
    task: str | None = None,
    tags: Iterable[str] = (),
) -> Task:
    """Return the task that these options describe, redacted. Raises UsageError for what cannot be a task."""
    if not prompt.strip():
        raise UsageError("The prompt is empty.", remedy="Say what the script is to do.")
    if len(prompt) > MAX_PROMPT:
        raise UsageError(f"The prompt has {len(prompt)} characters; {MAX_PROMPT} are allowed.")
    fields = {
        "prompt": well_formed(prompt.strip()),
        "data_schema": well_formed(schema if isinstance(schema, str) else _schema(schema) if schema else ""),
        "constraints": tuple(well_formed(c) for c in (constraints or ()) if c.strip()),
        "inputs": read_inputs(inputs),
        "outputs": read_outputs(outputs),
        "tests": _test_file("tests", tests),
        "oracle": _test_file("oracle", oracle),
    }
    parts = {k: v if isinstance(v, str) else [str(x) for x in v] for k, v in fields.items() if k != "data_schema"}
    named = {"id": task or sha256(canonical(parts))[:12], "tags": read_labels(tags)}
    return redactor.model(Task.model_validate({**fields, **named}))


def read_labels(tags: Iterable[str]) -> tuple[str, ...]:
    """Return labels as they are. Raises UsageError for one that is empty, long, or holds a comma: lists stand one
    between two."""
    labels = tuple(tags)
    if wrong := [tag for tag in labels if not tag.strip() or "," in tag or len(tag) > 200]:
        raise UsageError(f"{wrong[0][:80]!r} is no label.", remedy="Give 1 to 200 characters without a comma.")
    return labels


def _schema(schema: Mapping[str, Any]) -> str:
    try:
        return canonical(dict(schema))
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"The schema is no JSON: {error}.") from error


def _test_file(what: str, text: str | None) -> str:
    """Check a given test file before anything is spent: it must be Python, and hold a test."""
    if not text:
        return ""
    try:
        names = functions(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UsageError(f"The given {what} file is no valid Python at line {line}.") from error
    if not names:
        raise UsageError(f"The given {what} file defines no test function.", remedy="Name functions test_...")
    if other := tests_another_module(text):
        raise UsageError(
            f"The given {what} file imports {other}, and nothing from the script: the script is the module `solution`.",
            remedy=f"Write `from solution import ...` in the place of `{other}`.",
        )
    return well_formed(text.removeprefix("\ufeff"))
