"""What becomes of a reply, one row a purpose: how a usable one is read, and what the session does without one."""

from collections.abc import Callable
from typing import NamedTuple

from codetape.decider.replies import diagnosis, distributions, opinions, own_tests, plan_and_code
from codetape.decider.step import Read, Step
from codetape.eventlog.session_state import SessionState
from codetape.prompts.reply_parser import Unusable


class ReplyRow(NamedTuple):
    """How a reply's text is read, and what follows where there is no usable one. Raw text is never taken for code."""

    read: Callable[[SessionState, str], Read]
    without: Callable[[SessionState, Unusable], Step]


REPLIES = {
    "plan": ReplyRow(plan_and_code.plan, plan_and_code.without_plan),
    "code": ReplyRow(plan_and_code.code, plan_and_code.without_code),
    "verify_code": ReplyRow(plan_and_code.verify_logic_fixes_applied, plan_and_code.unverified),
    "tests": ReplyRow(own_tests.tests, own_tests.without_tests),
    "fix_tests": ReplyRow(own_tests.fix_tests, own_tests.unfixed),
    "verify_tests": ReplyRow(own_tests.verify_tests, own_tests.unverified),
    "diagnose": ReplyRow(diagnosis.diagnose, diagnosis.undiagnosed),
    "second_opinion": ReplyRow(opinions.second_opinion, opinions.unjudged),
    "packages": ReplyRow(distributions.packages, distributions.unnamed),
    "replace_package": ReplyRow(distributions.replace_package, distributions.unreplaced),
}
