"""Views of a session that rules, prompts and decisions share: its files, the names it must define, calls in doubt."""

import re

from codetape.domain.findings import Finding
from codetape.domain.reply_shapes import CodePlan
from codetape.domain.task import ANCHOR_FILE, ORACLE_FILE, OUTPUT_FILE, SOLUTION_FILE, TEST_FILE, USER_FILE
from codetape.eventlog.session_state import SessionState
from codetape.rules import output_checks
from codetape.rules.pytest_source import imported_from_solution
from codetape.rules.rule_versions import RULES_VERSION


def required_names(session: SessionState) -> tuple[str, ...]:
    """Return the names that the solution must define: the plan's, and those that anchors and given tests import."""
    planned = interface_names(session.work.plan, session.rules) if session.work.plan else ()
    given = (session.anchors or "", session.the_task.tests)
    imported = [name for source in given for name in imported_from_solution(source)]
    return tuple(dict.fromkeys([*planned, *imported]))


def test_files(session: SessionState) -> dict[str, str]:
    """Return the files that a run of the tests takes: generated, anchors, the user's, outputs; empty ones left out."""
    files = {
        TEST_FILE: session.work.tests,
        ANCHOR_FILE: session.anchors or "",
        USER_FILE: session.the_task.tests,
        OUTPUT_FILE: output_checks.test_file(session.the_task),
    }
    return {name: text for name, text in files.items() if text.strip()}


def all_files(session: SessionState) -> dict[str, str]:
    """Return every file of the run by name, the solution and the oracle included."""
    return {**test_files(session), SOLUTION_FILE: session.work.code, ORACLE_FILE: session.the_task.oracle}


def findings_of_type(session: SessionState, *kinds: str | None) -> tuple[Finding, ...]:
    """Return the standing findings of these types."""
    return tuple(f for f in session.work.findings if f.error_type in kinds)


def calls_in_doubt(session: SessionState) -> tuple[str, ...]:
    """Return the calls that a second opinion is wanted on, each once."""
    return tuple(dict.fromkeys(f.call for f in session.work.findings if f.rule == "in_doubt" and f.call))


def whole_file(session: SessionState) -> bool:
    """Whether a test fix replaces the file: a failure lies outside the tests' own functions."""
    return any("::" not in f.test for f in findings_of_type(session, "test_error"))


_NAME = re.compile(r"^\s*(?:async\s+)?(?:def\s+|class\s+)?([A-Za-z_]\w*)\s*(?:\(|:|$)")


_METHOD = re.compile(r"\(\s*(?:self|cls)\b")


def interface_names(plan: CodePlan, rules: int = RULES_VERSION) -> tuple[str, ...]:
    """Return the names that a plan's interface promises at module level; methods are their class's."""
    signatures = (f.signature for f in plan.interface if rules < 3 or not _METHOD.search(f.signature))
    found = (_NAME.match(signature) for signature in signatures)
    return tuple(dict.fromkeys(m.group(1) for m in found if m and m.group(1) not in ("if", "python")))
