"""What becomes of a reply, one row a purpose: how a usable one is read, and what the session does without one."""

from collections.abc import Callable
from typing import NamedTuple

from codetape.decider.replies import diagnosis, distributions, opinions, own_tests, plan_and_code
from codetape.decider.step import Read, Step
from codetape.eventlog.session_state import SessionState
from codetape.prompts.reply_forms import as_json
from codetape.prompts.reply_parser import Unusable


class ReplyRow(NamedTuple):
    """How a reply's text is read, what follows where there is no usable one, and how other forms come into the strict one."""

    read: Callable[[SessionState, str], Read]
    without: Callable[[SessionState, Unusable], Step]
    form: Callable[[SessionState, str], str]


def _json(purpose: str) -> Callable[[SessionState, str], str]:
    return lambda session, text: as_json(purpose, text)


REPLIES = {
    "plan": ReplyRow(plan_and_code.plan, plan_and_code.without_plan, _json("plan")),
    "code": ReplyRow(plan_and_code.code, plan_and_code.without_code, plan_and_code.code_form),
    "verify_code": ReplyRow(plan_and_code.verify_logic_fixes_applied, plan_and_code.unverified, _json("verify_code")),
    "tests": ReplyRow(own_tests.tests, own_tests.without_tests, own_tests.tests_form),
    "fix_tests": ReplyRow(own_tests.fix_tests, own_tests.unfixed, own_tests.fixed_form),
    "verify_tests": ReplyRow(own_tests.verify_tests, own_tests.unverified, _json("verify_tests")),
    "diagnose": ReplyRow(diagnosis.diagnose, diagnosis.undiagnosed, _json("diagnose")),
    "second_opinion": ReplyRow(opinions.second_opinion, opinions.unjudged, _json("second_opinion")),
    "packages": ReplyRow(distributions.packages, distributions.unnamed, _json("packages")),
    "replace_package": ReplyRow(distributions.replace_package, distributions.unreplaced, _json("replace_package")),
}
