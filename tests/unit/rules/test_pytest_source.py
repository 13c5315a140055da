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
