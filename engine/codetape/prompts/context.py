"""What each template may use, as plain values. No prompt text is here: it is in the pack that the session started
with."""

from collections.abc import Mapping
from typing import Any

from codetape.domain.findings import Finding
from codetape.domain.reply_shapes import Fix
from codetape.domain.report import TestResult
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


def fenced(text: str) -> str:
    """Return the text as a fenced Python block whose fence is longer than any run of backticks in it."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{text.rstrip()}\n{fence}"


def context(run: SessionState, purpose: str) -> dict[str, Any]:
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


def failing(run: SessionState, findings: tuple[Finding, ...], caps: Mapping[str, int]) -> list[dict[str, Any]]:
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


def _printed(run: SessionState, caps: Mapping[str, int]) -> str:
    """Return the end of what the last run wrote to standard error: a script's own traceback, say."""
    text = normalise(run.work.report.stderr.strip()) if run.work.report and run.work.findings else ""
    return text[-caps["traceback"] :]


def _history(run: SessionState, finding: Finding) -> int:
    """Return how many fixes this failure has outlived."""
    return next((a.logic + a.test for a in run.work.attempts if a.signature == finding.signature), 0)


def _fix(fix: Fix) -> dict[str, str]:
    return fix.model_dump(mode="json")


def _code(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    retry = bool(run.work.code) and not run.ledger.from_plan
    return {
        "current": fenced(cut(run.work.code, caps["code"])) if retry else "",
        "failures": failing(run, findings_of_type(run, "logic", None), caps) if retry and run.work.report else [],
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


def _diagnose(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    return {
        "current": fenced(cut(run.work.code, caps["code"])),
        "failures": failing(run, run.work.findings, caps),
        "printed": _printed(run, caps),
        "more": max(0, len(run.work.findings) - MAX_FAILURES),
        "notes": list(run.work.notes),
    }


def _second_opinion(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    calls = calls_in_doubt(run)
    given = [sum(o.test == call for o in run.work.opinions) for call in calls]
    return {
        "calls": [{"label": f"T{n}", "call": call} for n, call in enumerate(calls, 1)],
        "round": 1 + max(given, default=0),
    }


def _fix_tests(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    return {
        "failures": failing(run, findings_of_type(run, "test_error"), caps),
        "tests": fenced(cut(run.work.tests, caps["tests"])),
        "whole_file": whole_file(run),
        "missing": [_fix(f) for f in run.work.missing],
        "level": run.ledger.fix_asks,
    }


def _verify_code(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    before = run.work.checkpoint.code if run.work.checkpoint else ""
    return {
        "fixes": [_fix(f) for f in run.work.fixes],
        "before": fenced(cut(before, caps["code"])),
        "after": fenced(cut(run.work.code, caps["code"])),
    }


def _verify_tests(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    before = run.work.checkpoint.tests if run.work.checkpoint else ""
    return {
        "failures": failing(run, findings_of_type(run, "test_error"), caps),
        "before": fenced(cut(before, caps["tests"])),
        "after": fenced(cut(run.work.tests, caps["tests"])),
    }


def _replace(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
    return {"package": run.ledger.replacing, "refused": list(run.ledger.refused)}


def _packages(run: SessionState, caps: Mapping[str, int]) -> dict[str, Any]:
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
