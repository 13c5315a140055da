"""What a session's verdict rests on, in numbers: beside the one word of its confidence."""

from codetape.domain.findings import Strength
from codetape.domain.frozen_model import FrozenModel
from codetape.domain.task import ANCHOR_FILE, OUTPUT_FILE, TEST_FILE, USER_FILE
from codetape.eventlog.session_state import SessionState
from codetape.rules.pytest_source import file_of, function_id
from codetape.rules.reclassify import FLAKY
from codetape.text.plural import many

MAX_OPEN = 30  # things that the task left open, of those that are named


class Evidence(FrozenModel):
    """What was seen of the delivered program. Counts are tests that passed, functions counted once, but for ``claims_*``.

    ``confirmed`` says whether it was run a second time, under other conditions. ``claims_blind`` came out right where no
    expected value is, ``claims_unclear`` only by Python's own idea of equality; ``in_process`` are tests that no blind
    evaluation covers, ``flaky`` those that passed and failed by turns. ``open`` is what the task does not settle: what the
    plan decided by itself, and tests that were set aside.
    """

    examples: int = 0
    given_tests: int = 0
    own_tests: int = 0
    confirmed: bool = False
    claims_blind: int = 0
    claims_unclear: int = 0
    in_process: int = 0
    oracle_claims_blind: int = 0
    oracle_in_process: bool = False
    strength: Strength | None = None
    flaky: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def evidence_of(session: SessionState) -> Evidence:
    """Return what a session's verdict rests on."""
    work = session.work
    idle = {*work.vacuous, *(q.test for q in work.quarantined)}
    passed = dict.fromkeys(function_id(t) for t in work.report.passed if t not in idle) if work.report else {}
    files = [file_of(test) for test in passed]
    confirmation, oracle = work.confirmation, work.oracle_confirmation
    blind = {*confirmation.tests} if confirmation else set()
    planned = work.plan.edge_cases if work.plan else ()
    aside = [f"{q.test}: {q.words or q.reason}" for q in work.quarantined if q.reason != FLAKY]
    return Evidence(
        examples=files.count(ANCHOR_FILE),
        given_tests=files.count(USER_FILE),
        own_tests=files.count(TEST_FILE) + files.count(OUTPUT_FILE),
        confirmed=bool(session.ledger.confirmed or session.ledger.evaluated) and session.state == "succeeded",
        claims_blind=confirmation.blind if confirmation else 0,
        claims_unclear=confirmation.unclear if confirmation else 0,
        in_process=len([test for test in passed if test not in blind]),
        oracle_claims_blind=oracle.blind if oracle else 0,
        oracle_in_process=session.confidence == "oracle" and not _claimed(session.the_task.oracle),
        strength=work.strength if work.strength and work.strength.total else None,
        flaky=tuple(q.test for q in work.quarantined if q.reason == FLAKY),
        open=tuple([*planned, *aside][:MAX_OPEN]),
    )


def _claimed(oracle: str) -> bool:
    from codetape.rules.blind.blind_file import claimed_tests  # a reader of tests, which few sessions need here

    return bool(claimed_tests(oracle))


def in_words(evidence: Evidence) -> list[tuple[str, str]]:
    """Return what a person reads of it: pairs of a name and a line, none for what was not measured."""
    counted = [(evidence.examples, "example"), (evidence.given_tests, "given test"), (evidence.own_tests, "own test")]
    lines = [("passed", ", ".join(many(n, what) for n, what in counted if n) or "no test")]
    if evidence.confirmed:
        blind = f"{many(evidence.claims_blind, 'claim')} blind" if evidence.claims_blind else ""
        unclear = f"{evidence.claims_unclear} by Python's equality alone" if evidence.claims_unclear else ""
        beside = f"{many(evidence.in_process, 'test')} in process" if evidence.in_process else ""
        lines.append(("confirmed", ", ".join(filter(None, (blind, unclear, beside))) or "run twice"))
    if evidence.oracle_claims_blind or evidence.oracle_in_process:
        how = many(evidence.oracle_claims_blind, "claim") + " blind" if evidence.oracle_claims_blind else "in process"
        lines.append(("oracle", how))
    if evidence.strength is not None:
        lines.append(
            (
                "strength",
                f"{evidence.strength.killed} of {many(evidence.strength.total, 'small change')} of the code noticed",
            )
        )
    lines += [("flaky", test) for test in evidence.flaky]
    return lines
