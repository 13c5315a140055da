"""The pure rules: anchors, assertions, suites, replies, packages, verdicts, typed values, canonical texts."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.canonical import canonical, sha256, well_formed
from codetape.domain.findings import Finding
from codetape.domain.job import compute_image_name
from codetape.domain.package_names import package_name, valid_name  # fmt: skip
from codetape.domain.reply_shapes import Opinion, TestFunctionPatch
from codetape.domain.report import Comparison, Frame, Report, TestResult
from codetape.domain.task import Config, SandboxFacts
from codetape.errors import TemplateError, UsageError
from codetape.eventlog import machine
from codetape.prompts import context, render, reply_parser
from codetape.prompts.pack import check_pack
from codetape.rules import pytest_source
from codetape.rules.assertion_claims import Claim, agrees, claim_of, equal
from codetape.rules.classify import Context, classify, signature
from codetape.rules.data.import_map import IMPORTS
from codetape.rules.normalise import normalise
from codetape.rules.packages import detect_and_track_packages, imports_of, mapped, standard_library
from codetape.rules.prompt_examples import as_tests, extract
from codetape.rules.reclassify import reclassify_errors
from codetape.runtime.prompt_pack_files import load_pack
from codetape.runtime.script_io import parse, read_inputs, read_outputs

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


# ---- anchors


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (">>> f(1)\n2\n", [("f(1)", "2", "value")]),
        ("so f(1, 'a') -> [1, 2], and more", [("f(1, 'a')", "[1, 2]", "value")]),
        ("`f(2)` returns 3.", [("f(2)", "3", "value")]),
        ("f(2) == 2.5.", [("f(2)", "2.5", "value")]),
        (">>> f(0)\nTraceback (most recent call last):\nValueError: no\n", [("f(0)", "ValueError", "raises")]),
        (">>> f(1)\n<X object>\n", [("f(1)", "<X object>", "repr")]),
        ("f(x) -> 3", []),
        ("def f(a) -> int: something", []),
        ("a table -> a list", []),
        ("f(1) -> the sum", []),
    ],
)
def test_examples_are_taken_by_rule(prompt, expected):
    assert [(a.call, a.expected, a.kind) for a in extract.extract(prompt)] == expected


def test_anchors_become_tests_with_their_preparation():
    text = as_tests.test_file(extract.extract(">>> x = [3]\n>>> total(x)\n3\n"))
    assert "from solution import total" in text
    assert "    x = [3]\n    assert total(x) == 3" in text


@given(st.text())
def test_any_prompt_gives_valid_python_or_nothing(prompt):
    text = as_tests.test_file(extract.extract(prompt))
    assert not text or pytest_source.names(text)


# ---- assertions as claims

SOURCE = """import pytest
from solution import f, g
from pathlib import Path


def test_plain():
    assert f(1, [2]) == 3


def test_local():
    data = [1, 2]
    assert f(data) == 3


def test_approx():
    assert 3.0 == pytest.approx(f(1), abs=0.5) or True


def test_near():
    assert f(1) == pytest.approx(3.0, abs=0.5)


def test_raises():
    with pytest.raises(ValueError):
        f(-1)


def test_loose():
    assert f(1) > 2


def test_disk():
    assert Path("/var/outputs/x").read_text() == "1"


@pytest.mark.parametrize("n", [1, 2])
def test_each(n):
    assert f(n) == 3


def test_fixture(tmp_path):
    assert f(tmp_path) == 3
"""


def failing(name, **more):
    line = next(x.last for x in pytest_source.functions(SOURCE) if x.name == name.partition("[")[0])
    return TestResult(
        id=f"test_solution.py::{name}",
        outcome="failed",
        exception="AssertionError",
        frames=(Frame(file="test_solution.py", line=line),),
        **more,
    )


@pytest.mark.parametrize(
    ("name", "expected", "more"),
    [
        ("test_plain", ("f(1, [2])", "3"), {}),
        ("test_local", ("f([1, 2])", "3"), {}),
        ("test_near", ("f(1)", "3.0"), {}),
        ("test_raises", ("f(-1)", "ValueError"), {}),
        ("test_each[2]", ("f(2)", "3"), {"parameters": {"n": "2"}}),
        ("test_loose", None, {}),
        ("test_approx", None, {}),
        ("test_disk", None, {}),
        ("test_fixture", None, {}),
    ],
)
def test_claims(name, expected, more):
    claim = claim_of(SOURCE, failing(name, **more))
    assert (claim and (claim.call, claim.expected)) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        ([1], (1,), False),
        ({"a": 1.0}, {"a": 1}, True),
        ("1", 1, False),
        (0.1 + 0.2, 0.3, False),
    ],
)
def test_values_are_compared_by_value_and_type(one, other, same):
    assert equal(one, other) is same
    assert equal(other, one) is same


def test_floats_are_compared_by_the_tests_own_tolerance():
    claim = Claim("f(1)", "value", "3.0", absolute=0.5)
    assert agrees(Opinion(test="f(1)", verdict="value", value="3.4"), "3.0", claim)
    assert not agrees(Opinion(test="f(1)", verdict="value", value="3.6"), "3.0", claim)
    assert not agrees(Opinion(test="f(1)", verdict="exception", value="ValueError"), "3.0", claim)


# ---- suites


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


# ---- replies


def test_schemas_in_the_pack_are_those_of_the_models():
    pack = load_pack()
    for purpose in reply_parser.SHAPES:
        assert json.loads(pack[f"schemas/{purpose}.json"]) == reply_parser.schema_for(purpose)


@given(st.text())
def test_any_reply_is_read_or_unusable(text):
    for purpose in reply_parser.SHAPES:
        reply_parser.read_json(purpose, text)
    reply_parser.read_code(text, ["f"])
    reply_parser.read_tests(text, ["f"])
    reply_parser.read_patches(text, ["test_a"])


def test_the_words_of_a_repair_are_ours():
    found = reply_parser.read_json("plan", '{"description": 1}')
    assert "description" in found.detail
    assert "pydantic" not in found.detail.lower()
    assert reply_parser.read_code("```\ndef f(:\n```", []).detail == "Line 1 of the code is no valid Python."


# ---- packages


def test_imports_are_mapped_and_the_standard_library_left_out():
    found = detect_and_track_packages(
        ["import os, cv2, sklearn.svm\nfrom PIL import Image\nimport solution\nimport google.protobuf.message"], CONFIG
    )
    assert found.packages == ("opencv-python-headless", "pillow", "protobuf", "scikit-learn")
    assert found.unknown == ()


def test_the_standard_library_is_the_targets():
    source = ["import distutils.core, tomllib"]
    new = detect_and_track_packages(source, CONFIG.model_copy(update={"python_version": "3.12"}))
    old = detect_and_track_packages(source, CONFIG.model_copy(update={"python_version": "3.11"}))
    assert new.unknown == ("distutils",)
    assert old.unknown == ()
    assert "os" in standard_library("3.99")


def test_an_unknown_import_is_never_guessed():
    assert detect_and_track_packages(["import frobnicate"], CONFIG).unknown == ("frobnicate",)


@pytest.mark.parametrize("text", ["-r x", "--index-url", "x @ https://evil", "a b", "", "../x", "x; os_name == 'nt'"])
def test_what_is_no_package_name_is_refused(text):
    with pytest.raises(UsageError):
        package_name(text)
    assert valid_name(text) == ""


@given(st.lists(st.sampled_from(sorted(set(IMPORTS.values()))), max_size=8), st.randoms())
def test_an_images_name_does_not_depend_on_order(packages, random):
    shuffled = packages * 2
    random.shuffle(shuffled)
    assert compute_image_name("3.11", packages) == compute_image_name("3.11", shuffled)


@given(st.sets(st.sampled_from(["a", "b", "c"])), st.sets(st.sampled_from(["a", "b", "c"])))
def test_other_packages_give_another_name(one, other):
    assert (compute_image_name("3.11", one) == compute_image_name("3.11", other)) is (one == other)


def test_the_map_is_of_valid_names():
    assert len(IMPORTS) >= 150
    assert all(valid_name(name) == name for name in IMPORTS.values())
    assert mapped("google.cloud.storage") == ""
    assert imports_of("def (") == frozenset()


# ---- verdicts


def classified(*results, exit="tests_failed", opinions=(), unjudged=(), installed=(), unavailable=()):
    report = Report(exit=exit, whole=True, exit_code=1, collected=tuple(r.id for r in results), tests=results)
    context = Context(
        {"test_solution.py": SOURCE},
        "3.11",
        frozenset(installed),
        frozenset(unavailable),
        opinions,
        frozenset(unjudged),
    )
    return [(f.error_type, f.rule) for f in classify(report, context)]


def result(exception, message="", file="test_solution.py", name="test_plain", outcome="failed"):
    frames = (Frame(file=file, line=7),) if file else ()
    return TestResult(
        id=f"test_solution.py::{name}", outcome=outcome, exception=exception, message=message, frames=frames
    )


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (result("ModuleNotFoundError", "No module named 'numpy'"), ("environment", "missing_module")),
        (result("ImportError", "Missing optional dependency 'openpyxl'."), ("environment", "missing_module")),
        (result("ImportError", "libGL.so.1: cannot open shared object file"), ("environment", "missing_library")),
        (result("FileNotFoundError", "No such file or directory: 'ffmpeg'", "solution.py"), (None, "missing_command")),
        (result("ValueError", "x", "solution.py"), ("logic", "raised_in_solution")),
        (result("AssertionError", "x", "solution.py"), ("logic", "raised_in_solution")),
        (result("NameError", "x"), ("test_error", "raised_in_test")),
        (result("CalledProcessError", "Command 'python solution.py' failed"), ("logic", "script_failed")),
        (result("AssertionError", "x"), (None, "in_doubt")),
        (result("AssertionError", "x", name="test_loose"), ("logic", "other_form")),
        (result("OSError", "x", ""), (None, "unplaced")),
        (result("", outcome="unfinished"), ("logic", "ended_process")),
    ],
)
def test_rules_give_a_failures_class(given, verdict):
    assert classified(given) == [verdict]


def test_a_module_that_cannot_be_had_is_the_codes_problem():
    missing = result("ModuleNotFoundError", "No module named 'numpy'")
    assert classified(missing, unavailable=["numpy"]) == [("logic", "unavailable")]
    assert classified(missing, installed=["numpy"]) == [("logic", "wrong_module")]


def claimed(*values, actual="4", count=1):
    opinions = tuple(
        Opinion(test="f(1, [2])", verdict="silent" if v is None else "value", value=v or "", words="so it says")
        for v in values * count
    )
    failed = failing("test_plain", comparison=Comparison(op="==", left=actual, right="3"))
    return classified(failed, opinions=opinions)


def test_opinions_settle_what_is_in_doubt():
    assert claimed("3") == [("logic", "upheld")]
    assert claimed("4", count=2) == [("test_error", "refuted")]
    assert claimed(None) == [(None, "in_doubt")]
    assert claimed(None, count=2) == [("test_error", "silent")]
    assert claimed(None, "3") == [("logic", "upheld")]
    assert claimed("9") == [(None, "in_doubt")]
    assert claimed("9", count=2) == [("test_error", "third")]
    assert claimed("9", "8") == [("test_error", "neither")]
    assert claimed("3", "9") == claimed("9", "3") == claimed("4", "3") == [("logic", "upheld")]


def test_a_refutation_that_would_turn_a_run_green_is_asked_twice():
    assert claimed("4") == [(None, "in_doubt")]
    opinion = Opinion(test="f(1, [2])", verdict="value", value="4", words="so it says")
    failed = failing("test_plain", comparison=Comparison(op="==", left="4", right="3"))
    other = result("ValueError", "x", "solution.py", name="test_near")
    assert classified(failed, other, opinions=(opinion,)) == [
        ("test_error", "refuted"),
        ("logic", "raised_in_solution"),
    ]
    assert classified(failed, opinions=(opinion,), unjudged=["f(1, [2])"]) == [("test_error", "refuted")]


def test_signatures_mask_literals_and_nothing_else():
    one = result("ValueError", "bad value 17 at 0x7f00 for 'a b'")
    other = result("ValueError", 'bad value -3.5 at 0xdead for "c"')
    assert signature(one) == signature(other)
    assert signature(one) != signature(result("TypeError", "bad value 17"))


def test_a_refuted_test_never_becomes_logic():
    from codetape.domain.findings import FixCounts

    finding = Finding(test="t", error_type="test_error", rule="refuted", judged="refuted", signature="s")
    spent = (FixCounts(signature="s", test=2, error_type="test_error"),)
    found = reclassify_errors((finding,), spent, max_logic=1, max_test=1, reopenable=frozenset())
    assert found.quarantine == (finding,)
    assert found.changed == ()


def test_normalising_takes_out_what_changes():
    assert normalise("at 0x7f1234567890 took 1.25 s in /tmp/pytest-3/x") == "at 0x… took N s in /tmp/…"


# ---- typed values and texts


@pytest.mark.parametrize(
    ("kind", "text"),
    [("bool", "yes"), ("bool", ""), ("int", "1.0"), ("float", "x"), ("datetime", "soon"), ("timedelta", "1h")],
)
def test_scalars_are_read_strictly(kind, text):
    with pytest.raises(ValueError):  # noqa: PT011 - any of Python's own words
        parse(kind, text)


def test_declarations_are_checked():
    for bad in ({"x": "blob"}, {"1x": "int"}, {"x": "int:a"}, {"x": "file:/nowhere/at/all"}):
        with pytest.raises(UsageError):
            read_inputs(bad)
    with pytest.raises(UsageError, match="unknown type"):
        read_outputs({"x": "list"})


def test_samples_show_their_head_and_keep_their_hash(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\n".join(str(n) for n in range(100)))
    sample = read_inputs({"x": path})[0].sample
    assert sample.head.splitlines() == [str(n) for n in range(20)]
    assert sample.sha256 == sha256(path.read_text())
    path.write_bytes(b"\0\1")
    assert "binary" in read_inputs({"x": path})[0].sample.head


@given(st.text())
def test_every_text_can_be_hashed_once_it_is_well_formed(text):
    sha256(well_formed(text))
    assert well_formed(well_formed(text)) == well_formed(text)


def test_lone_surrogates_become_replacement_characters():
    assert well_formed("a\ud800b") == "a\ufffdb"


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans(), st.none())))
def test_canonical_json_is_one_spelling(value):
    assert canonical(json.loads(canonical(value))) == canonical(value)
    assert canonical(dict(reversed(value.items()))) == canonical(value)


# ---- the pack


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
    root = Path(context.__file__).parent
    for path in [*root.glob("*.py"), *(root / "decide").glob("*.py")]:
        assert "You are" not in path.read_text(), path


# ---- the machine's table


def test_the_table_is_sound():
    pairs = [(source, row.target) for row in machine.ROWS for source in row.sources]
    assert len(pairs) == len(set(pairs))
    assert {s for pair in pairs for s in pair} == set(machine.STATES)
    assert machine.next_state(["executing", "coding"]) == "coding"
    assert machine.next_state([]) is None
