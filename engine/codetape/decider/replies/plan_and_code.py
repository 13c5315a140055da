"""Replies that hold a plan or a program, and the check that fixes were applied."""

from typing import Any

from codetape.decider.environments import MAX_ASKS
from codetape.decider.remedies import sample_key
from codetape.decider.step import Read, Step, unusable
from codetape.domain.reply_shapes import CodePlan, Fix, FixVerification
from codetape.domain.task import ANCHOR_FILE, TEST_FILE, USER_FILE
from codetape.eventlog.session_state import SessionState
from codetape.prompts.reply_forms import as_block
from codetape.prompts.reply_parser import Unusable, read_code, read_json
from codetape.rules.assertion_claims import claim_of
from codetape.rules.pytest_source import defined_names, file_of, imported_from_solution
from codetape.rules.session_view import interface_names, required_names
from codetape.rules.special_cases import special_cases


def plan(session: SessionState, text: str) -> Read:
    """A plan offers an interface, and in it every name that the task's examples and tests use."""
    value = read_json("plan", text)
    if not isinstance(value, CodePlan):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no plan.")
    offered = interface_names(value, session.rules)
    if not offered:
        return Unusable("interface", "The interface names no function.")
    if missing := [name for name in imported_from_solution(session.anchors or "") if name not in offered]:
        return Unusable("interface", f"The interface does not offer what the examples call: {', '.join(missing)}.")
    return Step("plan", work={"plan": value})


def code_form(session: SessionState, text: str) -> str:
    """Return the block that defines what the interface asks for, where there is just one."""
    required = {*required_names(session)}
    return as_block(text, lambda source: bool(names := {*defined_names(source)}) and required <= names)


def code(session: SessionState, text: str) -> Read:
    """A script: taken as it is, then held against the fixes that are owed."""
    value = read_code(text, required_names(session))
    if isinstance(value, Unusable):
        return value
    asks = session.ledger.code_asks + 1
    ledger: dict[str, Any] = {"code_asks": asks, "from_plan": False}
    if session.rules > 2 and (session.ledger.from_plan or not session.work.code):
        ledger["samples"] = (*session.ledger.samples, sample_key(value))
    pending = () if session.ledger.from_plan else (session.work.missing or session.work.fixes)
    if session.rules > 1 and not session.ledger.from_plan and (answered := _special_cases(session, value)):
        return _not_taken(session, answered, ledger)
    if pending and value == session.work.code and asks < MAX_ASKS:
        return Step("code", reason="unchanged", ledger=ledger, work={"missing": pending}, target="coding")
    unsettled = tuple(f for f in pending if not applied(f, value))
    verify = bool(unsettled) and value != session.work.code
    return Step(
        "code",
        ledger=ledger,
        work={"code": value, "missing": unsettled if verify else ()},
        done=("coding",),
        owes=(*(("verifying_code",) if verify else ()), "resolving", "executing")
        if not session.the_config.skip_tests
        else (*(("verifying_code",) if verify else ()), "resolving"),
    )


def _special_cases(session: SessionState, code: str) -> tuple[str, ...]:
    """Return the calls of failing tests that a change answers by themselves: own tests, examples and given tests."""
    results = session.work.report.failing if session.work.report else ()
    sources = {TEST_FILE: session.work.tests}
    if session.rules > 2:
        sources |= {ANCHOR_FILE: session.anchors or "", USER_FILE: session.the_task.tests}
    claims = [
        claim_of(sources[file_of(r.id)], r, session.rules) for r in results if file_of(r.id) in sources and r.frames
    ]
    return special_cases(session.work.code, code, [claim for claim in claims if claim])


def _not_taken(session: SessionState, answered: tuple[str, ...], ledger: dict[str, Any]) -> Step:
    """A change that special-cases failing tests is a spent attempt: it and its fixes are forgotten."""
    calls = ", ".join(answered[:3])
    note = f"A change was not taken: it compares with the arguments of {calls} and returns what the test expects. A rule must be mended, not one call."
    return Step(
        "code",
        usable=False,
        reason="special_case",
        ledger=ledger,
        work={"fixes": (), "missing": (), "notes": (*session.work.notes, note)[-12:]},
        done=("coding", "verifying_code"),
        owes=("resolving", "executing"),
    )


def applied(fix: Fix, code: str) -> bool:
    """Whether comparing the texts settles that the fix is there: the old text is gone, the new is there."""
    new, old = fix.new.strip(), fix.old.strip()
    return bool(new) and new in code and (not old or old not in code or old in new)


def verify_logic_fixes_applied(session: SessionState, text: str) -> Read:
    """Missing fixes owe coding again, with more information, up to the limit of asks."""
    value = read_json("verify_code", text)
    if not isinstance(value, FixVerification):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no verification.")
    missing = tuple(f for f in session.work.missing if f.id in value.missing_fixes)
    again = bool(missing) and session.ledger.code_asks < MAX_ASKS
    return Step(
        "verify_code",
        reason="missing" if missing else "",
        work={"missing": missing if again else ()},
        done=("verifying_code",),
        owes=("coding",) if again else (),
    )


def without_plan(session: SessionState, why: Unusable) -> Step:
    """Nothing can be done without a plan."""
    return unusable("plan", why)


def without_code(session: SessionState, why: Unusable) -> Step:
    """Without a first program the session fails; later the program that stands is run again."""
    if session.work.report is None:
        return unusable("code", why)
    ledger = {"from_plan": False}
    return Step("code", usable=False, reason=why.reason, done=("coding",), owes=("executing",), ledger=ledger)


def unverified(session: SessionState, why: Unusable) -> Step:
    """A check that is not made holds nothing up."""
    return Step("verify_code", usable=False, reason=why.reason, done=("verifying_code",), work={"missing": ()})
