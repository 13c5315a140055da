"""What a check's outcomes say: rates, a paired test where one is valid, and a verdict with its reason."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any, Literal

from codetape.domain.money import dollars, pico
from codetape.domain.task import Grade
from codetape.errors import UsageError
from codetape.evals import stats
from codetape.evals.check import AttemptOutcome, Checked, CheckPlan
from codetape.text.notebook_card import card

ALPHA, WANTED_POWER, MARGIN = 0.05, 0.8, 0.1
"""The significance level, the power that a verdict of no regression needs, and the drop in solve rate that matters."""

Verdict = Literal["regression", "improvement", "no regression", "inconclusive", "unaffected", "no outcome"]
Control = Literal["fresh", "baseline", "recorded", "none"]


@dataclass(frozen=True)
class SolveRate:
    """A solve rate over tasks. The interval is Wilson's, with the task as the unit; ``pass_at_k`` by k, unbiased."""

    solved: int
    attempts: int
    mean: float
    low: float
    high: float
    pass_at_k: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskOutcome:
    """One task in both arms. ``errors`` are attempts without an outcome, which no rate counts."""

    task: str
    graded: Grade
    control_solved: int
    control_attempts: int
    candidate_solved: int
    candidate_attempts: int
    difference: float | None
    change: Literal["better", "worse", "same", "unknown"]
    errors: int
    first: str = ""


@dataclass(frozen=True)
class State:
    """One state from which the candidate continued a session, and its outcomes. A baseline is compared by state."""

    session: str
    head: str
    fork_at: int
    solved: int
    attempts: int


@dataclass(frozen=True)
class Baseline:
    """A former report: its id, and its candidate's solved and attempted counts for each state."""

    id: str
    states: Mapping[tuple[str, str, int], tuple[int, int]]


@dataclass(frozen=True)
class CheckReport:
    """A check's result. ``p`` is None where no test is valid; ``why`` gives the reason, and what would help.

    ``found`` attempts existed before: testing again after adding some makes p too small. ``drifted`` sessions ran in
    another sandbox than this one. ``n_fresh`` counts calls that were made for this check, ``n_reused`` replies taken
    from recordings. ``tasks_needed`` is how many tasks it takes to find a drop of ``margin`` with a power of 80 %.
    """

    id: str
    round: int
    found: int
    drifted: int
    prompts: tuple[str, ...]
    config: Mapping[str, Any]
    verdict: Verdict
    why: str
    control: Control
    tasks: int
    sessions_changed: int
    sessions_same: int
    skipped: int
    attempts: int
    errors: int
    self_graded: int
    worse: int
    better: int
    p: float | None
    test: str
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    power: float | None
    tasks_needed: int | None
    candidate: SolveRate
    control_rate: SolveRate
    n_fresh: int
    n_reused: int
    input_tokens: int
    output_tokens: int
    cost: str
    unpriced: int
    budget_spent: bool
    rows: tuple[TaskOutcome, ...]
    states: tuple[State, ...]
    outcomes: tuple[AttemptOutcome, ...]
    prompt_changes: tuple[tuple[str, str], ...] = ()

    def records(self) -> list[dict[str, Any]]:
        """Return one flat record per task."""
        return [asdict(row) for row in self.rows]

    def attempt_records(self) -> list[dict[str, Any]]:
        """Return one flat record per attempt."""
        return [{"arm": o.arm, "parent": o.parent, **asdict(o.made)} for o in self.outcomes]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as ``--json`` prints it."""
        plain = {
            name: value
            for name, value in vars(self).items()
            if name not in ("rows", "states", "outcomes", "candidate", "control_rate")
        }
        rates = {"candidate": asdict(self.candidate), "control_rate": asdict(self.control_rate)}
        states = [asdict(state) for state in self.states]
        return {**plain, **rates, "rows": self.records(), "states": states, "outcomes": self.attempt_records()}

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the verdict, and the tasks that changed."""
        tone = {"regression": "bad", "improvement": "good", "no regression": "good"}.get(self.verdict, "waiting")
        changed = [row for row in self.rows if row.change in ("worse", "better")]
        facts = [
            ("why", self.why),
            ("candidate", f"{self.candidate.mean:.0%} of tasks, {self.candidate.solved} of {self.candidate.attempts} attempts"),
            ("control", f"{self.control}: {self.control_rate.mean:.0%} of tasks" if self.control != "none" else "none"),
            *(
                (row.change, f"{row.task}: {row.control_solved}/{row.control_attempts} to "
                 f"{row.candidate_solved}/{row.candidate_attempts}")
                for row in changed[:20]
            ),
            ("check", self.id),
        ]  # fmt: skip
        return card(self.verdict, tone, facts)

    def exit_code(self, *, accept_self_graded: bool = False) -> int:
        """Return 1 for errors, 101 for a spent budget, 103 if undecided, 100 for a regression, else 0."""
        if self.errors and not self.budget_spent:
            return 1
        if self.budget_spent:
            return 101
        if self.verdict in ("inconclusive", "no outcome"):
            return 103
        if self.verdict == "regression":
            return 100
        return 103 if self.self_graded and not accept_self_graded and self.verdict != "unaffected" else 0


Arms = dict[str, dict[str, list[list[bool]]]]
"""By arm and task: a list of outcomes for each of the task's sessions."""


def report(checked: Checked, *, control: bool, baseline: Baseline | None = None, margin: float = MARGIN) -> CheckReport:
    """Judge a check's outcomes. ``control`` says that the old prompts were run again; ``baseline`` is a former report.

    Raises UsageError for a baseline that is a report of this very check.
    """
    plan = checked.plan
    refuse_own(baseline, plan)
    arms: Arms = {"candidate": defaultdict(list), "control": defaultdict(list)}
    errors: dict[str, int] = defaultdict(int)
    by_session: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for outcome in checked.outcomes:
        if outcome.made.solved is None:
            # a spent budget is reported apart, and is no error of the task
            errors[outcome.made.task] += int(outcome.made.cause != "budget")
        else:
            by_session[outcome.arm, outcome.parent].append(outcome.made.solved)
    kind: Control = "fresh" if control else "baseline" if baseline is not None else "none"
    recorded: dict[str, list[bool]] = defaultdict(list)
    for session in plan.changed:
        recorded[session.task].append(session.solved)
        arms["candidate"][session.task].append(by_session["candidate", session.session])
        if control:
            arms["control"][session.task].append(by_session["control", session.session])
        elif baseline is not None:
            solved, count = baseline.states.get((session.session, session.head, session.fork_at or 0), (0, 0))
            arms["control"][session.task].append([True] * solved + [False] * (count - solved))
    if kind == "none" and plan.changed and not _no_control(plan):
        kind = "recorded"
        for task, outcomes in recorded.items():
            arms["control"][task] = [[solved] for solved in outcomes]
    pairs = _pairs(arms)
    rows = tuple(_rows(plan.changed, arms, pairs, errors))
    judged = _judge(kind, pairs, checked, sum(errors.values()), margin)
    attempts = [o.made for o in checked.outcomes]
    return CheckReport(
        id=plan.id,
        round=plan.number,
        found=checked.found,
        drifted=sum(session.drifted for session in plan.changed),
        prompts=tuple(sorted(plan.change.pack or ())),
        config=dict(plan.change.config),
        control=kind,
        tasks=len({session.task for session in (*plan.changed, *plan.same)}),
        sessions_changed=len(plan.changed),
        sessions_same=len(plan.same),
        skipped=len(plan.skipped),
        attempts=len(checked.outcomes),
        errors=sum(errors.values()),
        self_graded=sum(row.graded == "self" for row in rows),
        margin=margin,
        candidate=_rate([_flat(arms["candidate"][row.task]) for row in rows]),
        control_rate=_rate([_flat(arms["control"][row.task]) for row in rows]),
        n_fresh=sum(a.calls - a.reused for a in attempts),
        n_reused=sum(a.reused for a in attempts),
        input_tokens=sum(a.input_tokens for a in attempts),
        output_tokens=sum(a.output_tokens for a in attempts),
        cost=dollars(sum(pico(a.cost) for a in attempts if a.cost)),
        unpriced=sum(a.unpriced for a in attempts),
        budget_spent=checked.stopped_by_budget,
        rows=rows,
        states=tuple(
            State(session.session, session.head, session.fork_at or 0, sum(results), len(results))
            for session in plan.changed
            if (results := by_session["candidate", session.session])
        ),
        outcomes=checked.outcomes,
        prompt_changes=plan.prompt_changes,
        **judged,
    )


def refuse_own(baseline: Baseline | None, plan: CheckPlan) -> None:
    """Raise UsageError where the baseline is a report of this very check."""
    if baseline is not None and baseline.id == plan.id:
        raise UsageError(
            f"The baseline is a report of this very check, {plan.id}.", remedy="Give one of another change."
        )


@dataclass(frozen=True)
class _Pair:
    """One task's rates, and the candidate's number of attempts."""

    candidate: Fraction
    control: Fraction
    single: bool
    attempts: int

    @property
    def difference(self) -> Fraction:
        return self.candidate - self.control


def _flat(sessions: Iterable[list[bool]]) -> list[bool]:
    return [solved for session in sessions for solved in session]


def _pairs(arms: Arms) -> dict[str, _Pair]:
    """Return the rates of tasks with an outcome in both arms. A task's rate is the mean of its sessions' rates."""
    pairs = {}
    for task, sessions in arms["candidate"].items():
        both = [(new, old) for new, old in zip(sessions, arms["control"].get(task, []), strict=False) if new and old]
        if both:
            new = [Fraction(sum(a), len(a)) for a, _ in both]
            old = [Fraction(sum(b), len(b)) for _, b in both]
            single = len(both) == 1 and len(both[0][0]) == len(both[0][1]) == 1
            attempts = sum(len(a) for a, _ in both)
            pairs[task] = _Pair(sum(new, Fraction(0)) / len(new), sum(old, Fraction(0)) / len(old), single, attempts)
    return pairs


def _no_control(plan: CheckPlan) -> str:
    """Return why past outcomes are no valid control; empty where they are one."""
    if plan.selected:
        return "The sessions were chosen for how they ended or one by one, so their past outcomes are no control."
    if drifted := sum(session.drifted for session in plan.changed):
        return f"{drifted} of the sessions ran in another sandbox than this one, so their past outcomes are no control."
    counts = Counter(session.task for session in (*plan.changed, *plan.same))
    alone = sorted(task for task in {session.task for session in plan.changed} if counts[task] < 2)
    if alone:
        return (
            f"{len(alone)} tasks ({alone[0][:60]}) have one past attempt, which is no control: it may have been luck."
        )
    return ""


def _judge(kind: Control, pairs: Mapping[str, _Pair], checked: Checked, errors: int, margin: float) -> dict[str, Any]:
    """Return the test, the verdict and its reason."""
    blank: dict[str, Any] = dict.fromkeys(("p", "difference", "low", "high", "power", "tasks_needed"))
    blank |= {"worse": 0, "better": 0, "test": ""}
    if not checked.plan.changed:
        return blank | {"verdict": "unaffected", "why": "No request or decision of these sessions comes out otherwise."}
    if kind == "none":
        why = _no_control(checked.plan)
        flips = _flips(checked)
        return blank | {
            "worse": flips[0],
            "better": flips[1],
            "verdict": "inconclusive",
            "why": f"{why} Give control (--control) to run the old prompts afresh as well.",
        }
    if not pairs:
        return blank | {"verdict": "no outcome", "why": "No task has an outcome on both sides."}
    try:
        return blank | _tested(pairs, checked, errors, margin)
    except ArithmeticError as error:  # outcomes are worth more than their test: they are reported all the same
        differences = [pair.difference for pair in pairs.values()]
        return blank | {
            "worse": sum(d < 0 for d in differences),
            "better": sum(d > 0 for d in differences),
            "verdict": "inconclusive",
            "why": f"Its statistics cannot be computed ({type(error).__name__}: {error}); the outcomes stand. Please report it.",
        }


def _tested(pairs: Mapping[str, _Pair], checked: Checked, errors: int, margin: float) -> dict[str, Any]:
    """Return the test of outcomes in both arms, the verdict and its reason. Raises ArithmeticError where a figure
    cannot be computed."""
    differences = [pair.difference for pair in pairs.values()]
    worse, better, count = sum(d < 0 for d in differences), sum(d > 0 for d in differences), len(differences)
    mean = float(sum(differences, Fraction(0)) / count)
    low, high = stats.bootstrap(differences)
    single = all(pair.single for pair in pairs.values())
    if single:
        p, test = stats.mcnemar(worse, better), "exact McNemar, two-sided"
        changed = max(round((worse + better + 1) / (count + 2), 2), margin)
        chances = (changed + margin) / 2, (changed - margin) / 2
        power, needed = stats.power(count, *chances), stats.tasks_needed(*chances)
    else:
        p, test = stats.sign_flip(differences), "sign-flip over tasks, two-sided"
        spread = _spread(pairs, differences)
        power, needed = stats.power_by_spread(count, spread, margin), stats.by_spread(spread, margin)
    verdict: Verdict
    shown = f"{count} tasks, {worse} worse, {better} better, p = {p:.3g}"
    if p < ALPHA:
        verdict, why = ("regression", "solves less") if mean < 0 else ("improvement", "solves more")
        why = f"The change {why}: {shown}."
    elif power < WANTED_POWER or low <= -margin:
        verdict = "inconclusive"
        why = f"{shown}. A drop of {margin:.0%} would be found here with a chance of {power:.0%}; {needed} tasks would find it with 80 %."
    else:
        verdict, why = (
            "no regression",
            f"{shown}. A drop of {margin:.0%} would have been found with a chance of {power:.0%}.",
        )
    if low <= -margin and p >= ALPHA and power >= WANTED_POWER:
        why += f" The interval reaches {low:+.1%}: more tasks would narrow it."
    missing = len({session.task for session in checked.plan.changed}) - count
    if missing:
        why += f" {missing} tasks have no outcome on both sides, and are left out."
    if errors:
        why += f" {errors} attempts have no outcome and are counted nowhere; the same check resumes them."
    return {
        "p": p,
        "test": test,
        "difference": mean,
        "low": low,
        "high": high,
        "worse": worse,
        "better": better,
        "power": power,
        "tasks_needed": needed,
        "verdict": verdict,
        "why": why,
    }


def _spread(pairs: Mapping[str, _Pair], differences: list[Fraction]) -> float:
    """Return the deviation of tasks' differences, shrunk towards what chance alone gives when tasks are few."""
    count = len(differences)
    mean = float(sum((p.candidate + p.control for p in pairs.values()), Fraction(0)) / (2 * count))
    rate = min(0.9, max(0.1, mean))
    chance = 2 * rate * (1 - rate) / max(1.0, sum(p.attempts for p in pairs.values()) / count)
    # chance weighs as much as four tasks: with few tasks the observed deviation may be zero by luck
    return sqrt((count * stats.spread(differences) ** 2 + 4 * chance) / (count + 4))


def _flips(checked: Checked) -> tuple[int, int]:
    """Return how many attempts ended worse and better than the recorded session; reported, not tested."""
    solved_before = {session.session: session.solved for session in checked.plan.changed}
    pairs = [
        (solved_before[o.parent], o.made.solved)
        for o in checked.outcomes
        if o.arm == "candidate" and o.made.solved is not None
    ]
    return sum(old and not new for old, new in pairs), sum(new and not old for old, new in pairs)


def _rows(
    changed: Iterable[Any], arms: Arms, pairs: Mapping[str, _Pair], errors: Mapping[str, int]
) -> Iterable[TaskOutcome]:
    firsts = {session.task: session for session in changed}
    for task, session in firsts.items():
        new, old = _flat(arms["candidate"][task]), _flat(arms["control"].get(task, []))
        pair = pairs.get(task)
        change: Literal["better", "worse", "same", "unknown"] = "unknown"
        if pair is not None:
            change = "same" if not pair.difference else "better" if pair.difference > 0 else "worse"
        yield TaskOutcome(
            task=task,
            graded=session.graded,
            control_solved=sum(old),
            control_attempts=len(old),
            candidate_solved=sum(new),
            candidate_attempts=len(new),
            difference=float(pair.difference) if pair else None,
            change=change,
            errors=errors.get(task, 0),
            first=session.first,
        )


def _rate(tasks: list[list[bool]]) -> SolveRate:
    judged = [outcomes for outcomes in tasks if outcomes]
    if not judged:
        return SolveRate(0, 0, 0.0, 0.0, 1.0)
    mean = float(sum((Fraction(sum(o), len(o)) for o in judged), Fraction(0)) / len(judged))
    low, high = stats.wilson(mean, len(judged))
    fewest = min(map(len, judged))
    best = {
        str(k): sum(stats.pass_at_k(len(o), sum(o), k) for o in judged) / len(judged)
        for k in sorted({1, fewest, *(k for k in (2, 5, 10) if k <= fewest)})
    }
    return SolveRate(sum(map(sum, judged)), sum(map(len, judged)), mean, low, high, best)


def read_baseline(place: str | Path) -> Baseline:
    """Read a former report: its candidate's outcomes from each state. Raises UsageError."""
    try:
        value = json.loads(Path(place).read_text("utf-8"))
        states = {
            (str(s["session"]), str(s["head"]), int(s["fork_at"])): (int(s["solved"]), int(s["attempts"]))
            for s in value["states"]
        }
        name = str(value["id"])
    except OSError as error:
        raise UsageError(f"The baseline {place} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise UsageError(
            f"{place} is no report of a check.", remedy="Give one that `codetape check -o F.json` wrote."
        ) from error
    if any(not 0 <= solved <= count <= 1000 for solved, count in states.values()):
        raise UsageError(f"{place} says that more was solved than tried, or tried more than a check tries.")
    return Baseline(name, states)
