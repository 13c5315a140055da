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


def packages(session: SessionState, text: str) -> Read:
    """Proposals for unknown imports: names only; the policy decides on them next."""
    value = read_json("packages", text)
    if not isinstance(value, Proposals):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply holds no packages.")
    told = {p.module.partition(".")[0]: valid_name(p.distribution) for p in value.packages}
    new = tuple(Proposal(module=m, distribution=told.get(m, "")) for m in detected(session).unknown)
    return Step("packages", work={"proposals": (*session.work.proposals, *new)})


def replace_package(session: SessionState, text: str) -> Read:
    """Another distribution for the same need, or none: then the run does without."""
    value = read_json("replace_package", text)
    if not isinstance(value, Replacement):
        return value if isinstance(value, Unusable) else Unusable("shape", "The reply is no replacement.")
    old, new = session.ledger.replacing, valid_name(value.distribution)
    if not new or new in {*map(bare, session.ledger.refused)}:
        return without(session, (old,), "no replacement") or Step(
            "replace_package", owes=("resolving",), done=("building",)
        )
    modules = modules_of(old, session)
    kept = tuple(p for p in session.work.proposals if p.module not in modules)
    tracked = tuple(sorted({new if bare(p) == old else p for p in session.ledger.packages}))
    return Step(
        "replace_package",
        done=("building",),
        owes=("resolving",),
        ledger={
            "chain": session.ledger.chain + 1,
            "replacements": session.ledger.replacements + 1,
            "packages": tracked,
            "replacing": "",
        },
        work={"proposals": (*kept, *(Proposal(module=m, distribution=new) for m in modules))},
    )


def unnamed(session: SessionState, why: Unusable) -> Step:
    """The imports that nobody knows get no distribution."""
    empty = tuple(Proposal(module=m) for m in detected(session).unknown)
    return Step("packages", work={"proposals": (*session.work.proposals, *empty)}, usable=False, reason=why.reason)


def unreplaced(session: SessionState, why: Unusable) -> Step:
    """The session does without the package."""
    step = without(session, (session.ledger.replacing,), "refused") or Step("replace_package", owes=("resolving",))
    return replace(step, usable=False, reason=why.reason)
