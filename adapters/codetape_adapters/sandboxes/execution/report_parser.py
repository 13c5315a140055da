"""From what an execution sent to a Report and its outputs. Everything in it is untrusted: validated and capped."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from codetape.domain.job import Job
from codetape.domain.report import Comparison, Evaluated, Exit, Frame, MutantRun, OutputFile, Report, TestResult
from codetape.domain.task import SOLUTION_FILE
from codetape.errors import SandboxUnavailable
from codetape.ports import Execution

MAX_TESTS = 10_000
MAX_WARNINGS = 20
MAX_MUTANTS = 100
MAX_VALUES = 8000  # of blind claims, all turns together
MAX_VALUE = 300_000  # characters of one
MAX_REPORT = 16 << 20  # bytes of a report pipe
_TOO_MANY = TestResult(
    id=f"more than {MAX_TESTS:,} tests",
    outcome="error",
    exception="TooManyTests",
    message=f"Of one run {MAX_TESTS:,} tests are judged, and there are more: gather cases in fewer tests.",
)
LOST = "the outputs: the sandbox ended before all of them were read"
KEEP = 32 << 10  # bytes kept of a stream's head, and of its tail


@dataclass(frozen=True)
class Raw:
    """What came out of a sandbox, before any of it is believed. ``stopped`` is why the host ended it, if it did."""

    report: bytes
    outcome: bytes
    stdout: bytes
    stderr: bytes
    stopped: Exit | None
    duration_ms: int
    tree_memory_bounded: bool
    oom: bool = False
    pids: bool = False


def relocated(raw: Raw, prefix: str) -> Raw:
    """Name the interpreter's place as /opt/python in all texts: where it lies on this host is nobody's concern."""
    if prefix.startswith("/usr"):
        return raw
    old, new = prefix.encode(), b"/opt/python"
    return replace(
        raw,
        report=raw.report.replace(old, new),
        stdout=raw.stdout.replace(old, new),
        stderr=raw.stderr.replace(old, new),
    )


def head_and_tail(data: bytes) -> str:
    """Return a stream's text, invalid bytes replaced; its middle is left out where it is long."""
    if len(data) > 2 * KEEP:
        data = data[:KEEP] + f"\n[... {len(data) - 2 * KEEP} bytes left out ...]\n".encode() + data[-KEEP:]
    return data.decode("utf-8", "replace")


def read(raw: Raw, job: Job) -> Execution:
    """Return the execution of a job that the raw material tells of. No frame counts but of the job's own files."""
    tests = job.purpose not in ("script", "evaluate")
    status, files, rejected, lost = _outcome(raw.outcome)
    if status is None and raw.stopped is None and b'"begun"' not in raw.outcome[:200]:
        said = head_and_tail(raw.stderr).strip()[-300:]
        raise SandboxUnavailable(
            f"The sandbox did not start the program: {said or 'no word of why'}",
            remedy="`codetape doctor` says more.",
            step="start",
        )
    if b'"error"' in raw.outcome[:400] and status is None:
        said = raw.outcome[:400].decode("utf-8", "replace")
        raise SandboxUnavailable(
            f"The sandbox could not start the program: {said}", remedy="`codetape doctor` says more.", step="start"
        )
    lines = list(_lines(raw.report))
    results, collected = _results(lines, frozenset(job.files))
    finish = next((line.get("code") for line in lines if line.get("k") == "finish"), None)
    unfinished = any(t.outcome == "unfinished" for t in results)
    ended = {t.id for t in results if t.outcome != "unfinished"}
    evaluated = _evaluated(lines) if job.purpose == "evaluate" else ()
    whole = (
        (job.purpose == "evaluate" and finish == status == 0)
        or job.purpose == "script"
        or (
            tests
            and isinstance(finish, int)
            and finish == status
            and collected is not None
            and not unfinished
            and set(collected) <= ended
        )
    )
    uncollected = any("::" not in t.id and t.outcome != "skipped" for t in results)
    report = Report(
        exit=_exit(raw, None if lost else status, 2 if uncollected and finish == status == 1 else finish, tests=tests),
        whole=whole and raw.stopped is None and not lost,
        exit_code=status,
        collected=collected or (),
        tests=results,
        stdout=head_and_tail(raw.stdout),
        stderr=head_and_tail(raw.stderr),
        outputs=tuple(
            OutputFile(path=p, size=len(d), sha256=hashlib.sha256(d).hexdigest()) for p, d in sorted(files.items())
        ),
        rejected_outputs=(*rejected, *((LOST,) if lost else ())),
        tree_memory_bounded=raw.tree_memory_bounded,
        duration_ms=raw.duration_ms,
        evaluated=evaluated,
        mutants=_mutants(lines) if job.purpose == "evaluate" else (),
        warnings=tuple(str(line.get("text", ""))[:500] for line in lines if line.get("k") == "warning")[:MAX_WARNINGS],
    )
    return Execution(report, files)


def _exit(raw: Raw, status: int | None, finish: Any, *, tests: bool) -> Exit:
    if raw.stopped:
        return raw.stopped
    if raw.oom:  # whatever it says, it lost processes to the limit
        return "oom"
    if raw.pids and status != 0:
        return "pids"
    if not tests:
        return "killed" if status is None or status < 0 else "ok" if status == 0 else "tests_failed"
    if status is None or finish is None or (finish, status) not in ((2, 1), (status, status)):
        return "killed"
    return {0: "ok", 1: "tests_failed"}.get(finish, "collection_error")  # type: ignore[return-value]  # its values are


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data[:MAX_REPORT].split(b"\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def _results(
    lines: list[dict[str, Any]], files: frozenset[str]
) -> tuple[tuple[TestResult, ...], tuple[str, ...] | None]:
    collected: tuple[str, ...] | None = None
    found: dict[str, TestResult] = {}
    for line in lines:
        kind, name = line.get("k"), line.get("id")
        if kind == "collected" and isinstance(line.get("ids"), list):
            collected = tuple(_id(str(i)) for i in line["ids"][: MAX_TESTS + 1])
        elif kind in ("start", "end") and isinstance(name, str):
            known = _id(name)
            if known not in found and len(found) >= MAX_TESTS:
                return (*found.values(), _TOO_MANY), None  # the report is not whole
            unfinished = TestResult(id=known, outcome="unfinished")
            found[known] = unfinished if kind == "start" else _worse(found.get(known), _result(known, line, files))
    return tuple(found.values()), collected


def _evaluated(lines: list[dict[str, Any]]) -> tuple[Evaluated, ...]:
    """Return what came back of claims: the first word on each in each turn counts, what has no form of a value does not."""
    first: dict[tuple[int, int], Evaluated] = {}
    for line in lines:
        if line.get("k") != "value" or len(first) >= MAX_VALUES:
            continue
        if (value := _value(line)) is not None:
            first.setdefault((value.number, value.turn), value)
    return tuple(first[key] for key in sorted(first))


def _value(line: dict[str, Any]) -> Evaluated | None:
    try:
        return Evaluated(
            number=line["n"],
            turn=line.get("turn", 0),
            values=tuple(str(text)[:MAX_VALUE] for text in line.get("values", ())[:20]),
            raised=tuple(str(name)[:200] for name in line.get("raised", ())[:20]),
            message=str(line.get("message", ""))[:2000],
        )
    except (KeyError, TypeError, ValueError, ValidationError):
        return None


def _mutants(lines: list[dict[str, Any]]) -> tuple[MutantRun, ...]:
    """Return what became of each mutant that was begun."""
    differing: dict[int, list[Evaluated]] = {}
    ended: dict[int, bool] = {}
    for line in lines:
        number = line.get("mutant")
        if type(number) is not int or not 0 < number <= MAX_MUTANTS:
            continue
        if line.get("k") == "mutant":
            ended.setdefault(number, line.get("status") == 0)
        elif line.get("k") == "differs" and (value := _value(line)) is not None:
            differing.setdefault(number, []).append(value)
    return tuple(
        MutantRun(number=n, ended=whole, differing=tuple(differing.get(n, ())[:20]))
        for n, whole in sorted(ended.items())
    )


def _id(name: str) -> str:
    """Return a test's id; the end of a long one is its hash, so that two stay two."""
    return name if len(name) <= 400 else f"{name[:380]}…{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _worse(before: TestResult | None, now: TestResult) -> TestResult:
    """Keep a failure that was reported: a later word of the same test does not undo it."""
    ended = before is not None and before.outcome in ("failed", "error")
    return before if before is not None and ended else now


def _result(name: str, line: dict[str, Any], files: frozenset[str]) -> TestResult:
    try:
        comparison = line.get("comparison")
        frames = [Frame(file=str(f[0])[:200], line=int(f[1])) for f in line.get("frames", ())[:50]]
        params = line.get("params") or {}
        skipped_by_code = line["outcome"] == "skipped" and bool(frames) and frames[-1].file == SOLUTION_FILE
        return TestResult(
            id=name,
            outcome="failed" if skipped_by_code else line["outcome"],
            exception="Skipped" if skipped_by_code else str(line.get("exception", ""))[:200],
            message=str(line.get("message", ""))[:4000],
            traceback=str(line.get("traceback", ""))[:13000],
            frames=tuple(frame for frame in frames if frame.file in files),
            comparison=Comparison(**{k: str(comparison[k])[:2000] for k in ("op", "left", "right")})
            if comparison
            else None,
            parameters={str(k)[:80]: str(v)[:2000] for k, v in list(params.items())[:20]},
            duration_ms=max(0, int(line.get("ms", 0))),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ValidationError):
        return TestResult(
            id=name, outcome="error", exception="BrokenReport", message="The report of this test is broken."
        )


def _outcome(data: bytes) -> tuple[int | None, dict[str, bytes], tuple[str, ...], bool]:
    """Read the runner's pipe: exit status, outputs, what was rejected, and whether it ended before it had said all."""
    status, files, rejected, at, lost = None, dict[str, bytes](), list[str](), 0, True
    while (end := data.find(b"\n", at)) >= 0:
        try:
            line = json.loads(data[at:end])
            at = end + 1
            if "status" in line:
                status = int(line["status"])
            elif "path" in line:
                size, path = int(line["size"]), str(line["path"])
                if size < 0 or at + size > len(data) or not _safe(path):
                    break
                files[path] = data[at : at + size]
                at += size
            elif "rejected" in line:
                rejected, lost = [str(r)[:300] for r in line["rejected"][:50]], False
        except (ValueError, KeyError, TypeError, RecursionError):
            break
    return status, files, tuple(rejected), lost and status is not None


def _safe(path: str) -> bool:
    parts = path.split("/")
    return path.isprintable() and 0 < len(path) <= 400 and not any(p in ("", ".", "..") for p in parts)
