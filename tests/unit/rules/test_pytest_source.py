"""Test files edited as text: functions replaced, imports added, stubs made."""

from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.reply_shapes import TestFunctionPatch
from codetape.domain.task import Config, SandboxFacts
from codetape.rules import pytest_source

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


def test_patches_replace_functions_and_nothing_else():
    source = "import x\n# a comment\n\n\nclass TestA:\n    # inside\n    def test_b(self):\n        assert 1\n\n\ndef test_c():\n    assert 2\n\n# the end\n"
    patched = pytest_source.apply_patches(
        source,
        [TestFunctionPatch(test_name="TestA::test_b", fixed_code="def test_b(self):\n    assert 3")],
        ["import y"],
    )
    assert patched == source.replace("        assert 1", "        assert 3").replace(
        "import x\n", "import y\nimport x\n", 1
    )


def test_a_stub_keeps_the_module_and_empties_its_functions():
    code = 'import os\nX = 1\n\n\n@cache\ndef f(a):\n    """Say."""\n    return a\n\n\nclass A:\n    def g(self): return 2\n\n\nasync def h():\n    return 3\n'
    stub = pytest_source.stub(code)
    compile(stub, "stub", "exec")
    assert "return a" not in stub
    assert stub.count("return None") == 3
    assert "X = 1" in stub


@given(
    st.lists(
        st.sampled_from(
            [
                "def f():\n    return 1",
                "x = 2",
                "class A:\n    def g(self):\n        return 3",
                "def h(): return 4",
                "if x:\n    def k():\n        return 5",
            ]
        ),
        max_size=6,
    )
)
def test_every_stub_is_python(parts):
    compile(pytest_source.stub("\n".join(parts) + "\n"), "stub", "exec")


def test_further_tests_stand_below_and_taken_names_get_a_number():
    there = "import pytest\nfrom solution import f\n\n\ndef test_a():\n    assert f(1) == 1\n"
    more = "import pytest\nfrom solution import f, g\n\n\n@pytest.mark.parametrize('n', [1])\ndef test_a(n):\n    assert g(n) == 1\n"
    both = pytest_source.with_tests(there, more)
    assert both.startswith(there.rstrip("\n"))
    assert both.count("import pytest") == 1
    assert "@pytest.mark.parametrize('n', [1])\ndef test_a_2(n):" in both
    assert pytest_source.names(both) == ("test_a", "test_a_2")
    assert pytest_source.with_tests(there, '"""Nothing."""\n') == there


def test_classes_of_unittest_count_by_their_base_and_a_later_name_takes_the_place_of_an_earlier():
    source = (
        "import unittest\n\n\nclass Base(unittest.TestCase):\n    pass\n\n\nclass Checks(Base):\n    def test_x(self):\n"
        "        pass\n\n\nclass Other:\n    def test_y(self):\n        pass\n\n\ndef test_z():\n    assert 1\n\n\ndef test_z():\n    assert 2\n"
    )
    assert pytest_source.names(source) == ("Checks::test_x", "test_z")
    assert "assert 2" in pytest_source.text_of(source, "test_solution.py::test_z")
    assert pytest_source.names("\ufeffdef test_a():\n    pass\n") == ("test_a",)


def test_a_test_file_of_another_module_is_named():
    assert pytest_source.tests_another_module("from mine import f\n") == "mine"
    assert pytest_source.tests_another_module("from . import f\n") == "."
    for fine in (
        "from solution import f\nimport mine\n",
        "import subprocess\nsubprocess.run(['solution.py'])\n",
        "import math\n",
    ):
        assert pytest_source.tests_another_module(fine) == ""
