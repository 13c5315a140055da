"""The page of one session: its verdict, its states in order, its tests by runs, and each call with its prompt."""

import shlex
from dataclasses import dataclass
from typing import Any

from codetape.eventlog import machine
from codetape.inspector.charts import bar
from codetape.inspector.listings import diff_lines, marked, python
from codetape.inspector.rendering import Links, render
from codetape.ports import Stream
from codetape.reporting.event_text import server_line
from codetape.reporting.timeline import ModelCall, Timeline, Visit, timeline
from codetape.reporting.verdict import verdict_of
from codetape.rules.evidence import in_words
from codetape.rules.failing_tests import FailingTest
from codetape.runtime.result import GenerateResult
from codetape.text.escape import first_line

# A page stays one that a browser can show, whatever a tape holds; a session of the loop is far below each of these.
MAX_TESTS, MAX_COLUMNS = 200, 80  # rows and columns of the grid
MAX_VISITS, MAX_OF_VISIT, MAX_LINES = 1_000, 50, 200
MAX_CALLS = 1_000  # rows of the spend
MAX_TEXT = 1_000_000  # characters of a reply
MAX_PAGE = 24_000_000  # characters of prompts and replies in a page that stands alone
_GLYPHS = {"passed": "✓", "failed": "✗", "error": "!", "unfinished": "…", "absent": "·"}
_IDLE = "-"
_RUNS = {"confirm": "confirmed", "oracle": "oracle"}


@dataclass(frozen=True)
class Neighbours:
    """The sessions before and after this one in the list, by id; empty where there is none."""

    newer: str = ""
    older: str = ""


@dataclass(frozen=True)
class SessionView:
    """A session that was read for its page, and its stream."""

    stream: Stream
    result: GenerateResult
    timeline: Timeline

    @classmethod
    def of(cls, stream: Stream) -> "SessionView":
        """Read a stream."""
        found = timeline(stream)
        return cls(stream, GenerateResult.of(found.state, stream), found)


def session_page(
    view: SessionView,
    links: Links,
    *,
    neighbours: Neighbours | None = None,
    database: tuple[str, ...] = (),
    file: str = "",
    findings: tuple[str, ...] = (),
    more: tuple[tuple[str, str], ...] = (),
) -> str:
    """Return the page. ``database`` are the words that commands need to find the session, ``file`` is the tape that it
    was read from, if any; ``findings`` say what is wrong with its log, ``more`` are further facts."""
    result, line, room = view.result, view.timeline, [MAX_PAGE]
    verdict = verdict_of(result, line.state)
    return render(
        "session.html",
        links,
        title=f"{result.task}: {result.status}",
        head=result.head,
        result=result,
        asked=first_line(result.prompt, 200),
        longer=len(result.prompt.strip()) > len(first_line(result.prompt, 200)),
        verdict=verdict,
        failing=[(failure.test, _values(failure)) for failure in verdict.failing[:10]],
        left_open=result.evidence.open if result.succeeded else (),
        failing_more=max(0, len(verdict.failing) - 10),
        facts=[*_facts(view), *more],
        evidence=in_words(result.evidence) if result.succeeded else [],
        findings=findings,
        visits=[_visit(view, visit, links, database, file, room) for visit in line.visits[:MAX_VISITS]],
        visits_more=max(0, len(line.visits) - MAX_VISITS),
        columns=[
            (c.seq, f"run {c.number}" if c.number else _RUNS[c.purpose], _tally(c.report))
            for c in line.columns[-MAX_COLUMNS:]
        ],
        tests=[_test(row) for row in line.tests[:MAX_TESTS]],
        tests_more=max(0, len(line.tests) - MAX_TESTS),
        spend=_spend(line.calls),
        versions=line.state.versions.model_dump(mode="json") if line.state.versions else {},
        commands=_commands(result, line.state.cause, database, file=file),
        code=python(result.solution.code) if result.solution else "",
        neighbours=neighbours or Neighbours(),
    )


def call_body(view: SessionView, seq: int, links: Links) -> str | None:
    """Return one call's prompt and reply as a part of the page; None where there is no such call."""
    call = next((call for call in view.timeline.calls if call.seq == seq), None)
    return render("call.html", links, call=_call(call)) if call else None


def _values(failure: FailingTest) -> list[tuple[str, Any]]:
    """Return a failing test's details, what differs between its two values marked."""
    details = dict(failure.details)
    if failure.left and failure.right:
        details |= zip(("left", "right"), marked(failure.left, failure.right), strict=True)
    return list(details.items())


def _facts(view: SessionView) -> list[tuple[str, str]]:
    result, state = view.result, view.timeline.state
    usage = result.usage
    return [
        ("model", result.config.model),
        *(("server", line) for line in filter(None, [server_line(state.the_config)])),
        ("runs of the tests", str(result.iterations)),
        ("tokens", f"{usage.total_input:,} in, {usage.total_output:,} out, {result.calls} calls"),
        ("money", result.paid),
        ("begun", f"{state.started_at[:19].replace('T', ' ')} UTC"),
        ("took", f"{result.duration_s:,.1f} s"),
        *((("forked from", f"{result.parent} at event {result.forked_at}"),) if result.parent else ()),
    ]


def _tone(state: str) -> str:
    if state == "succeeded":
        return "good"
    if state == "failed":
        return "bad"
    return "waiting" if state == "suspended" else "active" if state in machine.ACTIVE else "plain"


def _visit(
    view: SessionView, visit: Visit, links: Links, database: tuple[str, ...], file: str, room: list[int]
) -> dict[str, Any]:
    run = visit.run + 1 if visit.state in machine.ACTIVE else 0  # as everywhere: the run that it leads to
    session = view.result.session
    return {
        "number": visit.number,
        "state": visit.state,
        "words": visit.state.replace("_", " "),
        "run": run,
        "first": visit.first,
        "last": visit.last,
        "seconds": visit.seconds,
        "tokens": visit.tokens,
        "tone": _tone(visit.state),
        "calls": [{**_figures(call), **_body(call, links, room)} for call in visit.calls[:MAX_OF_VISIT]],
        "runs": [_run(run) for run in visit.runs[:MAX_OF_VISIT]],
        "changes": [
            {**vars(change), "code": len(change.code.splitlines()), "lines": diff_lines(change.diff)[:2000]}
            for change in visit.changes[:MAX_OF_VISIT]
        ],
        "lines": visit.lines[:MAX_LINES],
        "fork": shlex.join(["codetape", "fork", session, *database, "--at", str(visit.last)]),
        "why": shlex.join(["codetape", "why", f"{file or session}:{visit.last}", *database]),
    }


def _run(run: Any) -> dict[str, Any]:
    return {
        "seq": run.seq,
        "purpose": run.purpose,
        "tally": _tally(run.report),
        "failing": [(failure.test, failure.details) for failure in run.failing[:10]],
        "more": max(0, len(run.failing) - 10),
        "printed": "\n".join(filter(None, (run.report.stdout.strip(), run.report.stderr.strip())))[-4000:],
    }


def _tally(report: Any) -> str:
    passed, bad = len(report.passed), len(report.failing)
    ended = "" if report.exit in ("ok", "tests_failed") else f", {report.exit.replace('_', ' ')}"
    return f"{passed} passed, {bad} failed{ended}"


def _test(row: Any) -> dict[str, Any]:
    file, _, name = row.test.rpartition("::")
    return {
        "file": file,
        "name": name,
        "aside": row.aside,
        "blind": row.blind,
        "cells": [(outcome, _GLYPHS.get(outcome, _IDLE), words) for outcome, words in row.cells[-MAX_COLUMNS:]],
    }


def _figures(call: ModelCall) -> dict[str, Any]:
    record = call.record
    tokens = record.total_input + record.total_output if record else 0
    return {
        "seq": call.seq,
        "purpose": call.purpose.replace("_", " "),
        "disposition": record.disposition if record else "open",
        "input": record.total_input if record else 0,
        "cached": record.cache_read if record else 0,
        "output": record.total_output if record else 0,
        "reasoning": record.reasoning if record else 0,
        "tokens": tokens,
        "cost": record.paid if record else "no answer",
        "seconds": record.duration_ms / 1000 if record else 0.0,
        "run": record.iteration + 1 if record else 0,
        "state": record.state if record else "",
    }


def _call(call: ModelCall) -> dict[str, Any]:
    record = call.record
    return {
        "seq": call.seq,
        "messages": call.messages(),
        "thoughts": call.thoughts[:MAX_TEXT],
        "reply": call.reply[:MAX_TEXT],
        "refusal": call.refusal[:MAX_TEXT],
        "outcome": call.outcome,
        "model": call.answered_by,
        "tries": record.tries if record else 0,
    }


def _body(call: ModelCall, links: Links, room: list[int]) -> dict[str, Any]:
    """Return a call's prompt and reply for a page that stands alone, as long as there is room; served pages ask for them."""
    if links.base:
        return {"left_out": False}
    room[0] -= sum(len(text) for _, text in call.sent) + len(call.reply) + len(call.thoughts)
    return {**_call(call), "left_out": False} if room[0] > 0 else {"left_out": True}


def _spend(calls: tuple[ModelCall, ...]) -> list[dict[str, Any]]:
    rows = [_figures(call) for call in calls[:MAX_CALLS]]
    most = max((row["tokens"] for row in rows), default=0)
    wasted = ("rejected", "repair", "unusable", "transport retry", "abandoned")
    for row in rows:
        row["bar"] = bar(row["tokens"], most, tone="waste" if row["disposition"] in wasted else "plain")
    return rows


def _commands(result: GenerateResult, cause: str, database: tuple[str, ...], *, file: str) -> list[tuple[str, str]]:
    name = file or result.session

    def command(*words: str) -> str:
        return shlex.join(["codetape", *words, *database])

    kept = (
        ("add it to the database, to fork it", command("import", name))
        if file
        else ("write it to one file", command("export", name, "-o", f"{name}.tape.jsonl"))
    )
    on = []
    if not file and result.status == "suspended":
        on = [("continue where it stopped", command("resume", name))]
    elif not file and result.status == "failed" and cause == "iterations":
        on = [("give it more runs", command("resume", name, "--max-iterations", str(result.iterations + 5)))]
    return [
        *on,
        ("check that every decision follows from what was recorded", command("replay", name)),
        ("run everything again in a sandbox", command("replay", name, "--sandbox", "live")),
        kept,
        ("write its failing tests as a pytest file", command("export", name, "--pytest", "-o", "test_recorded.py")),
        ("account for it in one report", command("audit", name)),
    ]
