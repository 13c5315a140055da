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


def test_a_script_that_knows_the_variable_is_left_to_itself():
    knows = SCRIPT.replace('Path("/var/outputs")', 'Path(os.environ.get("CODETAPE_OUTPUTS", "/var/outputs"))')
    script = portable(knows)
    assert 'Path("/var/outputs/total")' in script
    assert "--output-dir" in script


@pytest.mark.parametrize(
    "line",
    [
        'x = "/var/outputs/" "total"',
        "match y:\n    case '/var/outputs/x':\n        pass",
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
