"""No trick is taken for a right program: what passes by one is neither `oracle` nor `anchored`."""

import pytest

from codetape_adapters.sandboxes.bubblewrap.sandbox import BubblewrapSandbox
from tests.forgeries import AGAINST_AN_ORACLE, FORGERIES, HEAD, HONEST_WRONG, WRONG
from tests.support import block, diagnosis, generate, opinions, plan, proposals

PROMPT = "Write double(x), twice the number.\n\n>>> double(4)\n8\n"
TESTS = "from solution import double\n\n\ndef test_double():\n    assert double(5) == 10\n\n\ndef test_zero():\n    assert double(0) == 0\n"
ORACLE = (
    "from solution import double\n\n\ndef test_oracle():\n    assert double(7) == 14\n    assert double(-1) == -2\n"
)


@pytest.fixture(scope="module", params=["bubblewrap", "docker"])
def sandbox(request):
    return BubblewrapSandbox() if request.param == "bubblewrap" else request.getfixturevalue("docker_sandbox")


def claimed(code, sandbox, **task):
    answers = {
        "plan": [plan("def double(x: int) -> int")],
        "code": [block(code)],
        "tests": [block(task.pop("tests", TESTS))],
        "diagnose": [diagnosis()],
        "second_opinion": [opinions("10")],
        "packages": [proposals(_pytest="pytest")],  # what patches pytest imports it
        "fix_tests": [block(TESTS)],
    }
    # what the loop makes of a second run no sandbox has a part in: one of them tells it
    runs = 2 if isinstance(sandbox, BubblewrapSandbox) else 1
    result, *_ = generate(answers, task.pop("prompt", PROMPT), sandbox=sandbox, max_iterations=runs, **task)
    assert result.status in ("succeeded", "failed"), result.reason  # it was judged, and not stopped by something else
    return result


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_neither_oracle_nor_anchored(name, sandbox):
    result = claimed(FORGERIES[name], sandbox, ask={"oracle": ORACLE})
    assert result.confidence not in ("oracle", "anchored"), name


@pytest.mark.parametrize("name", AGAINST_AN_ORACLE)
def test_a_forgery_against_an_oracle_of_its_own_is_no_oracle(name, sandbox):
    code, oracle = AGAINST_AN_ORACLE[name]
    only_five = "from solution import double\n\n\ndef test_five():\n    assert double(5) == 10\n"
    result = claimed(code, sandbox, tests=only_five, prompt="Write double(x).", ask={"oracle": HEAD + oracle})
    assert result.confidence != "oracle", name


def test_the_right_program_is_both(sandbox):
    right = "def double(x):\n    return 2 * x\n"
    assert claimed(right, sandbox, ask={"oracle": ORACLE}).confidence == "oracle"
    assert claimed(right, sandbox).confidence == "anchored"


def test_the_wrong_program_without_a_trick_fails(sandbox):
    assert HONEST_WRONG == WRONG
    assert not claimed(HONEST_WRONG, sandbox).succeeded
