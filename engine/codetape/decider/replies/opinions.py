"""Second opinions: what the specification says of a call."""

from dataclasses import replace

from codetape.decider.executions import context_of, quarantined
from codetape.decider.rule_set import rule_set
from codetape.decider.step import Read, Step
from codetape.domain.reply_shapes import Opinion, Opinions
from codetape.eventlog.session_state import SessionState
from codetape.prompts.reply_parser import Unusable, read_json
from codetape.rules.classify import classify
from codetape.rules.session_view import calls_in_doubt


def second_opinion(session: SessionState, text: str) -> Read:
    """Opinions by label; a call without one stays unjudged. The failures are weighed again."""
    value = read_json("second_opinion", text)
    if not isinstance(value, Opinions):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply holds no opinions.")
    by_label = {o.test: o for o in value.opinions}
    calls = {f"T{n}": call for n, call in enumerate(calls_in_doubt(session), 1)}
    given = tuple(by_label[label].model_copy(update={"test": c}) for label, c in calls.items() if label in by_label)
    unjudged = tuple(call for label, call in calls.items() if label not in by_label)
    return weigh_again(session, given, unjudged)


def weigh_again(
    session: SessionState,
    given: tuple[Opinion, ...] = (),
    unjudged: tuple[str, ...] = (),
    *,
    usable: bool = True,
    reason: str = "",
) -> Step:
    """Classify the standing report once more, with the opinions that have come."""
    report = session.work.report
    if report is None:
        raise ValueError("there is no report to judge")
    opinions, closed = (*session.work.opinions, *given), (*session.ledger.unjudged, *unjudged)
    gone = quarantined(session) if session.rules > 1 else set()
    findings = tuple(f for f in classify(report, context_of(session, opinions, closed)) if f.test not in gone)
    base = Step(
        "judged",
        usable=usable,
        reason=reason,
        ledger={"unjudged": closed},
        work={"opinions": opinions},
        done=("judging",),
    )
    step: Step = rule_set(session).weighed(session, report, findings, session.work.attempts, base)
    return replace(step, about="second_opinion", done=(*step.done, *_judged(step)))


def _judged(step: Step) -> tuple[str, ...]:
    return () if "judging" in step.owes else ("judging",)


def unjudged(session: SessionState, why: Unusable) -> Step:
    """The calls in doubt stay unjudged."""
    return weigh_again(session, unjudged=calls_in_doubt(session), usable=False, reason=why.reason)
