"""A delivered script: in the sandbox what was verified, elsewhere its results go where the caller says."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.runtime.portable_script import portable

SCRIPT = '''\
"""Totals."""
from __future__ import annotations

import argparse
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=2)
    n = parser.parse_args().n
    name = "rest"
    Path("/var/outputs/total").write_text(str(n))
    with open(f"/var/outputs/{name}.txt", "w") as file:
        file.write("x")
    (Path("/var/outputs") / "third").write_text("/var/outputs is the place")


if __name__ == "__main__":
    main()
'''
RESULTS = {"total": "5", "rest.txt": "x", "third": "/var/outputs is the place"}


def run(script, folder, *words, **variables):
    assert 'isdir("/var/outputs")' in script
    Path("solution.py").write_text(
        script.replace('isdir("/var/outputs")', 'isdir("/no/such/folder")')
    )  # not here either
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "solution.py", "--n", "5", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text() for path in Path(folder).iterdir() if path.name != "solution.py"}


def test_results_go_to_the_folder_of_the_flag_else_of_the_variable_else_to_the_current_one():
    script = portable(SCRIPT)
    assert ast.get_docstring(ast.parse(script)) == "Totals."
    assert run(script, "a", "--output-dir", "a") == RESULTS
    assert run(script, "b", "--output-dir=b", CODETAPE_OUTPUTS="c") == RESULTS
    assert run(script, "c", CODETAPE_OUTPUTS="c") == RESULTS
    for folder in ("a", "b", "c"):
        for path in Path(folder).iterdir():
            path.unlink()
        Path(folder).rmdir()
    assert run(script, ".") == RESULTS


WAYS = {
    "return": ('def f():\n    return"/var/outputs/a"\nx = f()\n', "a"),
    "assert": ('assert"/var/outputs"\nx = "/var/outputs/a"\n', "a"),
    "percent": ('x = "/var/outputs/%s" % "a"\n', "a"),
    "format": ('x = "/var/outputs/{}".format("a")\n', "a"),
    "name": ('_OUTPUTS = "/var/outputs"\nx = _OUTPUTS + "/a"\n', "a"),
    "local": ('def f():\n    _OUTPUTS = "/var/outputs/a"\n    return _OUTPUTS\nx = f()\n', "a"),
    "class": ('class C:\n    _OUTPUTS = "/var/outputs/a"\nx = C._OUTPUTS\n', "a"),
    "shebang": ('#!/usr/bin/env python\n# comment\nx = "/var/outputs/a"\n', "a"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("folder", ["/tmp/100%{x}(", "results"])
def test_however_it_is_written_the_folder_of_the_caller_takes_its_place(way, folder, monkeypatch):
    code, name = WAYS[way]
    monkeypatch.setenv("CODETAPE_OUTPUTS", folder)
    script = portable(code)
    assert script != code
    scope = {"__name__": "solution"}
    exec(compile(script, "solution.py", "exec"), scope)
    assert scope["x"] == f"{folder}/{name}"
    assert script.splitlines()[0] == (code.splitlines()[0] if way == "shebang" else script.splitlines()[0])


UNFIT = [
    '"doc"; p = "/var/outputs/a"\n',
    'from __future__ import annotations; p = "/var/outputs/a"\n',
    '"doc" \\\n"more"; print("/var/outputs/y")\n',
    '"doc"; s = """a\nb"""\n',
    "x = f\"{'/var/outputs'}/x\"\n",
    'x = f"/var/outputs/{y}" "tail"\n',
    'x = "/var/outputs/" "total"\n',
    "match y:\n    case '/var/outputs/x':\n        pass\n",
    'parser.add_argument("--output-dir")\nx = "/var/outputs/a"\n',
    "x = [" * 150 + "1," * 100_000 + "]" * 150,
]


@pytest.mark.parametrize("code", UNFIT, ids=range(len(UNFIT)))
def test_where_not_every_text_can_be_replaced_the_script_is_left_as_it_is(code):
    assert portable(code) == code


def test_a_script_that_knows_the_variable_is_left_to_itself():
    knows = SCRIPT.replace('Path("/var/outputs")', 'Path(os.environ.get("CODETAPE_OUTPUTS", "/var/outputs"))')
    script = portable(knows)
    assert 'Path("/var/outputs/total")' in script
    assert "--output-dir" in script


@pytest.mark.parametrize(
    "line",
    [
        'x = "see /var/outputs/total"',
        'x = f"{y}/var/outputs/total"',
        'x = b"/var/outputs/total"',
        '"/var/outputs/a docstring"',
    ],
)
def test_what_no_expression_may_replace_stays(line):
    assert f"\n{line}\n" in f"\n{portable(line + chr(10))}"


@pytest.mark.parametrize("broken", ["def f(:\n", "x = '", "\0", "if x:\n\ty\n        z\n"])
def test_what_is_no_python_stays_as_it_is(broken):
    assert portable(broken) == broken


NAMES = st.text(alphabet="abé漢_/ .{}'\"\\\n", max_size=12)


@given(st.lists(NAMES, max_size=5))
def test_every_text_reads_the_same_where_the_folder_is_the_sandboxes(names):
    lines = [f"x{n} = {'/var/outputs/' + name!r}" for n, name in enumerate(names)]
    script = portable("\n".join([*lines, "y = f'/var/outputs/{1 + 1}é'", "z = '/var/outputs'"]) + "\n")
    scope = {"__name__": "solution"}
    exec(compile(script.replace('else ".")', 'else "/var/outputs")'), "solution.py", "exec"), scope)
    assert [scope[f"x{n}"] for n in range(len(names))] == [f"/var/outputs/{name}" for name in names]
    assert (scope["y"], scope["z"]) == ("/var/outputs/2é", "/var/outputs")
