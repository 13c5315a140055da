"""What each template may use, as plain values. No prompt text is here: it is in the pack that the session started
with."""

import re
from collections.abc import Mapping
from typing import Any

from codetape.domain.findings import Finding
from codetape.domain.reply_shapes import Fix
from codetape.domain.report import TestResult
from codetape.domain.script_args import INPUTS, file_names
from codetape.eventlog.session_state import SessionState
from codetape.prompts.render import cut
from codetape.rules.normalise import normalise
from codetape.rules.packages import detected
from codetape.rules.pytest_source import file_of, imported_from_solution, text_of
from codetape.rules.session_view import all_files, calls_in_doubt, findings_of_type, required_names, whole_file

CAPS = {
    "prompt": 40_000,
    "schema": 12_000,
    "code": 60_000,
    "tests": 60_000,
    "traceback": 3_000,
    "reply": 8_000,
}
MAX_FAILURES = 8
_BACKTICKS = re.compile("`+")


def fenced(text: str, language: str = "python") -> str:
    """Return the text as a fenced block whose fence is longer than any run of backticks in it."""
    # three in a row are rare, and quickly looked for: a replay fences every code and traceback of its prompts
    longest = max(map(len, _BACKTICKS.findall(text))) if "```" in text else 0
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def context(session: SessionState, purpose: str) -> dict[str, Any]:
    """Return what the templates may use, as plain values. Each purpose sees its own part and nothing else."""
    task, config, work = session.the_task, session.the_config, session.work
    scale = 4 if session.ledger.trimmed else 1
    caps = {name: size // scale for name, size in CAPS.items()}
    places = file_names(task.inputs)
    known: dict[str, Any] = {
        "purpose": purpose,
        "system_prompt": config.system_prompt,
        "name": config.name,
        "prompt": cut(task.prompt, caps["prompt"]),
        "data_schema": cut(task.data_schema, caps["schema"]),
        "constraints": list(task.constraints),
        "inputs": [_input(i.model_dump(mode="json"), 20 // scale, places.get(i.name, "")) for i in task.inputs],
        "outputs": [o.model_dump(mode="json") for o in task.outputs],
        "anchors": fenced(session.anchors) if session.anchors and purpose not in ("second_opinion",) else "",
        "anchor_names": list(imported_from_solution(session.anchors or "")),
        "given_tests": fenced(cut(task.tests, caps["tests"])) if task.tests else "",
        "python": config.python_version,
        "sandbox": config.sandbox.model_dump(mode="json"),
        "resources": config.resources.model_dump(mode="json"),
        "limits": {"iteration": session.ledger.iteration, "max_iterations": config.max_iterations},
        "base_packages": list(config.base_packages),
        "packages": list(session.ledger.packages),
        "unavailable": list(session.ledger.unavailable),
        "plan": work.plan.model_dump(mode="json") if work.plan else None,
        "required": list(required_names(session)),
        "schemaless": session.ledger.schemaless,
        "schema": session.pack.get(f"schemas/{purpose}.json", ""),
    }
    return {**known, **_SPECIFIC.get(purpose, lambda _run, _caps: {})(session, caps)}


def _input(value: dict[str, Any], lines: int, place: str) -> dict[str, Any]:
    if value["sample"]:
        value["sample"].setdefault("encoding", "")
        value["sample"]["place"] = f"{INPUTS}/{place}"
        value["sample"]["head"] = "\n".join(value["sample"]["head"].splitlines()[:lines])
    return value


def failing(session: SessionState, findings: tuple[Finding, ...], caps: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the failing tests that the findings name, with their text, message and traceback, normalised and cut."""
    results: dict[str, TestResult] = {t.id: t for t in session.work.report.tests} if session.work.report else {}
    files, shown = all_files(session), []
    for finding in findings[:MAX_FAILURES]:
        result = results.get(finding.test)
        output = (
            ""
            if result or not session.work.report
            else f"{session.work.report.stdout}\n{session.work.report.stderr}".strip()
        )
        shown.append(
            {
                "test": finding.test,
                "error_type": finding.error_type or "",
                "rule": finding.rule,
                "exception": finding.exception,
                "message": cut(normalise(finding.message), caps["traceback"]),
                "root_cause": " ".join(finding.root_cause.split()),
                "words": " ".join(finding.words.split()),
                "said": _said(finding, result.traceback if result else output, caps),
                "call": finding.call,
                "code": text_of(files.get(file_of(finding.test), ""), finding.test),
                "traceback": cut(normalise(result.traceback if result else output), caps["traceback"]),
                "history": _history(session, finding),
            }
        )
    return shown


def _said(finding: Finding, trace: str, caps: Mapping[str, int]) -> str:
    """Return what a run said of a failure, between fences that it cannot close: a message may hold a heading, or a fence."""
    first = f"{finding.exception}: {finding.message}" if finding.exception else ""
    parts = [cut(normalise(part), caps["traceback"]).rstrip() for part in (first, trace) if part.strip()]
    return fenced("\n".join(parts), "text") if parts else ""


def _printed(session: SessionState, caps: Mapping[str, int]) -> str:
    """Return the end of what the last run wrote to standard error: a script's own traceback, say."""
    text = normalise(session.work.report.stderr.strip()) if session.work.report and session.work.findings else ""
    return text[-caps["traceback"] :]


def _history(session: SessionState, finding: Finding) -> int:
    """Return how many fixes this failure has outlived."""
    return next((a.logic + a.test for a in session.work.attempts if a.signature == finding.signature), 0)


def _fix(fix: Fix) -> dict[str, str]:
    return fix.model_dump(mode="json")


def _code(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    retry = bool(session.work.code) and not session.ledger.from_plan
    return {
        "current": fenced(cut(session.work.code, caps["code"])) if retry else "",
        "failures": failing(session, findings_of_type(session, "logic", None), caps)
        if retry and session.work.report
        else [],
        "fixes": [_fix(f) for f in session.work.fixes] if retry else [],
        "missing": [{**_fix(f), "line": _line(session.work.code, f.old)} for f in session.work.missing]
        if retry
        else [],
        "printed": _printed(session, caps) if retry else "",
        "printed_block": fenced(_printed(session, caps), "text") if retry and _printed(session, caps) else "",
        "again": session.ledger.from_plan and bool(session.work.code),
        "level": session.ledger.code_asks,
        "notes": list(session.work.notes),
    }


def _line(text: str, part: str) -> int:
    """Return the 1-based line where the part begins; 0 where the text does not hold it."""
    at = text.find(part) if part.strip() else -1
    return text.count("\n", 0, at) + 1 if at >= 0 else 0


def _diagnose(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    return {
        "current": fenced(cut(session.work.code, caps["code"])),
        "failures": failing(session, session.work.findings, caps),
        "printed": _printed(session, caps),
        "printed_block": fenced(_printed(session, caps), "text") if _printed(session, caps) else "",
        "more": max(0, len(session.work.findings) - MAX_FAILURES),
        "notes": list(session.work.notes),
    }


def _tests(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    adding = session.ledger.adding and session.work.strength is not None
    stub = [f"{test} passes where every function is empty" for test in session.work.vacuous]
    aside = [f"{q.test}: {' '.join((q.words or q.reason).split())}" for q in session.work.quarantined]
    return {
        "before": fenced(cut(session.work.tests, caps["tests"])) if session.ledger.rewritten and not adding else "",
        "idle": [*stub, *aside][:20] or ["none of them was left"],
        "present": fenced(cut(session.work.tests, caps["tests"])) if adding else "",
        "unnoticed": list(session.work.strength.survivors) if adding and session.work.strength else [],
    }


def _second_opinion(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    calls = calls_in_doubt(session)
    given = [sum(o.test == call for o in session.work.opinions) for call in calls]
    return {
        "calls": [{"label": f"T{n}", "call": call} for n, call in enumerate(calls, 1)],
        "round": 1 + max(given, default=0),
    }


def _fix_tests(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    return {
        "failures": failing(session, findings_of_type(session, "test_error"), caps),
        "tests": fenced(cut(session.work.tests, caps["tests"])),
        "whole_file": whole_file(session),
        "missing": [_fix(f) for f in session.work.missing],
        "level": session.ledger.fix_asks,
    }


def _verify_code(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    before = session.work.checkpoint.code if session.work.checkpoint else ""
    return {
        "fixes": [_fix(f) for f in session.work.fixes],
        "before": fenced(cut(before, caps["code"])),
        "after": fenced(cut(session.work.code, caps["code"])),
    }


def _verify_tests(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    before = session.work.checkpoint.tests if session.work.checkpoint else ""
    return {
        "failures": failing(session, findings_of_type(session, "test_error"), caps),
        "before": fenced(cut(before, caps["tests"])),
        "after": fenced(cut(session.work.tests, caps["tests"])),
    }


def _replace(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    return {"package": session.ledger.replacing, "refused": list(session.ledger.refused)}


def _packages(session: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    return {"modules": list(detected(session).unknown)}


_SPECIFIC = {
    "packages": _packages,
    "code": _code,
    "tests": _tests,
    "diagnose": _diagnose,
    "second_opinion": _second_opinion,
    "fix_tests": _fix_tests,
    "verify_code": _verify_code,
    "verify_tests": _verify_tests,
    "replace_package": _replace,
}
