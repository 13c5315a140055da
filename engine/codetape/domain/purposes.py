"""What a call to a model, or an execution, is for."""

from typing import Literal

Purpose = Literal[
    "plan",
    "code",
    "packages",
    "tests",
    "diagnose",
    "verify_code",
    "second_opinion",
    "fix_tests",
    "verify_tests",
    "replace_package",
]
JobPurpose = Literal["vet", "run", "oracle", "script"]
