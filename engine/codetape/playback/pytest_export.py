"""A failed run of the tests as one pytest file that needs neither codetape nor a network: code, tests, and failures."""

import ast
import base64
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from codetape.decider import decide
from codetape.decider.commands import Execute
from codetape.domain.job import Job
from codetape.domain.lock import pins
from codetape.domain.report import Report
from codetape.domain.script_args import file_names
from codetape.errors import UsageError
from codetape.eventlog.events import BuildFinished, Requested, TestsFinished
from codetape.eventlog.fold import apply
from codetape.eventlog.session_state import SessionState
from codetape.playback.tape_samples import files_at
from codetape.ports import Stream

MAX_SAMPLE = 1 << 20  # bytes; a larger sample is named, not embedded
_FILE = '''\
"""{title}

Made from a recording. It runs with: pytest {needs}
    pytest {name}           every test below fails as it was recorded, or has been fixed
    python {name} FOLDER    write the files into a folder, to look into them there
Recorded with Python {python}.{inputs}
Careful: this runs code that a model wrote, and here no sandbox is around it.
"""

import base64
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {{
{files}}}
FAILED = {failed}
INPUTS = {{  # samples, in base 64
{samples}}}
LINKS = {links}
LACKS = {lacks}  # samples that are not in this file


def unpack(folder):
    """Write the files as the sandbox had them, but for its own places."""
    (folder / "inputs").mkdir(exist_ok=True)
    for name, data in INPUTS.items():
        (folder / "inputs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "inputs" / name).write_bytes(base64.b64decode(data))
    if not INPUTS and (beside := Path(__file__).parent / "inputs").is_dir():
        shutil.copytree(beside, folder / "inputs", dirs_exist_ok=True)
    for name, file in LINKS.items():  # programs may have been told the input's name alone
        if (folder / "inputs" / file).exists() and not (folder / "inputs" / name).exists():
            (folder / "inputs" / name).symlink_to(file)
    (folder / "outputs").mkdir(exist_ok=True)
    for name, text in FILES.items():
        for place in ("inputs", "outputs"):
            text = text.replace(f"/var/{{place}}", str(folder / place))
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\\n", encoding="utf-8")


@pytest.mark.parametrize("test", FAILED)
def test_recorded_failure(test, tmp_path):
    """Run one failed test again, in a process and a folder of its own."""
    unpack(tmp_path)
    missing = [name for name in LACKS if not (tmp_path / "inputs" / name).exists()]
    assert not missing, f"samples are missing: put {{', '.join(missing)}} into a folder `inputs` beside this file"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", "-c", "pytest.ini", "--", test]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout={timeout}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    unpack(place)
    print("cd", shlex.quote(str(place)), "&& python -m pytest --noconftest -c pytest.ini --", *map(shlex.quote, FAILED))
'''


class PytestFile(NamedTuple):
    """A pytest file's text, and the inputs whose samples it lacks: they have to lie beside it."""

    text: str
    lacks: tuple[str, ...]


def bundle(
    stream: Stream, seq: int | None = None, *, name: str = "test_recorded.py", folders: Sequence[Path] = ()
) -> PytestFile:
    """Return a pytest file of the last run in which a test failed, or the last such run up to an event.

    Samples come from where they were, or from ``folders``, if they are unchanged. Raises UsageError where no test
    failed, or the tests were stopped before one did.
    """
    last_failed: tuple[Job, TestsFinished, str] | None = None
    session, lock = SessionState(), ""
    job: Job | None = None
    for event in stream.events:
        if seq is not None and event.seq > seq:
            break
        payload = event.payload
        if isinstance(payload, Requested) and payload.effect == "execute":
            command = decide(session)  # the event holds no whole job: the rules derive it again from the state
            job = command.job if isinstance(command, Execute) else None
        elif isinstance(payload, BuildFinished):
            lock = stream.texts[payload.lock]
        elif isinstance(payload, TestsFinished) and job is not None and _failed(payload):
            last_failed = job, payload, lock
        session = apply(session, event, stream.texts)
    if last_failed is None:
        where = f" up to event {seq}" if seq is not None else ""
        raise UsageError(
            f"Session {session.session} has no run{where} in which a test failed.",
            remedy="`codetape show SESSION --events` shows its runs.",
        )
    return _file(session, *last_failed, Report.model_validate_json(stream.texts[last_failed[1].report]), name, folders)


def _failed(payload: TestsFinished) -> bool:
    return payload.purpose in ("run", "oracle") and bool(payload.failed or payload.errors)


def _file(
    session: SessionState,
    job: Job,
    finished: TestsFinished,
    lock: str,
    report: Report,
    name: str,
    folders: Sequence[Path],
) -> PytestFile:
    names = {pin.partition("==")[0]: pin for pin in pins(lock)}
    needs = " ".join(names.get(p, p) for p in job.spec.packages)
    failed = [t.id for t in report.tests if t.outcome in ("failed", "error", "unfinished")]
    samples, absent = _samples(job, folders)
    note = (
        f"\nA tape holds no samples: put {', '.join(absent)} into a folder `inputs` beside this file." if absent else ""
    )
    files = "".join(f"    {file!a}: {literal(text)},\n" for file, text in job.files.items())
    text = _FILE.format(
        title=_word(f"What failed in codetape session {session.session}, task {session.the_task.id}: the {finished.purpose} of event {finished.call}."),
        needs=_word(f"(pip install pytest {needs})" if needs else "(pip install pytest)"),
        name=_word(name).replace("\n", "?"),
        python=session.the_config.python_version,
        inputs=_word(note),
        files=files,
        samples="".join(f"    {sample!a}: {data!a},\n" for sample, data in samples.items()),
        links=ascii({name: file for name, file in file_names(job.inputs).items() if name != file}),
        lacks=ascii(absent),
        failed=ascii(failed),
        timeout=job.resources.wall_seconds,
    )  # fmt: skip
    return PytestFile(text, tuple(absent))


def _samples(job: Job, folders: Sequence[Path]) -> tuple[dict[str, str], list[str]]:
    """Return the samples in base 64, and the names of inputs whose sample is missing, changed or too large."""
    samples, absent = dict[str, str](), list[str]()
    names = file_names(job.inputs)
    for job_input in job.inputs:
        if job_input.sample is None:
            continue
        name, path = names[job_input.name], Path(job_input.sample.path)
        places = [path, *(folder / one for folder in folders for one in (name, path.name))]
        files = next((found for place in places if (found := files_at(place, name, job_input))), {})
        if files and job_input.sample.size <= MAX_SAMPLE:
            samples |= {one: base64.b64encode(data).decode() for one, data in files.items()}
        else:
            absent.append(name)
    # all or none: `unpack` takes the folder beside the file only where no sample is embedded
    return ({} if absent else samples), absent


def _word(text: str) -> str:
    """Return a text that is safe inside a docstring."""
    return "".join(c if c == "\n" or (c.isprintable() and c not in '\\"') else "?" for c in text)


def literal(text: str) -> str:
    """Return a text as a Python literal, over several lines where that reads back as the same text."""
    body = "".join(_escaped(c) for c in text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"'))
    shown = f'"""\\\n{body}"""' if not body.endswith('"') else f'"""\\\n{body[:-1]}\\""""'
    with suppress(SyntaxError, ValueError):
        if ast.literal_eval(shown) == text:
            return shown
    return ascii(text)


def _escaped(character: str) -> str:
    return character if character in "\n\t" or character.isprintable() else ascii(character)[1:-1]
