"""A check's report in the forms that people and machines read: JSON, Markdown, JUnit XML, CSV.

The page is `codetape.inspector.check_page`.
"""

import json
from collections.abc import Callable
from xml.etree import ElementTree

from codetape.domain.money import money, pico
from codetape.evals.judge import CheckReport, SolveRate, TaskOutcome
from codetape.text import csv_table, escape, markdown_text

_COLUMNS = ("task", "graded by", "control", "candidate", "change", "without outcome")


def as_json(report: CheckReport) -> str:
    """Return the report as one JSON object; `--baseline` reads it again."""
    return json.dumps(report.as_dict(), indent=1, default=list, sort_keys=True) + "\n"


def as_csv(report: CheckReport) -> str:
    """Return one row per task."""
    return csv_table.csv_text(report.records())


def as_markdown(report: CheckReport) -> str:
    """Return the report as Markdown, for a pull request."""
    lines = [f"# codetape check: {report.verdict}", "", markdown_text.markdown(report.why), ""]
    lines += [markdown_text.markdown_table(("", ""), facts(report)), "", "## Tasks", ""]
    lines.append(markdown_text.markdown_table(_COLUMNS, map(_cells, report.rows)))
    return "\n".join(lines) + "\n"


def as_junit(report: CheckReport) -> str:
    """Return JUnit XML: a case for the verdict, and one per task, which fails only where the verdict does.

    A task with an attempt that has no outcome is an error, and never a failure; one that cannot be compared is skipped.
    """
    suite = ElementTree.Element("testsuite", name=f"codetape check {report.id}")
    case = ElementTree.SubElement(suite, "testcase", classname="codetape.check", name="verdict")
    if report.verdict == "regression":
        ElementTree.SubElement(case, "failure", message=escape.shown(report.why), type="regression")
    elif report.verdict in ("inconclusive", "no outcome"):
        ElementTree.SubElement(case, "skipped", message=escape.shown(report.why))
    reasons = {
        o.made.task: o.made.reason for o in report.outcomes if o.made.solved is None and o.made.cause != "budget"
    }
    for row in report.rows:
        case = ElementTree.SubElement(suite, "testcase", classname="codetape.check.task", name=escape.shown(row.task))
        text = f"candidate {row.candidate_solved}/{row.candidate_attempts}, control {row.control_solved}/{row.control_attempts}"
        if row.errors:
            ElementTree.SubElement(
                case, "error", message=escape.shown(reasons.get(row.task, ""))[:500], type="infrastructure"
            )
        elif row.change == "unknown":
            ElementTree.SubElement(case, "skipped", message=text)
        elif row.change == "worse" and report.verdict == "regression":
            ElementTree.SubElement(case, "failure", message=text, type="worse")
        ElementTree.SubElement(case, "system-out").text = f"{row.change}: {text}"
    counted = (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    for name, tag in counted:
        suite.set(name, str(len(suite.findall(f".//{tag}"))))
    out = ElementTree.SubElement(suite, "system-out")
    out.text = escape.shown(f"{report.verdict}: {report.why}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


FORMS: dict[str, Callable[[CheckReport], str]] = {
    ".json": as_json,
    ".csv": as_csv,
    ".md": as_markdown,
    ".junit.xml": as_junit,
}


def facts(report: CheckReport) -> list[tuple[str, str]]:
    """Return the facts beside the verdict, as pairs of name and value."""
    rows = [
        ("check", f"{report.id}, round {report.round}" + (f"; {report.found} attempts were there before" if report.found else "")),
        ("change", ", ".join(filter(None, ("prompts" if report.prompts else "", *(f"{k}={v}" for k, v in report.config.items())))) or "none"),
        ("sessions", f"{report.sessions_changed} that it alters, {report.sessions_same} that it leaves alone, {report.skipped} without an end"),
        ("candidate", rate(report.candidate)),
        ("control", f"{report.control}: {rate(report.control_rate)}" if report.control != "none" else "none"),
        ("test", f"{report.test}, p = {report.p:.3g}" if report.p is not None else "none"),
    ]  # fmt: skip
    if report.drifted:
        rows.append(("sandbox", f"another than {report.drifted} of the sessions ran in"))
    if report.difference is not None and report.low is not None and report.high is not None:
        rows.append(
            (
                "difference",
                f"{report.difference:+.1%}, 95 % from {report.low:+.1%} to {report.high:+.1%} (bootstrap over tasks)",
            )
        )
    if report.power is not None:
        rows.append((f"power for {report.margin:.0%}", f"{report.power:.0%}; 80 % with {report.tasks_needed} tasks"))
    graded = (
        f"{report.self_graded} of {len(report.rows)} tasks by their own tests"
        if report.self_graded
        else "all by an oracle"
    )
    rows += [
        ("graded", graded),
        ("attempts", f"{report.attempts}, {report.errors} without an outcome" + (", cut short by the budget" if report.budget_spent else "")),
        ("calls", f"n_fresh {report.n_fresh}, n_reused {report.n_reused}"),
        ("tokens", f"{report.input_tokens:,} in, {report.output_tokens:,} out, reused ones among them"),
        ("money", money(pico(report.cost), report.unpriced)),
    ]  # fmt: skip
    return rows


def rate(value: SolveRate) -> str:
    """Return a rate in words."""
    if not value.attempts:
        return "no outcome"
    best = ", ".join(f"pass@{k} {p:.0%}" for k, p in value.pass_at_k.items() if k != "1")
    more = f"; {best}" if best else ""
    return f"{value.mean:.0%} of tasks ({value.solved} of {value.attempts} attempts), 95 % from {value.low:.0%} to {value.high:.0%}{more}"


def _cells(row: TaskOutcome) -> tuple[object, ...]:
    return (
        row.task,
        row.graded,
        f"{row.control_solved}/{row.control_attempts}",
        f"{row.candidate_solved}/{row.candidate_attempts}",
        row.change,
        row.errors or "",
    )
