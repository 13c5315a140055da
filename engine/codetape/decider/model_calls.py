"""Asks of the model: the request that a state makes, and what becomes of a reply that cannot be used."""

from dataclasses import replace

from codetape.decider.commands import CallModel
from codetape.decider.environments import without
from codetape.decider.replies import diagnosis, opinions, readers
from codetape.decider.step import Fact, Step, Stop
from codetape.domain.findings import Quarantined
from codetape.domain.model_request import LENGTH_PARAMETER, ModelRequest
from codetape.domain.purposes import Purpose
from codetape.domain.reply_shapes import Proposal
from codetape.domain.task import TEST_FILE
from codetape.eventlog.events import Answered, CallRefused, TestQuarantined
from codetape.eventlog.session_state import SessionState
from codetape.prompts.messages import messages
from codetape.prompts.pack import schema_of
from codetape.prompts.reply_parser import SHAPES, Unusable, arrived
from codetape.rules.packages import detected
from codetape.rules.pytest_source import file_of
from codetape.rules.session_view import calls_in_doubt, whole_file

PURPOSE: dict[str, Purpose] = {
    "planning": "plan",
    "judging": "second_opinion",
    "diagnosing": "diagnose",
    "coding": "code",
    "verifying_code": "verify_code",
    "fixing_tests": "fix_tests",
    "verifying_tests": "verify_tests",
    "writing_tests": "tests",
    "resolving": "packages",
    "replacing_package": "replace_package",
}


def ask(run: SessionState) -> CallModel:
    """Return the state's request, rendered afresh from what the run has made."""
    purpose, config = PURPOSE[run.state], run.the_config
    kept = {k: v for k, v in config.parameters.items() if k not in run.ledger.dropped_parameters}
    return CallModel(
        ModelRequest(
            model=config.model,
            purpose=purpose,
            messages=messages(run, purpose),
            reply_schema=None if run.ledger.schemaless else schema_of(run, purpose),
            json_mode=run.ledger.schemaless and not run.ledger.formless and purpose in SHAPES,
            max_output_tokens=config.max_output_tokens,
            older_limit=LENGTH_PARAMETER in run.ledger.dropped_parameters,
            parameters=kept,
        )
    )


def nothing_to_ask(run: SessionState) -> Step | None:
    """Return the step out of a state that turns out to have nothing to ask about; else None."""
    if run.state == "judging" and not calls_in_doubt(run):
        return Step("second_opinion", done=("judging",))
    if run.state == "fixing_tests":
        at_fault = [f for f in run.work.findings if f.error_type == "test_error"]
        if not run.work.tests or not at_fault:
            return Step("fix_tests", done=("fixing_tests",), owes=("executing",))
    return None


_SETTLED = {"repairs": 0}
_CLEARED = {"bad_reply": "", "repair": ""}


def answered(run: SessionState) -> Step:
    """Return what becomes of a reply: its use, a repair ask, or the consequence of having none."""
    outcome = run.outcome
    if outcome is None:
        raise ValueError("no ask was closed")
    if isinstance(outcome.event, CallRefused):
        return _refused(run, outcome.event)
    if not isinstance(outcome.event, Answered):
        raise TypeError(f"{type(outcome.event).__name__} closes no ask")
    text = arrived(outcome.text, outcome.message, outcome.event.finish_reason)
    used = text if isinstance(text, Unusable) else readers.READ[outcome.purpose](run, text)
    if isinstance(used, Unusable):
        return _unusable(run, outcome.purpose, used, outcome.text or "")
    return _closed(used)


def _closed(step: Step) -> Step:
    return replace(step, ledger={**step.ledger, **_SETTLED}, work={**step.work, **_CLEARED})


def _refused(run: SessionState, event: CallRefused) -> Step:
    """The server refuses the form: ask again without what it refuses, once each."""
    purpose = run.outcome.purpose if run.outcome else ""
    if event.what == "schema" and not run.ledger.formless:
        less = {"formless": True} if run.ledger.schemaless else {"schemaless": True}
        return Step(purpose, usable=False, reason="schema", ledger=less, target=run.state)
    dropped = run.ledger.dropped_parameters
    known = (LENGTH_PARAMETER, *run.the_config.parameters)
    if event.what == "parameter" and event.parameter in known and event.parameter not in dropped:
        return Step(purpose, usable=False, reason="parameter", ledger={"dropped_parameters": (*dropped, event.parameter)}, target=run.state)  # fmt: skip
    if event.what == "context" and not run.ledger.trimmed:
        return Step(purpose, usable=False, reason="context", ledger={"trimmed": True}, target=run.state)
    return _closed(_consequence(run, purpose, Unusable(event.what, f"The server refuses the request: {event.what}.")))


def _unusable(run: SessionState, purpose: str, why: Unusable, text: str) -> Step:
    """One repair ask, which costs no iteration; then the consequence."""
    if run.ledger.repairs == 0:
        return Step(
            purpose,
            usable=False,
            reason=why.reason,
            ledger={"repairs": 1},
            work={"repair": why.detail, "bad_reply": text},
            target=run.state,
        )
    return _closed(_consequence(run, purpose, why))


def _consequence(run: SessionState, purpose: str, why: Unusable) -> Step:
    """Return what the run does without the answer. Raw text is never taken for code."""
    failed = Stop("failed", "unusable", f"The model gave no usable {purpose}: {why.detail}")
    if purpose == "plan" or (purpose == "code" and run.work.report is None):
        return Step(purpose, usable=False, halt=failed)
    if purpose == "code":
        ledger = {"from_plan": False}
        return Step(purpose, usable=False, reason=why.reason, done=("coding",), owes=("executing",), ledger=ledger)
    if purpose == "tests":
        step = Step(purpose, usable=False, reason=why.reason, done=("writing_tests",), owes=("resolving", "vetting"))
        given = bool(run.anchors or run.the_task.tests)
        return step if given else Step(purpose, usable=False, halt=failed)
    if purpose == "fix_tests":
        return _unfixed(run, why)
    if purpose == "second_opinion":
        return opinions.weigh_again(run, unjudged=calls_in_doubt(run), usable=False, reason=why.reason)
    if purpose == "packages":
        empty = tuple(Proposal(module=m) for m in detected(run).unknown)
        return Step(purpose, work={"proposals": (*run.work.proposals, *empty)}, usable=False, reason=why.reason)
    if purpose == "diagnose":
        return diagnosis.by_rules_alone(run, why.reason)
    if purpose == "replace_package":
        step = without(run, (run.ledger.replacing,), "refused") or Step(purpose, owes=("resolving",))
        return replace(step, usable=False, reason=why.reason)
    done = {"verify_code": "verifying_code", "verify_tests": "verifying_tests"}[purpose]
    return Step(purpose, usable=False, reason=why.reason, done=(done,), work={"missing": ()})


def _unfixed(run: SessionState, why: Unusable) -> Step:
    """Tests that cannot be fixed are quarantined; a broken file is written anew, once."""
    if whole_file(run):
        anew = not run.ledger.rewritten
        return Step(
            "fix_tests",
            usable=False,
            reason=why.reason,
            done=("fixing_tests",),
            owes=("writing_tests", "resolving", "executing") if anew else ("resolving", "vetting", "executing"),
            ledger={"rewritten": True},
            work={} if anew else {"tests": ""},
        )
    known = {q.test for q in run.work.quarantined}
    gone = tuple(
        Quarantined(test=f.test, reason="unfixed", words=f.root_cause)
        for f in run.work.findings
        if f.error_type == "test_error" and file_of(f.test) == TEST_FILE and f.test not in known
    )
    return Step(
        "fix_tests",
        usable=False,
        reason=why.reason,
        done=("fixing_tests",),
        owes=("vetting", "executing"),
        work={"quarantined": (*run.work.quarantined, *gone)},
        notes=tuple(Fact(TestQuarantined, {"test": q.test, "reason": q.reason}, {"words": q.words}) for q in gone),
    )
