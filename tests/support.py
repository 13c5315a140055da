"""Building blocks of tests: replies in their asked form, and a sandbox that runs our own trusted tests on the host."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from codetape.domain.task import SandboxFacts
from codetape.ports import Built, Execution
from codetape_adapters.sandboxes.execution import report_parser
from codetape_adapters.sandboxes.guest import GUEST_FOLDER, HARNESS, invocation
from tests.helpers import forked


def block(code):
    return f"```python\n{code}\n```"


def plan(*signatures, **more):
    interface = [{"signature": s, "contract": "as the task says"} for s in signatures or ("def add(a, b)",)]
    return json.dumps(
        {
            "description": "A plan.",
            "approach": "Plainly.",
            "packages": [],
            "interface": interface,
            "edge_cases": [],
            **more,
        }
    )


def diagnosis(*failures, packages=(), system=()):
    return json.dumps(
        {
            "failures": list(failures),
            "needs_language_packages": list(packages),
            "needs_system_packages": list(system),
            "needs_additional_commands": [],
        }
    )


def failure(test, kind="logic", cause="It is wrong.", fixes=()):
    return {
        "test_name": test,
        "error_message": "",
        "expected_behavior": "",
        "actual_behavior": "",
        "root_cause": cause,
        "suggested_fix": "",
        "error_type": kind,
        "fixes": [
            {"id": f"F{i}", "old": old, "new": new, "reason": "so it is right"} for i, (old, new) in enumerate(fixes, 1)
        ],
    }


def opinions(*values, words="as the task says"):
    """Opinions for T1, T2, ...: a literal's text, None for silent, or ("exception", name)."""
    found = []
    for number, value in enumerate(values, 1):
        verdict, text = ("silent", "") if value is None else value if isinstance(value, tuple) else ("value", value)
        found.append({"test": f"T{number}", "verdict": verdict, "value": text, "words": words})
    return json.dumps({"opinions": found})


def verification(missing=()):
    return json.dumps({"applied_fixes": [], "missing_fixes": list(missing), "explanation": ""})


def proposals(**names):
    return json.dumps({"packages": [{"module": m, "distribution": d} for m, d in names.items()]})


ADD = block("def add(a, b):\n    return a + b")
SUBTRACT = block("def add(a, b):\n    return a - b")
ADD_TESTS = block(
    "from solution import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n\n\ndef test_zero():\n    assert add(4, 0) == 4"
)


class HostSandbox:
    """Runs jobs with this Python and pytest, unconfined: for code that the tests wrote themselves, and for nothing else."""

    def __init__(self, build=None):
        self._build, self.jobs, self.specs = build, [], []

    def facts(self):
        return SandboxFacts(name="host", python=".".join(map(str, sys.version_info[:2])), evaluates=True)

    async def build(self, spec):
        self.specs.append(spec)
        return self._build(spec) if self._build else Built(image=spec.name, lock="", cached=False)

    async def execute(self, job):
        self.jobs.append(job)
        with tempfile.TemporaryDirectory() as folder:
            return self._execute(job, Path(folder).resolve())

    def _execute(self, job, folder):
        for name, text in job.files.items():
            (folder / name).write_text(text)
        (folder / "pytest.ini").write_text("[pytest]\n")
        invoked = invocation(job)
        own = {
            name: invoked.variables[name]
            for name in invoked.variables
            if name.startswith(("CODETAPE_", "PYTHON", "PYTEST_", "TZ"))
        }
        env = {**own, "PATH": os.environ["PATH"], "CODETAPE_WORK": str(folder), "PYTHONPATH": str(GUEST_FOLDER)}
        here = {f"{HARNESS}/pytest.ini": str(folder / "pytest.ini"), job.conditions.folder: str(folder)}
        words = [*(here.get(word, word) for word in invoked.words), *invoked.targets]
        begun = time.monotonic()
        if words[:2] == ["-m", "pytest"] and env["PYTHONHASHSEED"] == forked.HASH_SEED:
            code, out, err, lines = forked.run_pytest(words[2:], env, folder, job.resources.wall_seconds)
        else:
            code, out, err, lines = self._run(words, env, folder, job.resources.wall_seconds)
        stopped = "timeout" if code is None else None
        raw = report_parser.Raw(
            report=lines,
            outcome=b'{"begun": true}\n'
            + json.dumps({"status": -9 if code is None else code}).encode()
            + b'\n{"rejected": []}\n',
            stdout=out,
            stderr=err,
            stopped=stopped,
            duration_ms=int((time.monotonic() - begun) * 1000),
            tree_memory_bounded=False,
        )
        return Execution(report_parser.read(raw, job).report, {})

    @staticmethod
    def _run(words, env, folder, timeout):
        """Run Python with these words; return what `forked.run_pytest` does."""
        report, write = os.pipe()
        command, env = [sys.executable, *words], {**env, "CODETAPE_REPORT_FD": str(write)}
        process = subprocess.Popen(
            command, cwd=folder, env=env, pass_fds=(write,), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.close(write)
        try:
            out, err = process.communicate(timeout=timeout)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            code = None
        with os.fdopen(report, "rb") as pipe:
            return code, out, err, pipe.read()


def generate(
    answers,
    prompt="Write add(a, b): the sum of two numbers.",
    *,
    sandbox=None,
    store=None,
    hook=None,
    model=None,
    ask=None,
    **settings,
):
    """Run one session on scripted answers; return its result, and the model for what it was asked."""
    from codetape import AutoCoderAgent
    from codetape.testing import MemoryStore, ScriptedModel

    model = model or ScriptedModel(answers)
    agent = AutoCoderAgent(model=model, sandbox=sandbox or HostSandbox(), store=store or MemoryStore(), **settings)
    return agent.generate(prompt, on_event=hook, **(ask or {})), model


def purposes(model):
    return [request.purpose for request in model.requests]
