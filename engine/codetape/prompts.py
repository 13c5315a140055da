"""A run to the messages of one ask. No prompt text is here: it is in the pack that the session started with.

Each request is rendered afresh from the run's artefacts, never from earlier prompts. A pack is untrusted:
its templates reach no Python, and are bounded in steps and output.
"""

import json
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import minijinja

from codetape import outputs, template_grammar
from codetape.artefacts import (
    ANCHOR_FILE,
    ORACLE_FILE,
    OUTPUT_FILE,
    SOLUTION_FILE,
    TEST_FILE,
    USER_FILE,
    Finding,
    Fix,
    TestResult,
)
from codetape.canonical import Frozen, canonical, sha256
from codetape.errors import TemplateError
from codetape.packages import detected
from codetape.replies import SHAPES, imported_from_solution, interface_names
from codetape.run import Run
from codetape.suites import file_of, text_of
from codetape.verdict import normalise

PURPOSES = (
    "plan",
    "code",
    "tests",
    "diagnose",
    "second_opinion",
    "fix_tests",
    "verify_code",
    "verify_tests",
    "packages",
    "replace_package",
)
TEMPLATES = ("system.md", "repair.md", *(f"{p}.md" for p in PURPOSES))
FUEL = 40_000  # template steps; the largest prompt of the default pack takes some thousands
MAX_TEMPLATE = 16 << 10  # characters of one template
MAX_PROMPT = 600_000  # characters of one message
MAX_VALUE = 64_000  # characters of one value: more than any cap below
MAX_ENTRIES = 1_000  # of a list that a template sees
MAX_KNOWN = 4_000_000  # characters of all that a template sees
CAPS = {
    "prompt": 40_000,
    "schema": 12_000,
    "code": 60_000,
    "tests": 60_000,
    "traceback": 3_000,
    "reply": 8_000,
}
MAX_FAILURES = 8


class Message(Frozen):
    """One message of a request."""

    role: str
    content: str


def pack_hash(pack: Mapping[str, str]) -> str:
    """Return a pack's identity: the hash of its files' names and hashes."""
    return sha256(canonical({name: sha256(text) for name, text in pack.items()}))


def check_pack(pack: Mapping[str, str]) -> None:
    """Raise TemplateError, naming the file, where a pack lacks one or one does not parse."""
    schemas = [f"schemas/{purpose}.json" for purpose in SHAPES]
    for name in (*TEMPLATES, *schemas):
        if name not in pack:
            raise TemplateError(f"The prompt pack has no {name}.", remedy="Every purpose needs its file.")
    for name, text in pack.items():
        if name.endswith(".md"):
            _parse(name, text)
        elif name.endswith(".json"):
            _json(name, text)


def _parse(name: str, text: str) -> None:
    if len(text) > MAX_TEMPLATE:
        raise TemplateError(f"The template {name} has more than {MAX_TEMPLATE} characters.")
    template_grammar.check(name, text)
    try:
        minijinja.Environment(debug=False).add_template(name, text)
    except minijinja.TemplateError as error:
        raise TemplateError(f"The template {name} does not parse: {error}") from error


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"{name} in the prompt pack is no JSON: {str(error)[:200]}") from error


def schema_of(run: Run, purpose: str) -> dict[str, Any] | None:
    """Return the reply schema of a purpose from the run's pack; None where it answers in a code block."""
    text = run.pack.get(f"schemas/{purpose}.json")
    if text is None or purpose not in SHAPES:
        return None
    schema: dict[str, Any] = _json(f"schemas/{purpose}.json", text)
    return schema


def messages(run: Run, purpose: str) -> tuple[Message, ...]:
    """Return the messages of the run's next ask for the purpose."""
    known = context(run, purpose)
    system = Message(role="system", content=render(run.pack, "system.md", known))
    user = Message(role="user", content=render(run.pack, f"{purpose}.md", known))
    if not run.work.repair:
        return (system, user)
    bad = Message(role="assistant", content=cut(run.work.bad_reply, CAPS["reply"]) or "(no usable text)")
    repair = render(run.pack, "repair.md", {**known, "problem": run.work.repair})
    return (system, user, bad, Message(role="user", content=repair))


def _templates(pack: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in pack.items() if name.endswith(".md")}


@lru_cache(maxsize=8)
def _environment(templates: tuple[tuple[str, str], ...]) -> minijinja.Environment:
    for name, text in templates:
        if len(text) > MAX_TEMPLATE:
            raise TemplateError(f"The template {name} has more than {MAX_TEMPLATE} characters.")
        template_grammar.check(name, text)
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
    """Return what a template sees, cut where a tape from elsewhere has more than any run makes; ``room`` is taken from."""
    if isinstance(value, str):
        value = cut(value, MAX_VALUE)
        room[0] -= len(value)
        return value
    if isinstance(value, dict):
        return {key: _bounded(one, room) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(one, room) for one in value[:MAX_ENTRIES]]
    return value


def _counted(value: Any) -> Any:
    """Count what a value writes, so that a loop that writes long values is stopped while it runs."""
    so_far = _written.get()
    so_far[0] += len(value if isinstance(value, str) else repr(value))
    if so_far[0] > MAX_PROMPT:
        raise _TooLong
    return value


def _indent(text: str, width: int = 4, first: bool = False) -> str:
    """Indent a text by at most 64 blanks: a filter without a bound would be a way to fill the memory."""
    margin = " " * min(max(width, 0), 64)
    lines = str(text)[:MAX_PROMPT].split("\n")
    return "\n".join(margin + line if line and (number or first) else line for number, line in enumerate(lines))


def render(pack: Mapping[str, str], name: str, known: Mapping[str, Any]) -> str:
    """Render one template of a pack. Raises TemplateError, naming the template."""
    _written.set([0])
    room = [MAX_KNOWN]
    bounded = {key: _bounded(value, room) for key, value in known.items()}
    if room[0] < 0:
        raise TemplateError(f"The template {name} would see more than {MAX_KNOWN} characters.")
    try:
        text = _environment(tuple(sorted(_templates(pack).items()))).render_template(name, **bounded)
    except minijinja.TemplateError as error:
        raise TemplateError(f"The template {name} does not render: {_cause(error)}") from error
    except _TooLong:
        text = "x" * (MAX_PROMPT + 1)
    if len(text) > MAX_PROMPT:
        raise TemplateError(f"The template {name} renders more than {MAX_PROMPT} characters.")
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


def fenced(text: str) -> str:
    """Return the text as a fenced Python block whose fence is longer than any run of backticks in it."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{text.rstrip()}\n{fence}"


def required_names(run: Run) -> tuple[str, ...]:
    """Return the names that the solution must define: the plan's, and those that anchors and given tests import."""
    planned = interface_names(run.work.plan) if run.work.plan else ()
    given = (run.anchors or "", run.the_task.tests)
    imported = [name for source in given for name in imported_from_solution(source)]
    return tuple(dict.fromkeys([*planned, *imported]))


def test_files(run: Run) -> dict[str, str]:
    """Return the files that a run of the tests takes: generated, anchors, the user's, outputs; empty ones left out."""
    files = {
        TEST_FILE: run.work.tests,
        ANCHOR_FILE: run.anchors or "",
        USER_FILE: run.the_task.tests,
        OUTPUT_FILE: outputs.test_file(run.the_task),
    }
    return {name: text for name, text in files.items() if text.strip()}


def all_files(run: Run) -> dict[str, str]:
    """Return every file of the run by name, the solution and the oracle included."""
    return {**test_files(run), SOLUTION_FILE: run.work.code, ORACLE_FILE: run.the_task.oracle}


def context(run: Run, purpose: str) -> dict[str, Any]:
    """Return what the templates may use, as plain values. Each purpose sees its own part and nothing else."""
    task, config, work = run.the_task, run.the_config, run.work
    scale = 4 if run.ledger.trimmed else 1
    caps = {name: size // scale for name, size in CAPS.items()}
    known: dict[str, Any] = {
        "purpose": purpose,
        "system_prompt": config.system_prompt,
        "name": config.name,
        "prompt": cut(task.prompt, caps["prompt"]),
        "data_schema": cut(task.data_schema, caps["schema"]),
        "constraints": list(task.constraints),
        "inputs": [_input(i.model_dump(mode="json"), 20 // scale) for i in task.inputs],
        "outputs": [o.model_dump(mode="json") for o in task.outputs],
        "anchors": fenced(run.anchors) if run.anchors and purpose not in ("second_opinion",) else "",
        "anchor_names": list(imported_from_solution(run.anchors or "")),
        "given_tests": fenced(cut(task.tests, caps["tests"])) if task.tests else "",
        "python": config.python_version,
        "sandbox": config.sandbox.model_dump(mode="json"),
        "resources": config.resources.model_dump(mode="json"),
        "limits": {"iteration": run.ledger.iteration, "max_iterations": config.max_iterations},
        "base_packages": list(config.base_packages),
        "packages": list(run.ledger.packages),
        "unavailable": list(run.ledger.unavailable),
        "plan": work.plan.model_dump(mode="json") if work.plan else None,
        "required": list(required_names(run)),
        "schemaless": run.ledger.schemaless,
        "schema": run.pack.get(f"schemas/{purpose}.json", ""),
    }
    return {**known, **_SPECIFIC.get(purpose, lambda _run, _caps: {})(run, caps)}


def _input(value: dict[str, Any], lines: int) -> dict[str, Any]:
    if value["sample"]:
        value["sample"]["head"] = "\n".join(value["sample"]["head"].splitlines()[:lines])
    return value


def failing(run: Run, findings: tuple[Finding, ...], caps: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the failing tests that the findings name, with their text, message and traceback, normalised and cut."""
    results: dict[str, TestResult] = {t.id: t for t in run.work.report.tests} if run.work.report else {}
    files, shown = all_files(run), []
    for finding in findings[:MAX_FAILURES]:
        result = results.get(finding.test)
        output = "" if result or not run.work.report else f"{run.work.report.stdout}\n{run.work.report.stderr}".strip()
        shown.append(
            {
                "test": finding.test,
                "error_type": finding.error_type or "",
                "rule": finding.rule,
                "exception": finding.exception,
                "message": cut(normalise(finding.message), caps["traceback"]),
                "root_cause": finding.root_cause,
                "words": finding.words,
                "call": finding.call,
                "code": text_of(files.get(file_of(finding.test), ""), finding.test),
                "traceback": cut(normalise(result.traceback if result else output), caps["traceback"]),
                "history": _history(run, finding),
            }
        )
    return shown


def _printed(run: Run, caps: Mapping[str, int]) -> str:
    """Return the end of what the last run wrote to standard error: a script's own traceback, say."""
    text = normalise(run.work.report.stderr.strip()) if run.work.report and run.work.findings else ""
    return text[-caps["traceback"] :]


def _history(run: Run, finding: Finding) -> int:
    """Return how many fixes this failure has outlived."""
    return next((a.logic + a.test for a in run.work.attempts if a.signature == finding.signature), 0)


def _of(run: Run, *kinds: str | None) -> tuple[Finding, ...]:
    return tuple(f for f in run.work.findings if f.error_type in kinds)


def _fix(fix: Fix) -> dict[str, str]:
    return fix.model_dump(mode="json")


def _code(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    retry = bool(run.work.code) and not run.ledger.from_plan
    return {
        "current": fenced(cut(run.work.code, caps["code"])) if retry else "",
        "failures": failing(run, _of(run, "logic", None), caps) if retry and run.work.report else [],
        "fixes": [_fix(f) for f in run.work.fixes] if retry else [],
        "missing": [{**_fix(f), "line": _line(run.work.code, f.old)} for f in run.work.missing] if retry else [],
        "printed": _printed(run, caps) if retry else "",
        "level": run.ledger.code_asks,
        "notes": list(run.work.notes),
    }


def _line(text: str, part: str) -> int:
    """Return the 1-based line where the part begins; 0 where the text does not hold it."""
    at = text.find(part) if part.strip() else -1
    return text.count("\n", 0, at) + 1 if at >= 0 else 0


def _diagnose(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    return {
        "current": fenced(cut(run.work.code, caps["code"])),
        "failures": failing(run, run.work.findings, caps),
        "printed": _printed(run, caps),
        "more": max(0, len(run.work.findings) - MAX_FAILURES),
        "notes": list(run.work.notes),
    }


def calls_in_doubt(run: Run) -> tuple[str, ...]:
    """Return the calls that a second opinion is wanted on, each once."""
    return tuple(dict.fromkeys(f.call for f in run.work.findings if f.rule == "in_doubt" and f.call))


def _second_opinion(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    calls = calls_in_doubt(run)
    given = [sum(o.test == call for o in run.work.opinions) for call in calls]
    return {
        "calls": [{"label": f"T{n}", "call": call} for n, call in enumerate(calls, 1)],
        "round": 1 + max(given, default=0),
    }


def _fix_tests(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    return {
        "failures": failing(run, _of(run, "test_error"), caps),
        "tests": fenced(cut(run.work.tests, caps["tests"])),
        "whole_file": whole_file(run),
        "missing": [_fix(f) for f in run.work.missing],
        "level": run.ledger.fix_asks,
    }


def whole_file(run: Run) -> bool:
    """Whether a test fix replaces the file: a failure lies outside the tests' own functions."""
    return any("::" not in f.test for f in _of(run, "test_error"))


def _verify_code(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    before = run.work.checkpoint.code if run.work.checkpoint else ""
    return {
        "fixes": [_fix(f) for f in run.work.fixes],
        "before": fenced(cut(before, caps["code"])),
        "after": fenced(cut(run.work.code, caps["code"])),
    }


def _verify_tests(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    before = run.work.checkpoint.tests if run.work.checkpoint else ""
    return {
        "failures": failing(run, _of(run, "test_error"), caps),
        "before": fenced(cut(before, caps["tests"])),
        "after": fenced(cut(run.work.tests, caps["tests"])),
    }


def _replace(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    return {"package": run.ledger.replacing, "refused": list(run.ledger.refused)}


def _packages(run: Run, caps: Mapping[str, int]) -> dict[str, Any]:
    return {"modules": list(detected(run).unknown)}


_SPECIFIC = {
    "packages": _packages,
    "code": _code,
    "diagnose": _diagnose,
    "second_opinion": _second_opinion,
    "fix_tests": _fix_tests,
    "verify_code": _verify_code,
    "verify_tests": _verify_tests,
    "replace_package": _replace,
}
