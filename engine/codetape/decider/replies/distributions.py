"""Replies that name the distribution for an import, or a replacement."""

from dataclasses import replace

from codetape.decider.environments import without
from codetape.decider.step import Read, Step
from codetape.domain.package_names import bare, valid_name
from codetape.domain.reply_shapes import Proposal, Proposals, Replacement
from codetape.eventlog.session_state import SessionState
from codetape.prompts.reply_parser import Unusable, read_json
from codetape.rules.packages import detected, modules_of

# ---- packages


def packages(run: SessionState, text: str) -> Read:
    """Proposals for unknown imports: names only; the policy decides on them next."""
    value = read_json("packages", text)
    if not isinstance(value, Proposals):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply holds no packages.")
    told = {p.module.partition(".")[0]: valid_name(p.distribution) for p in value.packages}
    new = tuple(Proposal(module=m, distribution=told.get(m, "")) for m in detected(run).unknown)
    return Step("packages", work={"proposals": (*run.work.proposals, *new)})


def replace_package(run: SessionState, text: str) -> Read:
    """Another distribution for the same need, or none: then the run does without."""
    value = read_json("replace_package", text)
    if not isinstance(value, Replacement):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no replacement.")
    old, new = run.ledger.replacing, valid_name(value.distribution)
    if not new or new in {*map(bare, run.ledger.refused)}:
        return without(run, (old,), "no replacement") or Step(
            "replace_package", owes=("resolving",), done=("building",)
        )
    modules = modules_of(old, run)
    kept = tuple(p for p in run.work.proposals if p.module not in modules)
    tracked = tuple(sorted({new if bare(p) == old else p for p in run.ledger.packages}))
    return Step(
        "replace_package",
        done=("building",),
        owes=("resolving",),
        ledger={
            "chain": run.ledger.chain + 1,
            "replacements": run.ledger.replacements + 1,
            "packages": tracked,
            "replacing": "",
        },
        work={"proposals": (*kept, *(Proposal(module=m, distribution=new) for m in modules))},
    )


def unnamed(run: SessionState, why: Unusable) -> Step:
    """The imports that nobody knows get no distribution."""
    empty = tuple(Proposal(module=m) for m in detected(run).unknown)
    return Step("packages", work={"proposals": (*run.work.proposals, *empty)}, usable=False, reason=why.reason)


def unreplaced(run: SessionState, why: Unusable) -> Step:
    """The session does without the package."""
    step = without(run, (run.ledger.replacing,), "refused") or Step("replace_package", owes=("resolving",))
    return replace(step, usable=False, reason=why.reason)
