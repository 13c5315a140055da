"""doctor, config and prompts as a user has them; and adapters that come from elsewhere."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from codetape.cli.settings import DEFAULTS, read_settings
from codetape.errors import UsageError
from tests.e2e.test_cli import PROMPT, ROOT
from tests.e2e.test_cli import codetape as in_a_new_process
from tests.helpers.forked import codetape

# ---- doctor


@pytest.mark.sandbox
def test_the_doctor_finds_this_machine_well(bubblewrap):
    done = codetape("doctor", "--json", env={"OPENAI_API_KEY": "sk-proj-do-not-show-me-1234567890"})
    value = json.loads(done.stdout)
    found = {check["name"]: check for check in value["checks"]}
    assert done.returncode == 0, done.stdout
    assert value["demo_executes"]
    assert found["bubblewrap"]["status"] == found["environment"]["status"] == "well"
    assert {"Python", "uv", "user namespaces", "control groups", "docker", "database", "disk", "server ollama"} <= set(
        found
    )
    assert found["OPENAI_API_KEY"]["says"] == "set"
    assert "do-not-show" not in done.stdout + done.stderr
    plain = codetape("doctor")
    assert "self-test passed" in plain.stdout


def test_the_doctor_says_what_keeps_the_demo_from_executing():
    done = codetape("doctor", env={"CODETAPE_CACHE": "/proc/nowhere"})
    assert done.returncode == 1
    assert "step: cache" in done.stdout
    assert "Set CODETAPE_CACHE" in done.stdout


def test_the_doctor_finds_a_damaged_database():
    Path("x.db").write_text("no database " * 100)
    done = codetape("doctor", "--db", "x.db")
    assert done.returncode == 1
    assert "no database" in done.stdout


# ---- settings


def test_flags_come_before_variables_before_files_before_defaults(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.codetape]\nmax-iterations = 5\nmemory = "2G"\npackages = ["pandas"]\n'
    )
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    found = read_settings({"CODETAPE_MEMORY": "3G"}, inner)
    assert (found["max-iterations"].value, found["max-iterations"].source) == (5, str(tmp_path / "pyproject.toml"))
    assert (found["memory"].value, found["memory"].source) == ("3G", "CODETAPE_MEMORY")
    assert found["packages"].value == ["pandas"]
    assert found["timeout"].source == "default"
    (inner / "codetape.toml").write_text("max-iterations = 7\n")
    assert read_settings({}, inner)["max-iterations"].value == 7
    done = codetape("config", "--json", env={"CODETAPE_TIMEOUT": "9"})
    settings = {s["name"]: s for s in json.loads(done.stdout)["settings"]}
    assert set(settings) == set(DEFAULTS)
    assert settings["timeout"] == {"name": "timeout", "value": 9, "source": "CODETAPE_TIMEOUT"}


def test_settings_reach_the_verbs_and_flags_override_them():
    Path("codetape.toml").write_text('model = "tape:nowhere.jsonl"\ndb = "other.db"\n')
    assert "nowhere.jsonl cannot be read" in codetape("run", PROMPT).stderr
    assert "elsewhere.jsonl cannot be read" in codetape("run", PROMPT, "--model", "tape:elsewhere.jsonl").stderr
    assert "other.db" in codetape("list").stderr


def test_nothing_that_a_projects_file_sets_hides_behind_a_cut_or_a_line_of_its_own():
    names = [f"p{n}" for n in range(60)]
    Path("codetape.toml").write_text(f"packages = {json.dumps([*names, 'last-evil'])}\n[prices]\n")
    told = codetape("list").stderr.splitlines()[0]
    assert "last-evil" in told
    assert "prices of its own" in told
    Path("codetape.toml").write_text(f"packages = {json.dumps(['x' * 50] * 200)}\n")
    assert codetape("list").returncode == 2
    Path("codetape.toml").write_text('"zz\\ncodetape: all is well" = 1\n')
    assert len(codetape("list").stderr.splitlines()) == 1


def test_what_a_projects_file_decides_is_told_and_what_is_the_users_own_is_not_obeyed(tmp_path):
    """A cloned repository is a folder like any other: its settings are told in one line before anything happens."""
    home = tmp_path / "home"
    env = {"HOME": str(home), "XDG_CONFIG_HOME": ""}
    Path("codetape.toml").write_text(
        'model = "tape:x.jsonl"\ndb = "/elsewhere/their.db"\nprompts = "theirs"\n'
        'package-policy = "allow"\npackages = ["evil"]\nsandbox = "docker"\nmax-iterations = 2\n'
    )
    done = codetape("run", PROMPT, env=env)
    told = done.stderr.splitlines()[0]
    for name in ("model", "db", "prompts", "package-policy", "packages", "sandbox"):
        assert f"{name} = " in told, name
    assert "is not obeyed on db = /elsewhere/their.db, package-policy = allow" in told
    assert "CODETAPE_DB, CODETAPE_PACKAGE_POLICY" in told
    assert done.returncode != 0
    found = read_settings(env, tmp_path)
    assert (found["db"].value, found["package-policy"].value) == (DEFAULTS["db"], "known")
    assert found["sandbox"].value == "docker"
    (home / ".config" / "codetape").mkdir(parents=True)
    (home / ".config" / "codetape" / "config.toml").write_text('package-policy = "allow"\nmodel = "mine"\n')
    mine = read_settings(env, tmp_path)
    assert (mine["package-policy"].value, mine["model"].value) == ("allow", "tape:x.jsonl")
    assert codetape("list", env={**env, "CODETAPE_MODEL": "m"}).stderr.count("codetape.toml sets") == 1
    Path("codetape.toml").unlink()
    assert "sets" not in codetape("list", env=env).stderr, "the user's own file is no news"


@pytest.mark.parametrize(
    "text",
    [
        "max-iterations = 'x'",
        "max-iterations = 2.9",
        "max-iterations = inf",
        "packages = 5",
        "model = ['a']",
        "base-url = 'http://evil/v1'",
        "colour = 1",
        "= =",
        "packages = " + "[" * 5000 + "]" * 5000,
        "max-iterations = " + "9" * 6000,
        f"max-iterations = '{'9' * 6000}'",
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "codetape.toml").write_text(text)
    with pytest.raises(UsageError, match="codetape.toml"):
        read_settings({}, tmp_path)


# ---- prompts


def test_prompts_can_be_listed_shown_exported_and_checked():
    files = json.loads(codetape("prompts", "list", "--json").stdout)["files"]
    assert {"plan.md", "code.md", "schemas/plan.json", "manifest.json"} <= set(files)
    assert "Plan the script" in codetape("prompts", "show", "plan").stdout
    assert "no template walk" in codetape("prompts", "show", "walk").stderr
    assert codetape("prompts", "export", "mine").returncode == 0
    assert codetape("prompts", "export", "mine").returncode == 2
    assert codetape("prompts", "lint", "mine").returncode == 0
    assert codetape("demo", env={"CODETAPE_CACHE": "/proc/nowhere"}).returncode == 0
    assert codetape("prompts", "export", "theirs", "--from", "last").returncode == 0
    assert (Path("theirs") / "code.md").read_bytes() == (Path("mine") / "code.md").read_bytes()


@pytest.mark.parametrize(
    ("file", "edit", "said"),
    [
        ("task.md", lambda text: text.replace("{{ prompt }}", "{{ promt }}"), "promt"),
        ("code.md", None, "code.md"),
        ("plan.md", lambda text: text + "{% if %}", "plan.md"),
        ("schemas/plan.json", lambda text: text.replace("approach", "way"), "schemas/plan.json"),
        ("schemas/plan.json", lambda text: text[:-5], "schemas/plan.json"),
    ],
)
def test_lint_names_what_is_wrong(file, edit, said):
    codetape("prompts", "export", "mine")
    path = Path("mine") / file
    path.write_text(edit(path.read_text())) if edit else path.unlink()
    done = codetape("prompts", "lint", "mine")
    assert done.returncode == 100
    assert said in done.stderr


def test_a_broken_template_is_found_before_anything_is_spent():
    codetape("prompts", "export", "mine")
    (Path("mine") / "plan.md").write_text("{{ nothing_of_the_kind }}")
    done = codetape("run", PROMPT, "--model", "tape:demo", "--prompts", "mine")
    assert done.returncode == 2
    assert "plan.md" in done.stderr


# ---- bad databases and files


def test_a_database_that_is_read_only_or_newer_is_refused_in_one_line():
    import sqlite3

    if os.geteuid() != 0:
        Path("shut").mkdir(mode=0o500)
        done = codetape("run", PROMPT, "--model", "tape:demo", "--db", "shut/x.db")
        assert done.returncode == 1
    done = codetape("run", PROMPT, "--model", "tape:demo", "--db", "/proc/x/tape.db")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert codetape("demo", "--db", "a.db", env={"CODETAPE_CACHE": "/proc/nowhere"}).returncode == 0
    with sqlite3.connect("a.db") as db:
        db.execute("PRAGMA user_version = 99")
    done = codetape("list", "--db", "a.db")
    assert done.returncode == 1
    assert "newer codetape" in done.stderr


def test_a_binary_prompt_file_is_refused_and_a_binary_input_is_shown_as_such():
    Path("x.bin").write_bytes(bytes(range(256)))
    done = codetape("run", "--prompt-file", "x.bin", "--model", "tape:demo")
    assert (done.returncode, "no text" in done.stderr) == (2, True)


# ---- adapters from elsewhere

BROKEN = """[codetape.models]
broken = broken_adapter:create
"""


def test_a_broken_adapter_is_named_and_not_fatal(tmp_path):
    site = tmp_path / "site"
    info = site / "broken_adapter-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-adapter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(BROKEN)
    (site / "broken_adapter.py").write_text("raise RuntimeError('half installed')\n")
    env = {"PYTHONPATH": str(site)}
    said = in_a_new_process("doctor", env={**env, "CODETAPE_CACHE": "/proc/nowhere"}).stdout
    assert "models broken" in said
    assert "half installed" in said
    refused = in_a_new_process("run", PROMPT, "--model", "broken:x", env=env)
    assert refused.returncode == 2
    assert "half installed" in refused.stderr
    assert "tape:nowhere" not in in_a_new_process("run", PROMPT, "--model", "tape:nowhere", env=env).stdout


def test_the_adapter_in_the_docs_passes_the_contract_suite(tmp_path):
    import subprocess

    page = (ROOT / "docs/how-to/adapters.md").read_text()
    code = "\n\n".join(re.findall(r"^```python\n(.*?)^```", page, re.S | re.M))
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    (tmp_path / "test_adapter.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_adapter.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
