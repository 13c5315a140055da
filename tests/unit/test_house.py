"""The house: names that cannot be confused, floors that nothing leaves, and a public surface that is written down."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import codetape
import codetape_adapters
from codetape import api
from codetape.cli import options
from codetape.cli.group import cli

ROOTS = (Path(codetape.__file__).parent, Path(codetape_adapters.__file__).parent)
MODULES = [
    path for root in ROOTS for path in sorted(root.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")
]


def place(path):
    return "/".join(path.parts[-3:])


def test_no_two_modules_have_one_name():
    """A command's module is called as the command, and may be called as the study that it prints; each sandbox has its own parts."""
    names = defaultdict(list)
    for path in MODULES:
        if path.parent.name != "commands":
            names[path.stem].append(place(path))
    twice = {name: where for name, where in names.items() if len(where) > 1}
    assert set(twice) <= {"sandbox"}, twice


def test_no_module_shadows_a_library():
    taken = sys.stdlib_module_names | set(packages_distributions())
    assert [place(path) for path in MODULES if path.stem in taken and path.parent.name != "commands"] == []


def test_no_class_name_means_two_things():
    names = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names[node.name].append(place(path))
    assert {name: where for name, where in names.items() if len(where) > 1} == {}


@pytest.mark.parametrize("module", [codetape, api])
def test_what_is_public_completes_in_a_shell(module):
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        module.nothing_of_the_kind  # noqa: B018 - it is what is tested


def loaded(statement):
    code = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_ports_load_nothing_but_themselves():
    found = loaded("import codetape.ports")
    own = ["codetape", "codetape.domain", "codetape.domain.defaults", "codetape.errors", "codetape.ports"]
    assert [name for name in found if name.startswith("codetape")] == own
    assert not {"pydantic", "minijinja", "openai", "sqlite_utils"} & {*found}


def test_every_option_of_a_command_is_a_field_that_mypy_knows():
    for name in cli.list_commands(None):
        made = cli.get_command(None, name)
        for command in getattr(made, "commands", {name: made}).values():
            taken = getattr(command.callback, "options", None)
            if taken is not None:
                parsed = {option.name for option in command.params}
                assert parsed <= taken.option_names, command.name
                assert taken.needed_names <= parsed, (command.name, taken.needed_names - parsed)


def test_options_are_taken_whole_and_do_not_change():
    given = {"attempts": 1, "concurrent": 2, "in_batches": False}
    several = options.ManyOptions(**given)
    assert vars(several) == given
    with pytest.raises(TypeError, match="in_batches"):
        options.ManyOptions(attempts=1, concurrent=2)
    with pytest.raises(TypeError, match="other"):
        options.ManyOptions(**given, other=3)
    with pytest.raises(AttributeError, match="attempts"):
        several.attempts = 7
    server = dict.fromkeys(options.ServerOptions.needed_names, 1)
    assert options.ServerOptions(**server).base_url is None
    assert "base_url" not in server
    assert {"base_url", "db", "patterns"} <= options.LiveOptions.option_names


def test_no_command_looks_an_option_up_by_its_name():
    for path in (ROOTS[0] / "cli").rglob("*.py"):
        assert 'given["' not in path.read_text(), path
    assert options.typed


def test_nothing_asks_what_a_port_does_not_say():
    """No `hasattr`, and no store of any type: the ports say all that is used."""
    for path in MODULES:
        text = path.read_text()
        assert "store: Any" not in text, path
        if not {"rules", "guest"} & {*path.parts}:  # those look at foreign code and objects
            assert text.count("hasattr(") <= (
                1 if path.parent.name == "cli" or path.name in ("agent.py", "__init__.py") else 0
            ), path


def _text_calls_without_encoding(tree):
    """Calls that read or write text in the encoding of whoever's locale it is."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        words = [
            a.value for a in (*node.args, *given.values()) if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        if "encoding" in given or "utf-8" in words:
            continue
        base = node.func.value if isinstance(node.func, ast.Attribute) else None
        if isinstance(base, ast.Name) and base.id in ("os", "tarfile", "webbrowser"):
            continue
        modes = [word for word in words if re.fullmatch(r"[rwax]\+?[bt]?\+?|r:.*|[rw]\|.*", word)]
        reads = name == "read_text" and not node.args
        writes = name == "write_text" and len(node.args) == 1
        opens = name in ("open", "fdopen", "NamedTemporaryFile") and not any("b" in m for m in modes)
        if reads or writes or opens or ("text" in given and name in ("run", "Popen", "check_output")):
            yield node.lineno, name


def test_files_and_pipes_are_utf_8_whatever_the_locale():
    found = []
    for path in MODULES:
        if "guest" in path.parts:
            continue  # inside the sandbox, whose locale is UTF-8
        found += [f"{place(path)}:{line} {name}" for line, name in _text_calls_without_encoding(ast.parse(path.read_text("utf-8")))]  # fmt: skip
    assert found == []
