"""One line per event, for people: progress, `show` and audits describe an event in the same words."""

from codetape.domain.task import Config
from codetape.eventlog.envelope import Event
from codetape.eventlog.events import (
    AnchorsExtracted,
    Answered,
    BuildFinished,
    BuildRefused,
    CallBatched,
    CallRefused,
    CodeReverted,
    Decided,
    FailureReclassified,
    GaveUp,
    PersonAnswered,
    SessionForked,
    SessionStarted,
    TestQuarantined,
    TestsFinished,
)
from codetape.eventlog.session_state import SessionState
from codetape.rules.prompt_examples.example import in_words
from codetape.text.escape import first_line
from codetape.text.plural import many


def describe(event: Event, session: SessionState) -> str:
    """Describe an event in one line; empty for events that tell a person nothing by themselves."""
    payload = event.payload
    if isinstance(payload, SessionStarted):
        facts = session.the_config.sandbox
        return f"sandbox {facts.name}{f' on {facts.base}' if facts.base else ''}: {facts.why}" if facts.why else ""
    if isinstance(payload, SessionForked):
        return f"forked from {payload.parent} at event {payload.seq}"
    if isinstance(payload, BuildFinished):
        how = "found" if payload.cached else f"built in {payload.duration_ms / 1000:.1f} s"
        return f"environment {payload.image} {how}"
    if isinstance(payload, BuildRefused):
        return f"environment refused: {payload.reason} {', '.join(payload.packages)}"
    if isinstance(payload, TestsFinished):
        return _tests(payload, session)
    if isinstance(payload, FailureReclassified):
        return f"{payload.test}: failed {payload.times} times; {payload.before} becomes {payload.after}"
    if isinstance(payload, AnchorsExtracted):
        return in_words(payload.count, session.left_out) if payload.count or session.left_out else ""
    if isinstance(payload, TestQuarantined):
        return f"{payload.test}: quarantined ({payload.reason})"
    if isinstance(payload, CodeReverted):
        what = f"it broke {', '.join(payload.broken[:3])}" if payload.broken else "it fixed nothing"
        return f"change taken back: {what}"
    if isinstance(payload, Answered):
        return _answered(payload)
    if isinstance(payload, CallBatched):
        return f"waits in batch {payload.batch_id}" if payload.batch_id else ""
    if isinstance(payload, CallRefused):
        return _refused(payload)
    if isinstance(payload, PersonAnswered):
        return f"a person answered on {payload.subject}: {payload.answer}"
    if isinstance(payload, GaveUp):
        return f"gave up: {first_line(session.reason)}"
    return _decided(payload, session) if isinstance(payload, Decided) else ""


PROMPT_CUT = "the server read far fewer tokens than the prompt has: it may have cut it, as a small window does"


def _answered(payload: Answered) -> str:
    said = []
    if payload.tries:
        billed = f", {payload.unanswered} of them possibly billed" if payload.unanswered else ""
        said.append(
            f"the model answered after {len(payload.tries)} failed {'try' if len(payload.tries) == 1 else 'tries'}{billed}"
        )
    if payload.prompt_cut:
        said.append(PROMPT_CUT)
    return "; ".join(said)


def _refused(payload: CallRefused) -> str:
    if payload.what == "output":
        limit = f"at most {payload.cap:,} tokens" if payload.cap else f"a window of {payload.window:,} tokens"
        return f"the server allows {limit}: it is asked for less"
    if payload.what == "context":
        return "the server says that the prompt is too long: it is asked with a shorter one"
    return f"the server refuses the request's {payload.parameter or payload.what}: it is asked without"


def server_line(config: Config) -> str:
    """Say where a session's model is, and how it was reached; empty where nothing is known of it."""
    if config.server is None or not (config.server or config.api):
        return ""
    how = ", ".join(filter(None, (config.api, config.adapter)))
    return f"{config.server or 'of the provider'}{f' ({how})' if how else ''}"


def _tests(payload: TestsFinished, session: SessionState) -> str:
    labels = {
        "vet": "on a stub",
        "run": f"run {session.ledger.iteration + 1}",
        "oracle": "oracle",
        "confirm": "once more, under other conditions",
    }
    counts = [f"{payload.passed} passed", f"{payload.failed} failed"]
    counts += [f"{payload.errors} errors"] if payload.errors else []
    counts += [f"{payload.skipped} skipped"] if payload.skipped else []
    how = "" if payload.exit in ("ok", "tests_failed") else f" ({payload.exit})"
    if payload.purpose == "script":
        return f"script: {payload.exit}"
    if payload.purpose == "evaluate":
        report = session.outcome.report if session.outcome else None
        given = len({one.number for one in report.evaluated}) if report else 0
        return f"evaluated where no expected value is: {many(given, 'claim')}{how}"
    return f"{labels[payload.purpose]}: {', '.join(counts)}{how}"


def _decided(payload: Decided, session: SessionState) -> str:
    if payload.reason == "special_case":
        return "change not taken: it answers a failing test's call by its arguments"
    if payload.reason == "fresh":
        return "a fresh sample is drawn from the plan"
    if not payload.usable:
        from_model = payload.about not in ("build", "oracle", "vet", "run", "standing")
        refused = payload.reason in ("schema", "parameter", "context", "output")  # said of the refusal itself
        return f"{payload.about}: unusable reply ({payload.reason})" if from_model and not refused else ""
    if payload.about == "plan" and session.work.plan:
        return f"plan: {first_line(session.work.plan.description)}"
    if payload.about == "code" and "code" in payload.changes:
        return f"code: {len(session.work.code.splitlines())} lines"
    if payload.about == "tests" and session.work.tests:
        return f"tests: {session.work.tests.count('def test')} of them"
    if payload.about == "diagnose" and session.work.diagnosis:
        causes = [first_line(f.root_cause, 160) for f in session.work.findings if f.root_cause][:3]
        return "diagnosis: " + " | ".join(dict.fromkeys(causes))
    if payload.about == "second_opinion":
        settled = ("upheld", "refuted", "third", "cannot_hold")
        rules = [f"{f.test}: {f.rule.replace('_', ' ')}" for f in session.work.findings if f.rule in settled]
        return "second opinion: " + ("; ".join(rules) or "not settled")
    if payload.about == "evaluate" and session.work.confirmation:
        confirmed = session.work.confirmation
        return f"confirmed blind: {many(confirmed.blind, 'claim')} of {many(len(confirmed.tests), 'test')}"
    if payload.about == "fix_tests" and "tests" in payload.changes:
        return "tests fixed"
    return ""
