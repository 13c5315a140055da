"""A prompt pack is untrusted: bounded, and kept from Python."""

from pathlib import Path

import pytest

import codetape
from codetape.domain.task import Config, SandboxFacts
from codetape.errors import TemplateError, UsageError
from codetape.prompts import render
from codetape.prompts.pack import check_pack
from codetape.runtime.prompt_pack_files import load_pack

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


def test_a_pack_reaches_no_python_and_is_bounded():
    pack = dict(load_pack())
    for evil in (
        "{{ ''.__class__ }}{{ x.__init__ }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
    ):
        pack["plan.md"] = evil
        with pytest.raises(TemplateError, match="plan.md"):
            render.render(pack, "plan.md", {"x": {}})


def test_a_broken_or_missing_template_is_named(tmp_path):
    files = dict(load_pack())
    del files["code.md"]
    with pytest.raises(TemplateError, match="code.md"):
        check_pack(files)
    files["code.md"] = "{% if %}"
    with pytest.raises(TemplateError, match="code.md"):
        check_pack(files)
    with pytest.raises(UsageError, match="nowhere"):
        load_pack(tmp_path / "nowhere")


def test_the_engine_holds_no_prompt_text():
    paths = [*Path(codetape.__file__).parent.rglob("*.py")]
    assert len(paths) > 100
    for path in paths:
        assert "You are" not in path.read_text(), path
