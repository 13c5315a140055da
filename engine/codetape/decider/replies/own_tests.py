"""Replies that write, fix and check the session's own tests."""

from codetape.decider.environments import MAX_ASKS
from codetape.decider.step import Read, Step, quarantine_facts, unusable
from codetape.domain.findings import Finding, Quarantined
from codetape.domain.reply_shapes import Fix, FixVerification, Opinion
from codetape.domain.task import TEST_FILE
from codetape.eventlog.session_state import SessionState
from codetape.prompts.reply_forms import as_block
from codetape.prompts.reply_parser import Unusable, python, read_json, read_patches, read_tests
from codetape.rules.pytest_source import (
    apply_patches,
    file_of,
    functions,
    imports_in,
    name_of,
    names,
    patches_of,
    text_of,
    with_tests,
)
from codetape.rules.session_view import required_names, whole_file


def tests_form(session: SessionState, text: str) -> str:
    """Return the block that holds tests, where there is just one."""
    return as_block(text, lambda source: bool(names(source)))


def fixed_form(session: SessionState, text: str) -> str:
    """Return the block that holds test functions, where there is just one."""
    return as_block(text, lambda source: bool(functions(source)))


def tests(session: SessionState, text: str) -> Read:
    """A test file, vetted before it counts. What was quarantined under the same names counts again."""
    value = read_tests(text, required_names(session))
    if isinstance(value, Unusable):
        return value
    if session.ledger.adding:
        return _added(session, value)
    kept = tuple(q for q in session.work.quarantined if not _counts_again(q.test, value))
    return Step(
        "tests",
        work={"tests": value, "quarantined": kept, "vacuous": ()},
        done=("writing_tests",),
        owes=("resolving", "vetting"),
    )


def _counts_again(test: str, rewritten: str) -> bool:
    """Whether what was quarantined is another test now: one of that name was written again, or the whole file was."""
    return file_of(test) == TEST_FILE and ("::" not in test or name_of(test) in names(rewritten))


def _added(session: SessionState, new: str) -> Step:
    """Further tests stand below those that there are; the code may fail them, and then they are weighed as any others."""
    try:
        value = with_tests(session.work.tests, new)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        value = session.work.tests
    same = value == session.work.tests
    return Step(
        "tests",
        reason="unchanged" if same else "added",
        ledger={"adding": False},
        work={"tests": value, "vacuous": session.work.vacuous if same else ()},
        done=("writing_tests",),
        owes=("resolving", "executing") if same else ("resolving", "vetting", "executing"),
    )


def fix_tests(session: SessionState, text: str) -> Read:
    """Patches to the tests at fault, or the whole file again where the fault lies outside its tests."""
    old, asks = session.work.tests, session.ledger.fix_asks + 1
    at_fault = [f for f in session.work.findings if f.error_type == "test_error"]
    wanted = tuple(dict.fromkeys(name_of(f.test) for f in at_fault))
    if whole_file(session):
        new = read_tests(text, required_names(session))
    else:
        block = read_patches(text, wanted)
        new = block if isinstance(block, Unusable) else _patched(old, block)
    if isinstance(new, Unusable):
        return new
    unchanged = tuple(_owed_test(f) for f in at_fault if text_of(new, f.test) == text_of(old, f.test))
    same = new == old or (unchanged and not whole_file(session))
    if same and asks < MAX_ASKS:
        missing = unchanged or tuple(_owed_test(f) for f in at_fault)
        return Step(
            "fix_tests",
            reason="unchanged",
            ledger={"fix_asks": asks},
            work={"tests": new, "missing": missing},
            target="fixing_tests",
        )
    unsettled = tuple(_owed_test(f) for f in at_fault if not _says(f, text_of(new, f.test), session.work.opinions))
    vanished = _vanished(session, old, new)
    return Step(
        "fix_tests",
        ledger={"fix_asks": asks},
        work={
            "tests": new,
            "missing": unsettled,
            "quarantined": (*session.work.quarantined, *vanished),
        },
        done=("fixing_tests",),
        owes=(*(("verifying_tests",) if unsettled else ()), "resolving", "vetting", "executing"),
        notes=quarantine_facts(vanished),
    )


def _patched(old: str, block: str) -> str | Unusable:
    try:
        return python(apply_patches(old, patches_of(block), imports_in(block)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Unusable("syntax", "The patched file is no valid Python.")


def _owed_test(finding: Finding) -> Fix:
    return Fix(id=finding.test, old="", new="", reason=finding.root_cause)


def _says(finding: Finding, text: str, opinions: tuple[Opinion, ...]) -> bool:
    """Whether the fixed test's text holds the value that the specification was found to say, if one was."""
    if finding.rule not in ("refuted", "third"):
        return True
    said = [o.value.strip() for o in opinions if o.test == finding.call]
    return not said or said[-1].replace('"', "'") in text.replace('"', "'")


def _vanished(session: SessionState, old: str, new: str) -> tuple[Quarantined, ...]:
    known = {q.test for q in session.work.quarantined}
    ids = [f"{TEST_FILE}::{n}" for n in names(old) if n not in names(new)]
    return tuple(Quarantined(test=i, reason="vanished", words="A rewrite left it out.") for i in ids if i not in known)


def verify_tests(session: SessionState, text: str) -> Read:
    """Tests that are still at fault owe fixing again, up to the limit of asks."""
    value = read_json("verify_tests", text)
    if not isinstance(value, FixVerification):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no verification.")
    still = {name_of(name) or name for name in value.missing_fixes}
    missing = tuple(f for f in session.work.missing if (name_of(f.id) or f.id) in still)
    again = bool(missing) and session.ledger.fix_asks < MAX_ASKS
    return Step(
        "verify_tests",
        reason="missing" if missing else "",
        work={"missing": missing if again else ()},
        done=("verifying_tests",),
        owes=("fixing_tests",) if again else (),
    )


def without_tests(session: SessionState, why: Unusable) -> Step:
    """Examples and given tests may do without own ones; without those there is nothing to judge by."""
    if session.ledger.adding:
        owes = ("resolving", "executing")
        return Step(
            "tests", usable=False, reason=why.reason, ledger={"adding": False}, done=("writing_tests",), owes=owes
        )
    if not (session.anchors or session.the_task.tests):
        return unusable("tests", why)
    return Step("tests", usable=False, reason=why.reason, done=("writing_tests",), owes=("resolving", "vetting"))


def unfixed(session: SessionState, why: Unusable) -> Step:
    """Tests that cannot be fixed are quarantined; a broken file is written again, once."""
    if whole_file(session):
        again = not session.ledger.rewritten
        return Step(
            "fix_tests",
            usable=False,
            reason=why.reason,
            done=("fixing_tests",),
            owes=("writing_tests", "resolving", "executing") if again else ("resolving", "vetting", "executing"),
            ledger={"rewritten": True},
            work={} if again else {"tests": ""},
        )
    known = {q.test for q in session.work.quarantined}
    gone = tuple(
        Quarantined(test=f.test, reason="unfixed", words=f.root_cause)
        for f in session.work.findings
        if f.error_type == "test_error" and file_of(f.test) == TEST_FILE and f.test not in known
    )
    return Step(
        "fix_tests",
        usable=False,
        reason=why.reason,
        done=("fixing_tests",),
        owes=("vetting", "executing"),
        work={"quarantined": (*session.work.quarantined, *gone)},
        notes=quarantine_facts(gone),
    )


def unverified(session: SessionState, why: Unusable) -> Step:
    """A check that is not made holds nothing up."""
    return Step("verify_tests", usable=False, reason=why.reason, done=("verifying_tests",), work={"missing": ()})
