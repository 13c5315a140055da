"""The reader of each purpose."""

from collections.abc import Callable

from codetape.decider.replies.diagnosis import diagnose
from codetape.decider.replies.distributions import packages, replace_package
from codetape.decider.replies.opinions import second_opinion
from codetape.decider.replies.own_tests import fix_tests, tests, verify_tests
from codetape.decider.replies.plan_and_code import code, plan, verify_logic_fixes_applied
from codetape.decider.step import Read
from codetape.eventlog.session_state import SessionState

READ: dict[str, Callable[[SessionState, str], Read]] = {
    "plan": plan,
    "code": code,
    "tests": tests,
    "diagnose": diagnose,
    "second_opinion": second_opinion,
    "fix_tests": fix_tests,
    "verify_code": verify_logic_fixes_applied,
    "verify_tests": verify_tests,
    "packages": packages,
    "replace_package": replace_package,
}
