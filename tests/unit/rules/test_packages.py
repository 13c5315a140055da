"""Which package an import needs, and what is no package name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.domain.job import compute_image_name
from codetape.domain.package_names import package_name, valid_name  # fmt: skip
from codetape.domain.task import Config, SandboxFacts
from codetape.errors import UsageError
from codetape.rules.data.import_map import IMPORTS
from codetape.rules.packages import detect_and_track_packages, imports_of, mapped, standard_library

CONFIG = Config(model="m", sandbox=SandboxFacts(name="fake", python="3.11"))


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
