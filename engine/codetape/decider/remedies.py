"""What is done where every way to fix a failure is spent: the best program, opinions on examples, a fresh sample, a
vote, a person."""

from dataclasses import replace

from codetape.decider.executions import context_of, execution_key, solved
from codetape.decider.step import Step, Stop, quarantine_facts
from codetape.decider.triage import after_quarantine, findings_of, owing
from codetape.domain.canonical import sha256
from codetape.domain.findings import EXAMPLE, Checkpoint, Finding, Quarantined, Question
from codetape.domain.report import Report
from codetape.domain.task import ANCHOR_FILE, TEST_FILE
from codetape.eventlog.session_state import SessionState
from codetape.rules.assertion_claims import RAISES, actual_of, claim_of
from codetape.rules.classify import classify
from codetape.rules.pytest_source import file_of, name_of, text_of
from codetape.rules.reclassify import OUTVOTED

CRASHES = frozenset({"raised_in_solution", "ended_process", "timeout", "oom", "pids", "output_cap"})
"""Rules of failures in which the code gave nothing that a test could be wrong about."""


def sample_key(code: str) -> str:
    """Return what a program that was drawn from the plan is known by."""
    return sha256(code)[:16]


def is_drawn(session: SessionState, code: str) -> bool:
    """Whether a program was drawn from the plan alone, and not made by changing another."""
    return sample_key(code) in session.ledger.samples


def rank(session: SessionState, stand: Checkpoint, quarantined: set[str]) -> tuple[int, int, bool]:
    """Return how good a program is: examples and given tests passed, own tests that stand as they are now, and whether it
    was drawn from the plan: a change made for a test that still fails is worth nothing."""
    passed = [t for t in stand.report.passed if t not in quarantined and t not in session.work.vacuous]
    own = [t for t in passed if file_of(t) == TEST_FILE and text_of(stand.tests, t) == text_of(session.work.tests, t)]
    return len([t for t in passed if file_of(t) != TEST_FILE]), len(own), is_drawn(session, stand.code)


def better(session: SessionState, stand: Checkpoint, quarantined: set[str]) -> Checkpoint:
    """Return the better one of the best program so far and this one.

    Of equals the earlier: a change that mended nothing that can be seen may have broken what cannot. (Earlier versions of
    the rules took the later.)
    """
    best = session.work.best
    if best is None or best.code == stand.code:
        return stand
    before, now = rank(session, best, quarantined), rank(session, stand, quarantined)
    return best if before > now or (before == now and session.rules > 2) else stand


def best_of(session: SessionState, step: Step, *, last: bool = False) -> Step:
    """Return the step with the best program in the place of the present one, and what its report owes.

    Where the tests were changed since it ran, it takes the place only as the ``last`` word, and owes a run.
    """
    best: Checkpoint | None = step.work.get("best", session.work.best)
    tests = step.work.get("tests", session.work.tests)
    if best is None or best.code == step.work.get("code", session.work.code):
        return step
    work = {**step.work, "code": best.code, "fixes": (), "missing": (), "diagnosis": None}
    if best.tests != tests:
        work |= {"report": best.report, "findings": (), "checkpoint": None}
        owed = ("resolving", "vetting", "executing")
        return replace(step, work=work, owes=owed, done=BEFORE_RUN) if last else step
    known = {q.test for q in step.work.get("quarantined", session.work.quarantined)}
    findings = tuple(f for f in findings_of(session, best.report, best.code) if f.test not in known)
    stand = best.model_copy(update={"findings": findings})
    step = replace(
        step,
        ledger={**step.ledger, "executed": execution_key(session, best.report, best.code)},
        work={**work, "report": best.report, "findings": findings, "checkpoint": stand},
    )
    return owing(session, step, findings)


def standing_report(session: SessionState, step: Step) -> Report:
    """Return the report that a step stands on."""
    report: Report | None = step.work.get("report", session.work.report)
    if report is None:
        raise ValueError("there is no report to judge")
    return report


def outvoted(session: SessionState, step: Step) -> tuple[Finding, ...]:
    """Return the failing own tests, where all examples and given tests pass and most own tests do; else none."""
    report = standing_report(session, step)
    findings: tuple[Finding, ...] = step.work.get("findings", session.work.findings)
    quarantined = {q.test for q in step.work.get("quarantined", session.work.quarantined)}
    return findings if is_minority(session, report, findings, quarantined) else ()


def is_minority(session: SessionState, report: Report, findings: tuple[Finding, ...], quarantined: set[str]) -> bool:
    """Whether what fails is expectations of own tests, fewer than those that pass, and nothing else.

    Code that crashes where a value is expected says nothing against the test.
    """
    if any(f.rule in CRASHES for f in findings):
        return False
    failing = {t.id for t in report.failing} - quarantined
    own = [
        t for t in report.passed if file_of(t) == TEST_FILE and t not in quarantined and t not in session.work.vacuous
    ]
    settled = failing == {f.test for f in findings} and all(
        file_of(t) == TEST_FILE and "::" in t and report.outcome_of(t) != "unfinished" for t in failing
    )
    return settled and len(own) > len(failing) and solved(session, report, quarantined | failing)


def set_aside(session: SessionState, step: Step, findings: tuple[Finding, ...], reason: str) -> Step:
    """Return the step with tests quarantined for a reason."""
    gone = tuple(Quarantined(test=f.test, reason=reason, words=f.words or f.root_cause) for f in findings)
    left = tuple(f for f in step.work.get("findings", session.work.findings) if f not in findings)
    return replace(
        step,
        work={
            **step.work,
            "findings": left,
            "quarantined": (*step.work.get("quarantined", session.work.quarantined), *gone),
        },
        notes=(
            *step.notes,
            *quarantine_facts(gone),
        ),
    )


def spent(session: SessionState, step: Step) -> Step:
    """Every way to fix a failure is spent: the next remedy is taken at once.

    The best program stands again. Then, in this order: examples that outlived a fix are judged by two opinions; one
    sample is
    drawn from the plan; own tests that most others speak against are set aside; a person is asked about an example; the
    end.
    """
    agreed = agreement(session, step)
    step = best_of(session, step)
    examples = [f.test for f in step.work["findings"] if _may_be_doubted(session, f)]
    if examples and not {*examples} <= {*session.ledger.doubted}:
        return doubted(session, step, examples)
    aside = outvoted(session, step) or (step.work["findings"] if agreed else ())
    if not session.ledger.fresh:
        return _fresh(step, again=not aside)
    return vote(session, step, aside) if aside else _stalled(session, step)


def _may_be_doubted(session: SessionState, finding: Finding) -> bool:
    """Whether opinions may still say that a failure is right: of an example, or of an exception where a value is expected."""
    return (finding.rule == "anchor" and finding.judged == "no") or (
        session.rules > 2 and finding.rule == "raised_in_solution" and finding.test not in session.ledger.doubted
    )


def agreement(session: SessionState, step: Step) -> bool:
    """Whether two programs drawn from the plan, each by itself, come to the same in every test, and only own ones fail.

    They outvote the tests that say otherwise: those share one author's reading, the programs do not.
    """
    best, report = session.work.best, standing_report(session, step)
    code = step.work.get("code", session.work.code)
    if session.rules < 3 or best is None or not (is_drawn(session, code) and is_drawn(session, best.code)):
        return False
    known = {q.test for q in step.work.get("quarantined", session.work.quarantined)}
    failing = {t.id for t in report.failing} - known
    own = all(file_of(test) == TEST_FILE and "::" in test for test in failing)
    crashed = any(f.rule in CRASHES for f in step.work.get("findings", session.work.findings))
    other = best.code.split() != code.split() and best.tests == step.work.get("tests", session.work.tests)
    same = other and told(best.report) == told(report)
    return own and same and not crashed and solved(session, report, known | failing)


def told(report: Report) -> dict[str, tuple[str, str, str]]:
    """Return what is to be seen of each test: two reports that tell the same leave nothing to choose."""
    return {t.id: (t.outcome, t.exception, t.message) for t in report.tests}


BEFORE_RUN = ("judging", "diagnosing", "coding", "verifying_code", "fixing_tests", "verifying_tests")


def example(name: str) -> str:
    """Return the subject of a question about an example, by its test's name or id."""
    return EXAMPLE + (name if "::" in name else f"{ANCHOR_FILE}::{name}")


def _stalled(session: SessionState, step: Step) -> Step:
    """The end of the loop's means: a person is asked about a test that alone stays in the way, else the session fails."""
    answers = dict(session.answers)
    for finding in step.work["findings"]:
        if EXAMPLE + finding.test not in answers and _is_for_a_person(session, step, finding):
            return ask_person(session, step, finding)
    message = "The same tests kept failing after every fix, and after one fresh attempt from the plan."
    return replace(step, halt=Stop("failed", "stalled", f"{message}{looks_right(session, step)}"))


def ask_person(session: SessionState, step: Step, finding: Finding) -> Step:
    """Return the step that puts a test to a person, and waits: what is pending then is a run."""
    reason = _question(session, step.work["checkpoint"], finding)
    question = Question(kind="example", subject=EXAMPLE + finding.test, reason=reason)
    return replace(
        step,
        work={**step.work, "question": question},
        owes=("executing",),
        done=BEFORE_RUN,
        halt=Stop("suspended", "question", reason, "question"),
    )


def _is_for_a_person(session: SessionState, step: Step, finding: Finding) -> bool:
    """Whether a person can settle a failure by a word: an example of the task, or an own test where nothing else fails
    that readers of the task say is right."""
    if file_of(finding.test) == ANCHOR_FILE:
        return True
    own = session.rules > 2 and file_of(finding.test) == TEST_FILE and "::" in finding.test
    settled = any(other.judged == "upheld" for other in step.work["findings"])
    return own and not settled and bool(looks_right(session, step))


def looks_right(session: SessionState, step: Step) -> str:
    """Say that what is delivered passes everything but some own tests, where it does; else nothing."""
    report = standing_report(session, step)
    known = {q.test for q in step.work.get("quarantined", session.work.quarantined)}
    failing = {t.id for t in report.failing} - known
    own = all(file_of(test) == TEST_FILE and "::" in test for test in failing)
    if session.rules < 3 or not failing or not own or not solved(session, report, known | failing):
        return ""
    passed = [t for t in report.passed if t not in known and t not in session.work.vacuous]
    return (
        f" The program passes {len(passed)} other tests, every example and given test among them: it may be right, and"
        f" {', '.join(sorted(failing)[:3])} wrong."
    )


def _question(session: SessionState, stand: Checkpoint, finding: Finding) -> str:
    """Say which test stays in the way, what it says, what the code gives, and what readers of the task say."""
    example = file_of(finding.test) == ANCHOR_FILE
    source = (session.anchors or "") if example else stand.tests
    text = text_of(source, finding.test)
    result = next((t for t in stand.report.tests if t.id == finding.test), None)
    claim = claim_of(source, result, session.rules) if result else None
    given = actual_of(claim, result) if claim and result else ""
    what = "the task's example" if example else "its own test"
    if claim and given:
        call = "; ".join(claim.call.splitlines())
        gives = given if given.startswith(RAISES) else f"gives {given}"
        wanted = f"raises {claim.expected}" if claim.kind == "raises" else f"gives {claim.expected}"
        said = f"{what} says that {call} {wanted}, and the code {gives}"
    else:
        body = "; ".join(line.strip() for line in text.splitlines()[1:])
        said = f"{what} ({body[:300]}) fails with {finding.exception or finding.rule}: {finding.message[:200]}"
    quoted = (
        f" The task's words on it, as they were read: {finding.words[:300]}" if finding.words and not example else ""
    )
    asked = "Is the example" if example else "Is the test"
    return (
        f"After every fix and a fresh attempt, {said} ({name_of(finding.test)}).{quoted}"
        f" {asked} wrong, so that it may be set aside, or does it stand?"
    )


def doubted(session: SessionState, step: Step, examples: list[str]) -> Step:
    """Return the step that puts examples to opinions on the task's words."""
    names = tuple(dict.fromkeys((*session.ledger.doubted, *examples)))
    report = standing_report(session, step)
    code = step.work.get("code", session.work.code)
    context = context_of(session, session.work.opinions, session.ledger.unjudged, code)
    context = replace(context, doubted=frozenset(names))
    findings = classify(report, context)
    kept = {f.test: f for f in step.work.get("findings", session.work.findings)}
    merged = tuple(f if f.test in examples else kept[f.test] for f in findings if f.test in kept)
    step = replace(step, ledger={**step.ledger, "doubted": names}, work={**step.work, "findings": merged})
    if any(f.rule == "in_doubt" for f in merged):
        return replace(
            step, owes=("judging", "executing"), done=("diagnosing", "coding", "fixing_tests", "verifying_code")
        )
    return spent(session.evolve(ledger=session.ledger.model_copy(update={"doubted": names})), step)


def _fresh(step: Step, *, again: bool) -> Step:
    """Return the step to one sample from the plan. ``again`` gives a new program's failures every way of fixing once
    more."""
    anew = {"checkpoint": None} if again else {}
    return replace(
        step,
        reason="fresh",
        owes=("coding", "resolving", "executing"),
        done=("judging", "diagnosing", "fixing_tests"),
        ledger={**step.ledger, "fresh": True, "from_plan": True},
        work={**step.work, "fixes": (), **anew},
    )


def vote(session: SessionState, step: Step, findings: tuple[Finding, ...]) -> Step:
    """Return the step with own tests set aside that the most speak against, and what is left then."""
    report = standing_report(session, step)
    step = replace(set_aside(session, step, findings, OUTVOTED), owes=(), done=())
    return after_quarantine(session, report, step)
