"""What a script is given and what it leaves: names and endings, results anywhere, standard streams, samples that travel."""

import base64
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from codetape.domain.canonical import canonical
from codetape.errors import CorruptTape
from codetape.playback import tape_file
from tests.helpers.forked import codetape
from tests.servers import scripted, serving
from tests.support import block, plan

TOTAL = """import argparse
import gzip
from pathlib import Path


def total(path):
    assert str(path).endswith(".csv.gz"), path
    with gzip.open(path, "rt") as file:
        return sum(float(line) for line in file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--amounts", required=True)
    given = parser.parse_args()
    result = total(given.amounts)
    Path("/var/outputs/sum.txt").write_text(f"{result}")
    print(f"total {result}")


if __name__ == "__main__":
    main()"""
TOTAL_TESTS = """from pathlib import Path

from solution import total


def test_total():
    assert total("/var/inputs/amounts of may.csv.gz") == 6.0
    assert Path("/var/inputs/amounts").resolve().name == "amounts of may.csv.gz"
"""
ANSWERS = {
    "plan": [plan("def total(path: str) -> float", "def main() -> None")],
    "code": [block(TOTAL)],
    "tests": [block(TOTAL_TESTS)],
}
FILE = "amounts of may.csv.gz"


def run(prompt, answers, *words):
    """Run a prompt against a server that answers so; return how it ended, and what the server was asked."""
    with serving(scripted(answers)) as (url, asked):
        key = {**os.environ, "OPENAI_API_KEY": "none"}
        return codetape("run", prompt, "--model", "openai:x", "--base-url", url, *words, env=key), asked


@pytest.fixture
def made(bubblewrap):
    """A session over HTTP on a compressed file; gives what the model was asked."""
    Path(FILE).write_bytes(gzip.compress(b"1\n2\n3\n", mtime=0))
    words = ("--input", f"amounts=file:{FILE}", "--output", "sum.txt=file", "-o", "out")
    done, asked = run("Sum the amounts.", ANSWERS, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return asked


def test_a_file_keeps_its_name_in_prompts_and_in_the_sandbox(made):
    said = json.dumps(list(made), default=str)
    assert f"/var/inputs/{FILE}" in said
    assert "sum.txt" in said
    assert "CODETAPE_OUTPUTS" in said
    other = "june.csv.gz"
    Path(other).write_bytes(gzip.compress(b"5\n"))
    done = codetape("exec", "last", f"amounts={other}", "-o", "results", "--json")
    value = json.loads(done.stdout)
    assert (value["stdout"], value["outputs"]) == ("total 5.0\n", {"sum.txt": "results/sum.txt"})
    assert Path("results/sum.txt").read_text() == "5.0"


def test_the_delivered_script_runs_anywhere(made):
    where = Path("elsewhere")
    where.mkdir()
    shutil.copy("out/solution.py", where)
    shutil.copy(FILE, where / "x.csv.gz")
    plain = [sys.executable, "solution.py", "--amounts", "x.csv.gz"]
    for words, folder, variables in (
        ([], ".", {}),
        (["--output-dir", "a"], "a", {}),
        ([], "b", {"CODETAPE_OUTPUTS": "b"}),
    ):
        done = subprocess.run(
            [*plain, *words], cwd=where, env={**os.environ, **variables}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "total 6.0\n"), done.stderr
        assert (where / folder / "sum.txt").read_text() == "6.0"
    assert (where / "solution.py").read_text().startswith("# /// script\n")


FILTER = "import sys\n\n\ndef total(text):\n    return sum(int(x) for x in text.split())\n\n\ndef main():\n    print(total(sys.stdin.read()))\n\n\nif __name__ == '__main__':\n    main()"
FILTER_TESTS = "from solution import total\n\n\ndef test_total():\n    assert total('1 2\\n3') == 6\n"


def test_exec_passes_standard_input_on_and_shows_what_the_script_prints(bubblewrap):
    answers = {"plan": [plan("def total(text: str) -> int")], "code": [block(FILTER)], "tests": [block(FILTER_TESTS)]}
    made, _ = run("Sum what is on standard input.", answers)
    assert made.returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "codetape", "exec", "last"],
        input="1 2\n3\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
    nothing = subprocess.run(
        [sys.executable, "-m", "codetape", "exec", "last"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert nothing.stdout == "0\n"


def test_samples_travel_with_a_tape(made):
    done = codetape("export", "last", "-o", "with.tape.jsonl", "--with-samples")
    assert (done.returncode, done.stderr) == (0, "")
    codetape("export", "last", "-o", "without.tape.jsonl")
    assert Path("with.tape.jsonl").read_text() != Path("without.tape.jsonl").read_text()
    Path(FILE).unlink()
    assert codetape("verify", "with.tape.jsonl").returncode == 0
    assert codetape("replay", "with.tape.jsonl", "--sandbox", "live").returncode == 0
    away = codetape("import", "with.tape.jsonl", "--db", "away/tape.db")
    assert "with 1 sample" in away.stdout
    assert codetape("replay", "last", "--sandbox", "live", "--db", "away/tape.db").returncode == 0
    kept = list(Path("away/tape.db.samples").rglob("*.gz"))
    assert [path.name for path in kept] == [FILE]
    assert kept[0].stat().st_mode & 0o077 == 0
    again = codetape("export", "last", "-o", "again.tape.jsonl", "--with-samples", "--db", "away/tape.db")
    assert again.stderr == ""
    assert Path("again.tape.jsonl").read_bytes() == Path("with.tape.jsonl").read_bytes()
    assert codetape("forget", "last", "--yes", "--db", "away/tape.db").returncode == 0
    assert not list(Path("away/tape.db.samples").rglob("*.gz"))
    lacking = codetape("export", "last", "-o", "lacking.tape.jsonl", "--with-samples")
    assert f"without the sample of input amounts: {FILE} is not where it was" in lacking.stderr


def test_a_sample_that_holds_a_key_stays_at_home(made):
    key = "sk-proj-" + "a1B2" * 12
    Path("secret.csv.gz").write_bytes(gzip.compress(b"1\n"))
    import hashlib

    from codetape.domain.task import Input, Sample, Task
    from codetape.playback.tape_samples import gather

    Path("note.txt").write_text(key)
    sample = Sample(
        path="note.txt", sha256=hashlib.sha256(key.encode()).hexdigest(), size=len(key), head="", file="note.txt"
    )
    samples, left_out = gather(Task(id="t", prompt="x", inputs=(Input(name="note", type="file", sample=sample),)))
    assert samples == {}
    assert "seems to hold a key" in left_out[0]
    assert key not in left_out[0]


TREE = """import argparse
from pathlib import Path


def count(folder):
    return sum(path.read_text().count("x") for path in Path(folder).rglob("*") if path.is_file())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", required=True)
    print(count(parser.parse_args().tree))


if __name__ == "__main__":
    main()"""


def test_a_folder_travels_too(bubblewrap):
    for name, text in (("a.txt", "x"), ("b/c.txt", "xx"), ("b.txt", "xxx"), ("b/.hidden", "x")):
        path = Path("tree") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tests = "from solution import count\n\n\ndef test_count():\n    assert count('/var/inputs/tree') == 7\n"
    answers = {
        "plan": [plan("def count(folder) -> int", "def main() -> None")],
        "code": [block(TREE)],
        "tests": [block(tests)],
    }
    done, _ = run("Count.", answers, "--input", "tree=directory:tree")
    assert done.returncode == 0, done.stdout + done.stderr
    assert codetape("export", "last", "-o", "t.tape.jsonl", "--with-samples").stderr == ""
    shutil.rmtree("tree")
    assert codetape("import", "t.tape.jsonl", "--db", "away.db").returncode == 0
    assert codetape("replay", "last", "--sandbox", "live", "--db", "away.db").returncode == 0
    assert codetape("replay", "t.tape.jsonl", "--sandbox", "live").returncode == 0
    lines = Path("t.tape.jsonl").read_text().splitlines(keepends=True)
    for name in ("tree/../../x", "tree/b/../../../x", "tree//x", "tree/.", "other/x", "tree/new"):
        with pytest.raises(CorruptTape):
            tape_file.read([*lines[:-1], edited(lines[-1], name=name)])


def test_no_sample_is_written_or_erased_through_a_link(made):
    codetape("export", "last", "-o", "t.tape.jsonl", "--with-samples")
    session = json.loads(codetape("list", "--json").stdout)["sessions"][0]["session"]
    Path("home", session).mkdir(parents=True)
    Path("home", session, "precious").write_text("mine")
    Path("x.db.samples").symlink_to("home")
    refused = codetape("import", "t.tape.jsonl", "--db", "x.db")
    assert refused.returncode == 2
    assert "is a link" in refused.stderr
    assert [path.name for path in Path("home", session).iterdir()] == ["precious"]
    assert codetape("list", "--db", "x.db").stdout == "" or "No sessions" in codetape("list", "--db", "x.db").stdout
    Path("x.db.samples").unlink()
    assert codetape("import", "t.tape.jsonl", "--db", "x.db").returncode == 0
    shutil.rmtree("x.db.samples")
    Path("x.db.samples").symlink_to("home")
    codetape("forget", "last", "--yes", "--db", "x.db")
    assert Path("home", session, "precious").read_text() == "mine"


def test_samples_that_cannot_be_written_refuse_the_import(made):
    codetape("export", "last", "-o", "t.tape.jsonl", "--with-samples")
    Path("x.db.samples").write_text("a file stands there")
    refused = codetape("import", "t.tape.jsonl", "--db", "x.db")
    assert refused.returncode == 2
    assert "Samples cannot be written" in refused.stderr
    assert "codetape's own" not in refused.stderr


def edited(line, **changes):
    value = json.loads(line)["sample"]
    return canonical({"sample": {**value, **changes}}) + "\n"


FORGED = [
    {"name": "../../x"}, {"name": ".stdin"}, {"name": "a/b"}, {"name": ""}, {"name": 7}, {"data": "!"},
    {"data": base64.b64encode(b"other").decode()}, {"name": "other.csv.gz"}, {"more": 1},
]  # fmt: skip


def test_a_tape_with_a_forged_sample_is_refused(made):
    codetape("export", "last", "-o", "t.tape.jsonl", "--with-samples")
    lines = Path("t.tape.jsonl").read_text().splitlines(keepends=True)
    tape_file.read(lines)  # the control
    for changes in FORGED:
        with pytest.raises(CorruptTape):
            tape_file.read([*lines[:-1], edited(lines[-1], **changes)])
    with pytest.raises(CorruptTape):
        tape_file.read([*lines, lines[-1]])


def run_by_pytest(file):
    """Run an exported file as a stranger does, with pytest alone."""
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", file]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_an_exported_pytest_file_says_which_sample_it_lacks(bubblewrap):
    Path(FILE).write_bytes(gzip.compress(b"1\n2\n", mtime=0))
    done, _ = run("Sum.", ANSWERS, "--input", f"amounts=file:{FILE}", "--max-iterations", "1")
    assert done.returncode == 100
    codetape("export", "last", "-o", "t.tape.jsonl", "--with-samples")
    Path(FILE).unlink()
    codetape("export", "last", "--pytest", "-o", "test_recorded.py")
    lacking = run_by_pytest("test_recorded.py")
    assert f"samples are missing: put {FILE} into a folder `inputs` beside this file" in lacking.stdout
    assert "FileNotFoundError" not in lacking.stdout
    codetape("export", "t.tape.jsonl", "--pytest", "-o", "test_whole.py")
    whole = run_by_pytest("test_whole.py")
    assert f"samples are missing: put {FILE}" not in whole.stdout
    assert "assert 3.0 == 6.0" in whole.stdout
