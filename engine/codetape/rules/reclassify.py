"""When a failure changes its class: counts of fixes that it outlived."""

from dataclasses import dataclass

from codetape.domain.findings import Finding, FixCounts

MAX_COUNTED = 64  # failures whose attempts are remembered
TESTS_ALONE = ("not_collected", "nothing_passed", "not_runnable")
"""Rules of failures that no code could cause: where fixing the tests does not help, they are written anew."""
UNSETTLED = ("silent", "neither", "cannot_hold")
"""Rules whose tests are quarantined: the specification does not settle them."""
OUTVOTED, DISPUTES, DROPPED = "outvoted", "disputed", "dropped"
FLAKY = "flaky"
DISPUTED = frozenset({"neither", "cannot_hold", OUTVOTED, DISPUTES, DROPPED})
"""Reasons of a quarantine that lower the confidence of a success: somebody may still be right who says otherwise."""


def counted(
    attempts: tuple[FixCounts, ...], before: tuple[Finding, ...], *, code: bool, tests: bool
) -> tuple[FixCounts, ...]:
    """Return the counts after a run: each earlier failure has met the changes of its kind that were made.

    Of many failures the oldest that the last run did not have are forgotten, so that a long session stays linear.
    """
    counts = {a.signature: a for a in attempts}
    for finding in before:
        old = counts.get(finding.signature, FixCounts(signature=finding.signature))
        counts[finding.signature] = old.model_copy(
            update={
                "logic": old.logic + (code and finding.error_type in ("logic", "environment", None)),
                "test": old.test + (tests and finding.error_type == "test_error"),
                "error_type": finding.error_type,
            }
        )
    present = {finding.signature for finding in before}
    absent = [signature for signature in counts if signature not in present]
    for signature in absent[: max(0, len(counts) - MAX_COUNTED)]:
        del counts[signature]
    return tuple(counts.values())


@dataclass(frozen=True)
class Reclassified:
    """A finding whose class was changed, with the number of runs that it failed in."""

    finding: Finding
    before: str
    times: int


@dataclass(frozen=True)
class Reclassification:
    """The findings after the attempts were weighed: changed ones, ones to quarantine, ones that nothing is left for."""

    findings: tuple[Finding, ...]
    changed: tuple[Reclassified, ...]
    quarantine: tuple[Finding, ...]
    spent: tuple[Finding, ...]
    reopened: tuple[str, ...]


def reclassify_errors(
    findings: tuple[Finding, ...],
    attempts: tuple[FixCounts, ...],
    *,
    max_logic: int,
    max_test: int,
    reopenable: frozenset[str],
) -> Reclassification:
    """Change the class of failures that outlived more fixes of one kind than allowed.

    A change to test_error needs an opinion that agrees, so an unjudged one is opened again for an opinion, once
    (its call is in ``reopenable``); a test that an opinion refuted never becomes logic: it is quarantined.
    """
    counts = {a.signature: a for a in attempts}
    kept: list[Finding] = []
    changed: list[Reclassified] = []
    quarantine: list[Finding] = []
    spent: list[Finding] = []
    reopened: list[str] = []
    for finding in findings:
        count = counts.get(finding.signature, FixCounts(signature=finding.signature))
        times = count.logic + count.test + 1
        if finding.rule in UNSETTLED:
            quarantine.append(finding)
            continue
        if finding.error_type == "test_error" and count.test > max_test:
            if finding.judged == "refuted" or finding.rule in TESTS_ALONE:
                quarantine.append(finding)
                continue
            cause = f"The test failed {times} times, and fixing it did not help. The code could be wrong."
            new = finding.model_copy(update={"error_type": "logic", "rule": "reclassified", "root_cause": cause})
            if count.error_type != "logic":
                changed.append(Reclassified(new, "test_error", times))
            if count.logic > max_logic:
                spent.append(new)
            kept.append(new)
        elif finding.error_type != "test_error" and finding.rule != "in_doubt" and count.logic > max_logic:
            if finding.call and finding.call in reopenable:
                reopened.append(finding.call)
                kept.append(finding.model_copy(update={"error_type": None, "rule": "in_doubt", "judged": "no"}))
                continue
            logic = finding.model_copy(update={"error_type": "logic"})  # whatever it was taken for: that is spent
            spent.append(logic)
            kept.append(logic)
        else:
            if finding.judged == "refuted" and count.error_type == "logic":
                changed.append(Reclassified(finding, "logic", times))
            kept.append(finding)
    return Reclassification(tuple(kept), tuple(changed), tuple(quarantine), tuple(spent), tuple(reopened))
