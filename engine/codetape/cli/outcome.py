"""A session's end: the JSON object, the files, the summary for a person, and the exit code."""

from pathlib import Path
from typing import Any

from codetape.artefacts import ANCHOR_FILE, SOLUTION_FILE, TEST_FILE, USER_FILE
from codetape.budgets import money, pico
from codetape.cli.text import first_line, say
from codetape.decide.remedies import EXAMPLE
from codetape.errors import UsageError
from codetape.redaction import find_keys
from codetape.result import GenerateResult, script_header
from codetape.run import Run

CONFIDENCE = {
    "oracle": "your oracle passed",
    "anchored": "your examples or tests passed",
    "self_tested": "only tests that it wrote itself passed",
    "disputed": "what passed outweighs a test or an example that speaks against it, and was set aside",
    "untested": "nothing was tested",
}


def exit_code(run: Run) -> int:
    """Return the process's exit code for a session's state."""
    if run.state == "succeeded":
        return 0
    if run.state == "failed":
        return 100
    return {"question": 104, "budget": 101, "person": 130}.get(run.cause, 1)


def as_object(result: GenerateResult, duration_s: float, solution_path: Path | None = None) -> dict[str, Any]:
    """Return what `run --json` prints."""
    usage = result.usage
    return {
        "session": result.session,
        "task": result.task,
        "status": result.status,
        "confidence": result.confidence,
        "reason": result.reason,
        "iterations": result.iterations,
        "image": result.image,
        "packages": list(result.packages),
        "tests": result.counts.model_dump(),
        "usage": {
            "input": usage.total_input,
            "cached_input": usage.cache_read,
            "output": usage.total_output,
            "reasoning": usage.reasoning,
            "total": usage.total_input + usage.total_output,
            "calls": result.calls,
            "estimated": result.usage_estimated,
            "cost": result.cost if not result.unpriced or float(result.cost) else None,
            "unpriced": result.unpriced,
            "replayed": result.replayed,
        },
        "inherited": {
            "parent": result.parent,
            "at": result.forked_at,
            "input": result.inherited.total_input,
            "output": result.inherited.total_output,
            "calls": result.inherited_calls,
        }
        if result.parent
        else None,
        "question": result.question,
        "keys_seen": list(keys_in(result)),
        "solution": result.solution.code if result.solution else None,
        "solution_path": str(solution_path) if solution_path else None,
        "head": result.head,
        "duration_s": round(duration_s, 3),
    }


def example_of(question: str) -> str:
    """Return the name of the test that a question is about; empty where it is about something else."""
    return question.partition("::")[2] if question.startswith(EXAMPLE) else ""


def keys_in(result: GenerateResult) -> tuple[str, ...]:
    """Return the kinds of keys that script and tests seem to hold: reported, never replaced, for they may be meant."""
    return find_keys(f"{result.solution.code if result.solution else ''}\n{result.tests}")


def prepare(folder: Path) -> None:
    """Make the folder before anything is spent. Raises UsageError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".codetape-probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror}.", remedy="Name another folder with -o."
        ) from error


def write_files(result: GenerateResult, folder: Path) -> Path | None:
    """Write the script, its tests, its lock and the result into a folder; return the script's path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(result.model_dump_json(indent=2) + "\n")
        if result.solution is None:
            return None
        files = {
            SOLUTION_FILE: script_header(result) + result.solution.code,
            TEST_FILE: result.tests,
            USER_FILE: result.given_tests,
            ANCHOR_FILE: result.anchors,
            "requirements.lock": result.lock,
        }
        for name, text in files.items():
            if text.strip():
                (folder / name).write_text(text)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror}.",
            remedy="The session is on its tape: `codetape show --code` prints the script.",
        ) from error
    return folder / SOLUTION_FILE


def summarise(result: GenerateResult, run: Run, duration_s: float, path: Path | None, again: str = "") -> None:
    """Print the end for a person: verdict, figures, where the script is, what to try next."""
    counts, usage = result.counts, result.usage
    say()
    if result.succeeded:
        say(f"succeeded, {result.confidence}: {CONFIDENCE[result.confidence]}")
    else:
        say(f"{result.status}: {result.reason}")
    quarantined = f", {counts.quarantined} quarantined" if counts.quarantined else ""
    say(f"  tests       {counts.passed} passed, {counts.failed} failed, {counts.errors} errors{quarantined}")
    say(f"  runs        {result.iterations}")
    about = "about " if result.usage_estimated else ""
    say(f"  tokens      {about}{usage.total_input:,} in, {usage.total_output:,} out, {result.calls} calls")
    if result.parent:
        own = usage.total_input - result.inherited.total_input, usage.total_output - result.inherited.total_output
        calls = result.calls - result.inherited_calls
        say(f"  inherited   {result.inherited_calls} of the calls, from {result.parent} up to event {result.forked_at}")
        say(f"  spent here  {about}{own[0]:,} in, {own[1]:,} out, {calls} calls")
    replayed = f"; {result.replayed} answers from a recording, at $0" if result.replayed else ""
    say(f"  money       {money(pico(result.cost), result.unpriced)}{replayed}")
    say(f"  packages    {', '.join(result.packages) or 'none beyond the standard library'}")
    say(f"  time        {duration_s:.1f} s")
    if path:
        say(f"  script      {path}")
    say(f"  session     {result.session}")
    for kind in keys_in(result):
        say(f"  careful     the script or its tests seem to hold a key: {kind}")
    for gone in result.quarantined:
        say(f"  quarantined {gone.test}: {first_line(gone.words) or gone.reason}")
    for line in next_steps(result, run, path, again):
        say(f"  next        {line}")


def next_steps(result: GenerateResult, run: Run, path: Path | None, again: str = "") -> list[str]:
    """Return what a person can do now, as commands; ``again`` holds the options that they must name again."""
    name, shown = result.session, " ".join(w for w in again.split(" --base-url")[0:1] if w)
    db = f" {shown}" if shown else ""
    again = f" {again}" if again else ""
    if result.status == "suspended":
        if run.cause == "question" and (name_of_test := example_of(result.question)):
            return [f"codetape resume {name}{again} --{verb}-test {name_of_test}" for verb in ("drop", "keep")]
        if run.cause == "question":
            return [f"codetape resume {name}{again} --{verb}-package {result.question}" for verb in ("allow", "deny")]
        if run.cause == "budget":
            config = run.the_config
            given = (
                ("--max-tokens N", config.max_tokens),
                ("--max-cost USD", config.max_cost),
                ("--max-time T", config.max_seconds),
            )
            flags = " ".join(flag for flag, value in given if value) or "--max-total-cost USD"
            return [f"codetape resume {name}{again} {flags}"]
        return [f"codetape resume {name}{again}"]
    if result.status == "failed":
        more = (
            [f"codetape resume {name}{again} --max-iterations {result.iterations + 5}"]
            if run.cause == "iterations"
            else []
        )
        return [f"codetape show {name}{db} --prompts", *more]
    if result.outputs:
        return [f"codetape exec {name}{db}{''.join(f' {i.name}=...' for i in result.inputs)}"]
    return [f"uv run {path}"] if path else [f"codetape show {name}{db} --code"]
