"""Random worlds: models and sandboxes that do anything their ports allow.

What happens is drawn from one source of chance: hypothesis' own, which shrinks what fails, or a seed's.
"""

import json
import random

from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.domain.task import SandboxFacts
from codetape.domain.usage import Usage
from codetape.errors import ModelUnavailable, SandboxUnavailable
from codetape.ports import BuildRejected, Built, Reply, RequestRefused
from codetape.rules.classify import expected_names
from codetape.rules.pytest_source import functions
from codetape.testing import FakeSandbox
from tests.support import block, diagnosis, failure, opinions, plan, proposals, verification

IMPORTS = ("", "", "import numpy\n", "import frobnicate\n", "import yaml\n", "import quuxlib\n")
EXCEPTIONS = (
    "AssertionError",
    "ValueError",
    "TypeError",
    "ModuleNotFoundError",
    "ImportError",
    "FileNotFoundError",
    "Failed",
)


def line_of(source, name):
    """Return the line of a test's assertion."""
    return next(f.last for f in functions(source) if f.name == name.partition("::")[2])


class World:
    """Its model's replies and its sandbox's outcomes. ``trouble`` is how often things go wrong, 0 to 1."""

    def __init__(self, chance, trouble=0.25):
        self.random = chance if isinstance(chance, random.Random) else random.Random(chance)
        self.trouble = trouble
        self.usage = Usage()
        self.asked = 0
        self.mute = self.random.choice([1.0, 1.0, 3.0])  # how often, more than others, second opinions are unusable
        self.other = self.random.choice([0.1, 0.5, 0.9])  # how often a failure is something else than a failed claim
        able = self.random.random() < 0.5
        self.sandbox = FakeSandbox(
            self.execute, self.build, facts=SandboxFacts(name="fake", python="3.11", system_packages=able)
        )

    def bad(self, share=1.0):
        return self.random.random() < self.trouble * share

    # ---- the model

    name = "random"

    async def ask(self, request):
        self.asked += 1
        if self.bad(0.05):
            raise ModelUnavailable("down")
        if self.bad(0.1):
            what = self.random.choice(["schema", "parameter", "context"])
            return RequestRefused(what, "no", parameter="temperature" if what == "parameter" else "")
        usage = Usage(
            input=self.random.randint(1, 99), output=self.random.randint(1, 99), reasoning=self.random.randint(0, 9)
        )
        if self.bad(self.mute if request.purpose == "second_opinion" else 1.0):
            return self.random.choice([
                Reply(text=None, refusal="no", usage=usage), Reply(text="", usage=usage), Reply(text="{", usage=usage),
                Reply(text="[1]", usage=usage), Reply(text="```python\nx", usage=usage), Reply(text="ok", usage=usage),
                Reply(text=block("def ("), usage=usage), Reply(text="x", finish_reason="length", usage=usage),
            ])  # fmt: skip
        return Reply(text=getattr(self, request.purpose)(request), usage=usage, model="random")

    def plan(self, request):
        return plan("def add(a, b)")

    def code(self, request):
        return block(f"{self.random.choice(IMPORTS)}def add(a, b):\n    return a + b + {self.random.randint(0, 3)}")

    def tests(self, request):
        count = self.random.randint(1, 4)
        body = "\n".join(
            f"def test_{i}():\n    assert add({i}, 1) == {i + self.random.randint(0, 2)}" for i in range(count)
        )
        return block(f"{self.random.choice(IMPORTS)}from solution import add\n{body}")

    def diagnose(self, request):
        text = request.messages[1].content
        names = [f"test_{i}" for i in range(4) if f"test_{i}" in text] or ["test_0"]
        kinds = ["logic", "test_error", "environment"]
        found = [
            failure(
                n, self.random.choice(kinds), fixes=[("return a + b", f"return a + b + {self.random.randint(0, 3)}")]
            )
            for n in names
        ]
        packages = ["numpy"] if self.bad() else ["frobnicate"] if self.bad() else []
        return diagnosis(*found, packages=packages, system=["libfoo"] if self.bad(0.5) else [])

    def second_opinion(self, request):
        said = ["1", "1", "1", "0", "2", "3", "9", None, ("exception", "ValueError")]
        return opinions(*(self.random.choice(said) for _ in range(4)))

    def fix_tests(self, request):
        text = request.messages[1].content
        whole = "The file itself is broken" in text
        faults = text.split("# Tests at fault")[1]
        names = [f"test_{i}" for i in range(4) if f"::test_{i}\n" in faults] or ["test_0"]
        body = "\n".join(f"def {n}():\n    assert add(1, 1) == {self.random.randint(0, 5)}" for n in names)
        return block(("from solution import add\n" if whole else "") + body)

    def verify_code(self, request):
        return verification([f"F{i}" for i in range(1, 4) if self.random.random() < 0.5])

    def verify_tests(self, request):
        return verification([f"test_{i}" for i in range(4) if self.random.random() < 0.5])

    def packages(self, request):
        return proposals(
            frobnicate=self.random.choice(["frobnicate", "", "pyyaml", "--evil"]),
            quuxlib=self.random.choice(["quux", "numpy", ""]),
        )

    def replace_package(self, request):
        return json.dumps({"distribution": self.random.choice(["", "numpy", "pillow", "attrs", "rich"]), "reason": ""})

    # ---- the sandbox

    def build(self, spec):
        if self.bad(0.05):
            raise SandboxUnavailable("down")
        if self.bad():
            reason = self.random.choice(["not_found", "no_wheel", "conflict", "unknown"])
            names = tuple(p for p in spec.packages if self.random.random() < 0.7)
            return BuildRejected(reason, "refused", names if reason != "unknown" else ())
        return Built(spec.name, "", cached=False)

    def execute(self, job):
        if self.bad(0.05):
            raise SandboxUnavailable("down")
        names = [n for n in expected_names({t: job.files[t] for t in job.targets}) if n not in job.deselect]
        if self.bad(0.3) and names:
            return Report(
                exit=self.random.choice(["timeout", "oom", "killed", "pids", "output_cap"]),
                whole=False,
                collected=tuple(names),
                tests=(TestResult(id=names[0], outcome="unfinished"),),
            )
        if self.bad(0.3):
            file = self.random.choice(["test_solution.py", "solution.py"])
            broken = TestResult(
                id="test_solution.py",
                outcome="error",
                exception=self.random.choice(EXCEPTIONS),
                message=self.random.choice(["No module named 'frobnicate'", "x"]),
                frames=(Frame(file=file, line=1),),
            )
            return Report(exit="collection_error", whole=True, exit_code=2, collected=(), tests=(broken,))
        rate = 0.95 if job.purpose == "vet" else self.trouble
        lines = {n: line_of(job.files[n.partition("::")[0]], n) for n in names}
        results = tuple(
            self.result(n, lines[n]) if self.random.random() < rate else TestResult(id=n, outcome="passed")
            for n in names
        )
        bad = any(r.outcome != "passed" for r in results)
        whole = not bad or not self.bad(0.2)
        exit = ("tests_failed" if bad else "ok") if whole else "killed"
        return Report(exit=exit, whole=whole, exit_code=int(bad), collected=tuple(names), tests=results)

    def result(self, name, line):
        exception = self.random.choice(EXCEPTIONS if self.random.random() < self.other else ("AssertionError",))
        message = {
            "ModuleNotFoundError": f"No module named '{self.random.choice(['numpy', 'frobnicate', 'yaml'])}'",
            "ImportError": "libfoo.so.1: cannot open shared object file",
            "Failed": "DID NOT RAISE ValueError",
            "FileNotFoundError": "No such file or directory: 'ffmpeg'",
        }.get(exception, f"assert {self.random.randint(0, 3)} == 9")
        places = [(), (Frame(file="solution.py", line=1),), (Frame(file=name.partition("::")[0], line=1),)]
        claim = (Frame(file=name.partition("::")[0], line=line),)
        frames = self.random.choice(places) if self.random.random() < self.other else claim
        seen = Comparison(op="==", left="1" if self.random.random() < 0.7 else "2", right="9")
        return TestResult(
            id=name,
            outcome=self.random.choice(["failed", "failed", "error"]),
            exception=exception,
            message=message,
            frames=frames,
            comparison=seen,
        )
