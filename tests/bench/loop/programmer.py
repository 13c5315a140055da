"""A programmer of known weakness: it holds one task's truth, and answers each question as it would, by drawn lots.

What it answers depends on the seed, the task, the purpose, and how often it was asked: a session can be run again. It reads
what a session has made, and no prompt: other words in a prompt change nothing here.
"""

import ast
import json
import random
from dataclasses import dataclass, field

from codetape.domain.model_request import ModelRequest
from codetape.domain.usage import Usage
from codetape.eventlog.session_state import SessionState
from codetape.ports import Model, Reply
from codetape.rules.pytest_source import file_of, name_of
from codetape.rules.session_view import calls_in_doubt
from tests.bench.loop.claims import BenchClaim, claims_in, test_file, test_text
from tests.bench.loop.corpus import BenchTask, holds, outcome, same_value


@dataclass(frozen=True)
class Skill:
    """How good the programmer is: chances, and habits."""

    code: float = 0.70  # a first program is right
    subtle: float = 0.0  # of wrong first programs: drawn among those that pass the examples
    assertion: float = 0.85  # an expectation of its own is right
    fix: float = 0.60  # a fix of wrong code leads to the right program
    blames_test: float = 0.50  # right code: the diagnosis says that the test is wrong
    applies: float = 0.90  # fixes that were asked for are made
    opinion: float = 0.90  # a blind opinion is right, where the expectation is
    common: float = 0.35  # where the expectation is wrong, an opinion makes the same mistake
    test_fix: float = 0.90  # a wrong expectation is mended to the right one
    bends: float = 0.70  # of others: it takes what the code gives
    repeats: float = 0.50  # a fresh sample is the first program again
    special_cases: float = 0.0  # a harmful change answers the failing call alone
    persists: bool = False  # a misreading rules its diagnoses and test fixes too
    blames_code: bool = False  # always
    few: bool = False  # two or three assertions in place of four to six


WORLDS = {
    "as it stands": Skill(),
    "special-casing 0.5": Skill(special_cases=0.5),
    "assertions 0.7": Skill(assertion=0.7),
    "misreadings persist": Skill(persists=True),
    "always blames the code": Skill(blames_code=True),
    "two or three assertions": Skill(few=True),
}
"""Programmers that the loop is measured with."""


@dataclass
class Programmer:
    """One task's programmer. ``session`` is what it may know of: set to each state as it is reached."""

    task: BenchTask
    seed: int
    skill: Skill
    session: SessionState = field(default_factory=lambda: SessionState(session="none"))
    asked: dict[str, int] = field(default_factory=dict)
    target: str = ""

    # ---- lots

    def lots(self, *key: object) -> random.Random:
        """Return the lots of one draw."""
        return random.Random("|".join(map(str, (self.seed, self.task.name, *key))))

    def draws(self, chance: float, *key: object) -> bool:
        """Whether a draw of this chance comes out."""
        return self.lots(*key).random() < chance

    # ---- truth

    @property
    def reference(self) -> str:
        """Return the right program."""
        return self.task.programs[0]

    def truth(self, case: str) -> str:
        """Return what a case comes to, as an assertion says it; empty where it has no value by itself."""
        return _said(outcome(self.reference, case))

    def is_right(self, claim: BenchClaim) -> bool:
        """Whether a claim holds of the right program."""
        return holds(outcome(self.reference, claim.case), claim.expected)

    # ---- programs

    def sample(self, number: int) -> str:
        """Return the program that is written from the plan the nth time."""
        if number and self.draws(self.skill.repeats, "repeats", number):
            return self.sample(0)
        if self.draws(self.skill.code, "code", number):
            return (
                f"{self.reference}# draft {number + 1}\n" if number else self.reference
            )  # nobody writes it twice alike
        if self.task.subtle and self.draws(self.skill.subtle, "subtle", number):
            return self.task.programs[self.lots("which subtle", number).choice(self.task.subtle)]
        return self.wrong("sample", number)

    def wrong(self, *key: object, but: str = "") -> str:
        """Return one of the wrong programs, another than ``but``."""
        return self.lots("wrong", *key).choice([p for p in self.task.programs[1:] if p != but])

    def harm(self, code: str, failing: list[BenchClaim], *key: object) -> str:
        """Return what right code is changed into by one who believes the tests."""
        if failing and self.draws(self.skill.special_cases, "special", *key):
            return _special_cased(code, self.task.entry, failing) or self.wrong("harm", *key, but=code)
        return self.wrong("harm", *key, but=code)

    # ---- expectations

    def assertions(self, number: int) -> list[BenchClaim]:
        """Return the nth set of claims that it would test."""
        lots = self.lots("tests", number)
        count = lots.randint(2, 3) if self.skill.few else lots.randint(4, 6)
        cases = lots.sample(self.task.cases, min(count, len(self.task.cases)))
        return [
            BenchClaim(f"test_{place}", case, self._expectation(case, number)) for place, case in enumerate(cases, 1)
        ]

    def _expectation(self, case: str, number: int) -> str:
        if self.draws(self.skill.assertion, "assertion", number, case):
            return self.truth(case)
        return self.misread(case)

    def misread(self, case: str) -> str:
        """Return the wrong value that it takes for right: the same misunderstanding each time."""
        return _wrong_value(self.truth(case), self.lots("misread", case))

    def believes(self, claim: BenchClaim) -> bool:
        """Whether it is sure of a claim that is wrong."""
        wrong = not self.is_right(claim)
        return self.skill.persists and wrong and self.draws(self.skill.common, "common", claim.case)

    # ---- answers

    def answer(self, purpose: str) -> str:
        """Return the reply to a question."""
        return str(getattr(self, f"_{purpose}")(self._next(purpose)))

    def _plan(self, _number: int) -> str:
        interface = [{"signature": self.task.signature, "contract": "Does what the task says."}]
        return json.dumps(
            {
                "description": "As the task asks.",
                "approach": "Follow the task's words case by case.",
                "packages": [],
                "edge_cases": [],
                "interface": interface,
            }
        )

    def _tests(self, number: int) -> str:
        rows = [test_text(c.test, c.case, c.expected) for c in self.assertions(number)]
        return _fenced(test_file(self.task.entry, rows))

    def _code(self, number: int) -> str:
        session = self.session
        if session.ledger.from_plan or not session.work.code:
            return _fenced(self.sample(self._next("samples")))
        code = session.work.code
        if session.work.fixes or session.work.missing:
            made = bool(self.target) and self.draws(self.skill.applies, "applies", number)
            return _fenced(self.target if made else code)
        if not self.task.right(code):
            mended = self.draws(self.skill.fix, "own fix", number)
            return _fenced(self.reference if mended else self.wrong("own", number, but=code))
        if not self.skill.blames_code and self.draws(self.skill.blames_test, "keeps", number):
            return _fenced(code)
        return _fenced(self.harm(code, self._failing_claims(), "own", number))

    def _next(self, what: str) -> int:
        """Return how often it was asked for a thing before."""
        self.asked[what] = self.asked.get(what, -1) + 1
        return self.asked[what]

    def _claims(self) -> dict[str, BenchClaim]:
        return {**claims_in(self.session.anchors or ""), **claims_in(self.session.work.tests)}

    def _failing_claims(self) -> list[BenchClaim]:
        claims = self._claims()
        return [claims[name_of(f.test)] for f in self.session.work.findings if name_of(f.test) in claims]

    def _diagnose(self, number: int) -> str:
        code, claims = self.session.work.code, self._claims()
        right = self.task.right(code)
        findings = self.session.work.findings
        kinds: dict[str, str] = {}
        blames_tests = right and not self.skill.blames_code and self.draws(self.skill.blames_test, "diagnosis", number)
        for finding in findings:
            claim = claims.get(name_of(finding.test))
            sure = claim is not None and self.believes(claim)
            wrong = claim is not None and not self.is_right(claim)
            if right:
                kinds[finding.test] = "test_error" if blames_tests and not sure else "logic"
            else:
                doubts = wrong and not sure and not self.skill.blames_code
                blames = doubts and self.draws(self.skill.blames_test, "diagnosis", number, finding.test)
                kinds[finding.test] = "test_error" if blames else "logic"
        self.target = self._aim(code, right, [t for t, kind in kinds.items() if kind == "logic"], number)
        fixes = _fixes(code, self.target)
        failures = [
            {
                "test_name": test,
                "error_message": "",
                "expected_behavior": "",
                "actual_behavior": "",
                "root_cause": "The code is wrong here." if kind == "logic" else "The test contradicts the task.",
                "suggested_fix": "",
                "error_type": kind,
                "fixes": fixes if kind == "logic" else [],
            }
            for test, kind in kinds.items()
        ]
        empty: list[str] = []
        needs = {"needs_language_packages": empty, "needs_system_packages": empty, "needs_additional_commands": empty}
        return json.dumps({"failures": failures, **needs})

    def _aim(self, code: str, right: bool, blamed: list[str], number: int) -> str:
        """Return the program that its fixes lead to; empty where it has none."""
        if not blamed:
            return ""
        if not right:
            mended = self.draws(self.skill.fix, "fix", number)
            return self.reference if mended else self.wrong("fix", number, but=code)
        claims = self._claims()
        return self.harm(code, [claims[name_of(t)] for t in blamed if name_of(t) in claims], number)

    def _second_opinion(self, number: int) -> str:
        claims, by_call = self._claims(), {}
        for finding in self.session.work.findings:
            if finding.call and name_of(finding.test) in claims:
                by_call[finding.call] = claims[name_of(finding.test)]
        said = []
        for label, call in enumerate(calls_in_doubt(self.session), 1):
            claim = by_call.get(call)
            value = self._opinion(claim, number) if claim else self.truth(call)
            verdict, text = ("exception", value[7:]) if value.startswith("raises ") else ("value", value)
            said.append({"test": f"T{label}", "verdict": verdict, "value": text, "words": "as the task says"})
        return json.dumps({"opinions": said})

    def _opinion(self, claim: BenchClaim, number: int) -> str:
        if self.is_right(claim):
            right = self.draws(self.skill.opinion, "opinion", number, claim.case)
            return self.truth(claim.case) if right else _wrong_value(self.truth(claim.case), self.lots("slip", number))
        misread = self.draws(self.skill.common, "common", claim.case)
        return claim.expected if misread else self.truth(claim.case)

    def _fix_tests(self, number: int) -> str:
        session, claims, fixed = self.session, claims_in(self.session.work.tests), []
        for finding in session.work.findings:
            claim = claims.get(name_of(finding.test))
            if claim is None or finding.error_type != "test_error" or file_of(finding.test) != "test_solution.py":
                continue
            fixed.append(test_text(claim.test, claim.case, self._mended(claim, number)))
        return _fenced("\n\n\n".join(fixed) or "pass")

    def _mended(self, claim: BenchClaim, number: int) -> str:
        if self.believes(claim):
            return claim.expected
        if self.draws(self.skill.test_fix, "test fix", number, claim.test):
            return self.truth(claim.case)
        if self.draws(self.skill.bends, "bends", number, claim.test):
            return _said(outcome(self.session.work.code, claim.case)) or claim.expected
        return _wrong_value(self.truth(claim.case), self.lots("mended wrong", number, claim.test))

    def _verify_code(self, _number: int) -> str:
        ids = [fix.id for fix in self.session.work.missing or self.session.work.fixes]
        return json.dumps({"applied_fixes": ids, "missing_fixes": [], "explanation": ""})

    def _verify_tests(self, _number: int) -> str:
        before = self.session.work.checkpoint.tests if self.session.work.checkpoint else ""
        was, now = claims_in(before), claims_in(self.session.work.tests)
        asked = [f.test for f in self.session.work.findings if f.error_type == "test_error"]
        missing = [t for t in asked if was.get(name_of(t)) == now.get(name_of(t))]
        applied = [t for t in asked if t not in missing]
        return json.dumps({"applied_fixes": applied, "missing_fixes": missing, "explanation": ""})

    def _packages(self, _number: int) -> str:
        return json.dumps({"packages": []})

    def _replace_package(self, _number: int) -> str:
        return json.dumps({"distribution": "", "reason": ""})


class ProgrammerModel(Model):
    """A programmer behind the port of a model; it counts four characters as a token."""

    name = "programmer"

    def __init__(self, programmer: Programmer) -> None:
        self.programmer, self.tokens, self.by_purpose = programmer, 0, dict[str, int]()
        self.costs: dict[str, int] = {}

    async def ask(self, request: ModelRequest) -> Reply:
        """Answer a request."""
        text = self.programmer.answer(request.purpose)
        read = sum(len(m.content) for m in request.messages) // 4
        spent = read + len(text) // 4
        self.tokens += spent
        self.by_purpose[request.purpose] = self.by_purpose.get(request.purpose, 0) + 1
        self.costs.setdefault(request.purpose, spent)
        return Reply(text=text, model=self.name, usage=Usage(input=read, output=len(text) // 4, source="estimated"))


def _said(given: object) -> str:
    kind, text = given.kind, given.text  # type: ignore[attr-defined]  # an Outcome
    return text if kind == "value" else f"raises {text}"


def _fenced(code: str) -> str:
    return f"```python\n{code.rstrip()}\n```"


def _fixes(code: str, target: str) -> list[dict[str, str]]:
    """Return a change from one text to another as a replacement of whole lines that stand in it once."""
    if not target or target == code:
        return []
    old, new = code.split("\n"), target.split("\n")
    first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    same = 0
    while same < min(len(old), len(new)) - first and old[-1 - same] == new[-1 - same]:
        same += 1
    low, high = first, len(old) - same
    while True:
        before, after = "\n".join(old[low:high]), "\n".join(new[low : len(new) - (len(old) - high)])
        if before.strip() and after.strip() and code.count(before) == 1:
            return [{"id": "F1", "old": before, "new": after, "reason": "The code does not do what the task says."}]
        if low:
            low -= 1
        elif high < len(old):
            high += 1
        else:
            return [{"id": "F1", "old": code, "new": target, "reason": "The code does not do what the task says."}]


def _special_cased(code: str, entry: str, failing: list[BenchClaim]) -> str:
    """Return the program with the failing calls answered by their arguments; empty where none is a plain call."""
    answers = []
    for claim in failing:
        call = ast.parse(claim.case).body
        value = call[0].value if len(call) == 1 and isinstance(call[0], ast.Expr) else None
        plain = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == entry
        if plain and not value.keywords and not claim.expected.startswith("raises ") and _literal(value.args):
            answers.append((ast.unparse(ast.Tuple(value.args, ast.Load())), claim.expected))
    if not answers:
        return ""
    rows = "".join(f"    if args == {arguments}:\n        return {value}\n" for arguments, value in answers)
    return f"{code.rstrip()}\n\n\n_plain = {entry}\n\n\ndef {entry}(*args):\n{rows}    return _plain(*args)\n"


def _literal(arguments: list[ast.expr]) -> bool:
    try:
        return all(ast.literal_eval(argument) is not arguments for argument in arguments)
    except ValueError:
        return False


def _wrong_value(text: str, lots: random.Random) -> str:
    """Return a plausible wrong expectation: off by one, in another order, one too few, of another type."""
    if text.startswith("raises "):
        return lots.choice(["None", "0", "''"])
    value = ast.literal_eval(text)
    others = [other for other in _near(value, lots) if not same_value(repr(other), text)]
    return repr(lots.choice(others)) if others else "None" if value is not None else "0"


def _near(value: object, lots: random.Random) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, -value, value * 2]
    if isinstance(value, float):
        return [value + 1, value - 0.5, float(int(value))]
    if isinstance(value, str):
        return [value[::-1], value[:-1], value.upper(), value + value[-1:], value.capitalize()] if value else [" "]
    if isinstance(value, bytes):
        return [value + b" ", value[:-1]]
    if isinstance(value, list | tuple):
        kind, items = type(value), list(value)
        changed: list[object] = [kind(reversed(items)), kind(items[:-1]), kind(items[1:])]
        if items:
            place = lots.randrange(len(items))
            changed += [kind([*items[:place], one, *items[place + 1 :]]) for one in _near(items[place], lots)[:1]]
        return changed or [None]
    if isinstance(value, dict):
        return [dict(list(value.items())[:-1]), {k: (_near(v, lots) or [v])[0] for k, v in value.items()}, list(value)]
    if isinstance(value, set | frozenset):
        return [set(list(value)[1:]), sorted(map(str, value))]
    return [0, "", []]
