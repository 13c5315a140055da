"""The docs say what the code does: the diagram, the commands, the events, and examples that run.

With CODETAPE_UPDATE_DOCS=1 the generated parts are written instead of compared.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from codetape.cli import COMMANDS
from codetape.cli.group import cli
from codetape.eventlog import machine
from codetape.eventlog.events import KINDS
from tests import machine_pictures
from tests.servers import scripted, serving
from tests.support import block, plan

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
INTRO = {
    "cli.md": "# The command line\n\nA session is named by its id, a unique prefix of it, or `last`.\n\n",
    "machine.md": "# The machine\n\nDrawn from the table in `codetape.eventlog.machine`. Every active state can also be suspended, and a suspended\n"
    "session resumes in the state that it left. `failed` is left only by raising the limit that ended it.\n\n",
}  # fmt: skip


def cli_page():
    parts = [INTRO["cli.md"], "```text\n", _help(), "```\n"]
    for verb in COMMANDS:
        parts += [f"\n## {verb}\n\n```text\n", _help(verb), "```\n"]
    return "".join(parts)


def _help(*words):
    return CliRunner().invoke(cli, [*words, "--help"], prog_name="codetape", terminal_width=100).output


def machine_page():
    owed = ", ".join(machine.ORDER)
    return f"{INTRO['machine.md']}What is owed is done in this order: {owed}.\n\n```mermaid\n{machine_pictures.diagram()}```\n"


@pytest.mark.parametrize(("name", "made"), [("cli.md", cli_page), ("machine.md", machine_page)])
def test_generated_pages_are_up_to_date(name, made):
    path = ROOT / "docs" / "reference" / name
    if os.environ.get("CODETAPE_UPDATE_DOCS"):
        path.write_text(made())
    assert path.read_text() == made()


def test_the_readmes_picture_is_drawn_from_the_table():
    path = ROOT / "README.md"
    pattern = re.compile(r"```mermaid\n.*?```", re.S)
    made = f"```mermaid\n{machine_pictures.picture()}```"
    if os.environ.get("CODETAPE_UPDATE_DOCS"):
        path.write_text(pattern.sub(lambda _match: made, path.read_text()))
    assert pattern.findall(path.read_text()) == [made]


def test_every_event_is_documented():
    page = (ROOT / "docs/reference/events.md").read_text()
    for name, kind in KINDS.items():
        role = "input" if kind.role == "input" else "derived"
        first = " ".join(kind.__doc__.split()).split(". ")[0].rstrip(".")
        assert f"| {name} | {role} | {first} |" in page


def test_every_verb_is_in_the_readme_or_a_how_to():
    text = "".join(p.read_text() for p in PAGES)
    for verb in COMMANDS:
        assert f"codetape {verb}" in text


def test_every_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_in_the_docs_is_one_that_parses():
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"^    (codetape .+)$", text, re.M):
            words = line.split("#")[0].split()
            command = cli.get_command(None, words[1])
            assert command is not None, line
            if hasattr(command, "commands") and len(words) > 2:
                command = command.commands[words[2]]
            known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
            for word in words[2:]:
                if word.startswith("-") and len(word) > 1:
                    assert word.split("=")[0] in known, line


def test_the_example_without_a_model_runs(tmp_path):
    page = (ROOT / "docs/how-to/python.md").read_text()
    examples = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M) if "ScriptedModel" in code]
    assert examples
    for code in examples:
        exec(compile(code, "docs/how-to/python.md", "exec"), {})


def test_python_in_the_docs_is_python():
    for page in PAGES:
        for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M):
            compile(code, str(page), "exec")


def test_no_file_names_a_place_on_a_machine():
    private = re.compile(r"/(?:home|Users)/[a-z]+/|/root/\.")
    for path in [*PAGES, *sorted((ROOT / "replays").glob("*"))]:
        if path.is_file():
            assert not private.search(path.read_text()), path


SLUG = """import re
import sys


def slug(text):
    return "-".join(re.findall("[a-z0-9]+", text.lower()))


def main():
    print(slug(sys.argv[1] if sys.argv[1:] else "Hello, World!"))


if __name__ == "__main__":
    main()"""


def test_the_readmes_first_real_example_works_as_it_stands(bubblewrap):
    """Typed into an interactive bash, which expands what it finds in double quotes; its example is a test; its script prints."""
    lines = re.findall(r"^    (codetape run '.+|uv run out/.+)$", (ROOT / "README.md").read_text(), re.M)
    run, script = lines[:2]
    tests = block("from solution import slug\n\n\ndef test_slug():\n    assert slug('A b') == 'a-b'")
    answers = {
        "plan": [plan("def slug(text: str) -> str", "def main() -> None")],
        "code": [block(SLUG)],
        "tests": [tests],
    }
    with serving(scripted(answers)) as (url, _):
        typed = f'codetape() {{ {sys.executable} -m codetape "$@"; }}\nuv() {{ shift; {sys.executable} "$@"; }}\n{run}\n{script}\n'
        env = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none", "PS1": ""}
        done = subprocess.run(
            ["bash", "--norc", "-i"], input=typed, capture_output=True, text=True, env=env, timeout=120
        )
    assert "1 example of the prompt became a test" in done.stderr
    assert "succeeded, anchored" in done.stdout, done.stderr
    assert "event not found" not in done.stderr
    assert done.stdout.splitlines()[-1] == "what-a-day"
    bare = subprocess.run([sys.executable, "out/solution.py"], capture_output=True, text=True)
    assert bare.stdout == "hello-world\n"
