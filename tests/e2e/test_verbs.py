"""doctor, config and prompts as a user has them; and adapters that come from elsewhere."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from codetape.cli.settings import DEFAULTS, file_in, own_file, read_settings
from codetape.errors import UsageError
from tests.e2e.test_cli import PROMPT, ROOT
from tests.helpers.forked import codetape, in_a_new_process

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
    assert (found["packages"].value, found["packages"].ignored) == ([], (str(tmp_path / "pyproject.toml"), ["pandas"]))
    assert found["timeout"].source == "default"
    (inner / "codetape.toml").write_text("max-iterations = 7\n")
    assert read_settings({}, inner)["max-iterations"].value == 7
    done = codetape("config", "--json", env={"CODETAPE_TIMEOUT": "9"})
    settings = {s["name"]: s for s in json.loads(done.stdout)["settings"]}
    assert set(settings) == set(DEFAULTS)
    assert settings["timeout"] == {"name": "timeout", "value": 9, "source": "CODETAPE_TIMEOUT", "ignored": None}


def test_settings_reach_the_verbs_and_flags_override_them():
    Path("codetape.toml").write_text('model = "tape:nowhere.jsonl"\ndb = "other.db"\n')
    env = {"CODETAPE_TRUST": str(Path.cwd())}
    assert "nowhere.jsonl cannot be read" in codetape("run", PROMPT, env=env).stderr
    assert (
        "elsewhere.jsonl cannot be read" in codetape("run", PROMPT, "--model", "tape:elsewhere.jsonl", env=env).stderr
    )
    assert "other.db" in codetape("list", env=env).stderr


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


THEIRS = (
    'model = "tape:x.jsonl"\ndb = "/elsewhere/their.db"\nprompts = "theirs"\npackage-policy = "allow"\n'
    'packages = ["evil"]\nsandbox = "docker"\nmax-iterations = 200\nmax-output-tokens = 90000\ntimeout = 9\n'
)
GUARDED = ("model", "db", "prompts", "package-policy", "packages", "sandbox", "max-iterations", "max-output-tokens")


@pytest.fixture
def home(tmp_path):
    return {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": ""}


def test_a_folder_decides_on_nothing_that_matters_until_its_user_trusts_it(tmp_path, home):
    """A cloned repository is a folder like any other: one line says what it is not obeyed on."""
    Path("codetape.toml").write_text(THEIRS)
    (told, *_) = codetape("run", PROMPT, env=home).stderr.splitlines()
    for name in GUARDED:
        assert f"{name} = " in told, name
        assert read_settings(home, tmp_path)[name].value == DEFAULTS[name]
    assert "codetape trust" in told
    assert read_settings(home, tmp_path)["timeout"].value == 9
    done = codetape("trust", env=home)
    assert done.returncode == 0
    assert all(name in done.stdout for name in GUARDED)
    found = read_settings(home, tmp_path)
    assert (found["sandbox"].value, found["max-iterations"].value, found["db"].value) == (
        "docker",
        200,
        "/elsewhere/their.db",
    )
    assert "not obeyed" not in codetape("list", env=home).stderr
    Path("codetape.toml").write_text(THEIRS.replace("evil", "worse"))
    assert "worse" in codetape("list", env=home).stderr
    assert read_settings(home, tmp_path)["sandbox"].value == "auto"
    codetape("trust", env=home)
    assert codetape("trust", "--remove", env=home).returncode == 0
    assert read_settings(home, tmp_path)["sandbox"].value == "auto"


def test_a_folder_may_ask_for_less(tmp_path, home):
    Path("codetape.toml").write_text("max-iterations = 2\nmax-output-tokens = 500\n")
    found = read_settings(home, tmp_path)
    assert (found["max-iterations"].value, found["max-output-tokens"].value) == (2, 500)


def test_trust_is_a_persons_and_of_one_file(tmp_path, home):
    """Another folder with the same file, the trust file writable by others, a relative name in the variable: none is trust."""
    Path("codetape.toml").write_text(THEIRS)
    codetape("trust", env=home)
    kept = tmp_path / "home/.config/codetape/trusted.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "other"
    other.mkdir()
    (other / "codetape.toml").write_text(THEIRS)
    assert read_settings(home, other)["sandbox"].value == "auto"
    assert read_settings({**home, "CODETAPE_TRUST": "."}, other)["sandbox"].value == "auto"
    assert read_settings({**home, "CODETAPE_TRUST": f"/nowhere:{other}"}, other)["sandbox"].value == "docker"
    kept.chmod(0o666)
    assert read_settings(home, tmp_path)["sandbox"].value == "auto"


@pytest.mark.parametrize("planted", ["another user's", "where everybody writes", "below where everybody writes"])
def test_a_file_that_somebody_else_may_have_put_there_is_not_read_at_all(tmp_path, home, planted):
    folder = tmp_path / "shared" / "work"
    folder.mkdir(parents=True)
    file = folder / "codetape.toml"
    file.write_text("timeout = 9\n")
    if planted == "another user's":
        if os.geteuid():
            pytest.skip("only root can give a file away")
        os.chown(file, 65534, 65534)
    (folder if planted == "where everybody writes" else folder.parent if "below" in planted else tmp_path).chmod(
        0o777 if "writes" in planted else 0o700
    )
    assert read_settings(home, folder)["timeout"].value == DEFAULTS["timeout"]
    done = codetape("trust", str(folder), env={**home, "CODETAPE_TRUST": str(folder)})
    assert (done.returncode, "cannot be trusted" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "environment",
    [{"HOME": "~"}, {"HOME": "~nobody-of-this-name"}, {"HOME": "."}, {"HOME": "~", "XDG_CONFIG_HOME": "~/.config"}],
)
def test_a_folder_is_nobodys_home_because_it_has_a_folder_of_that_name(tmp_path, monkeypatch, environment):
    for home in ("~", "~nobody-of-this-name", "."):
        own = tmp_path / home / ".config" / "codetape"
        own.mkdir(parents=True)
        (own / "config.toml").write_text('model = "theirs"\n')
        (own / "trusted.json").write_text("{}")
    monkeypatch.setenv("HOME", environment["HOME"])
    assert own_file(environment) == ""
    assert read_settings(environment, tmp_path)["model"].value is None
    (tmp_path / "codetape.toml").write_text(THEIRS)
    assert read_settings(environment, tmp_path)["sandbox"].value == "auto"
    done = codetape("trust", env=environment)
    assert (done.returncode, "Set HOME" in done.stderr) == (2, True)


def test_own_settings_that_cannot_be_seen_are_not_passed_over(tmp_path, home, monkeypatch):
    looked = os.stat

    def stat(path, *more, **named):
        if str(path).endswith("config.toml"):
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path, *more, **named)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(PermissionError):
        read_settings(home, tmp_path)


def test_settings_are_looked_for_from_a_relative_folder_up_and_name_paths_in_order(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "codetape.toml").write_text("timeout = 9\n")
    assert file_in("a/b") == ("codetape.toml", {"timeout": 9})
    (tmp_path / "config.toml").write_text("")
    assert read_settings({"CODETAPE_TRUST": str(tmp_path), "HOME": str(tmp_path)}, tmp_path)["timeout"].value == 9
    (tmp_path / "codetape.toml").write_text('db = "./x.db"\n')
    found = read_settings({"CODETAPE_TRUST": str(tmp_path), "HOME": str(tmp_path)}, tmp_path)
    assert found["db"].value == str(tmp_path / "x.db")


def test_the_users_own_file_decides_and_is_no_news(tmp_path, home):
    own = tmp_path / "home" / ".config" / "codetape"
    own.mkdir(parents=True)
    (own / "config.toml").write_text('package-policy = "allow"\nmodel = "mine"\n')
    found = read_settings(home, tmp_path)
    assert (found["package-policy"].value, found["model"].value) == ("allow", "mine")
    assert "config.toml" not in codetape("list", env=home).stderr


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
