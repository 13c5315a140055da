"""Views of a session that rules, prompts and decisions share."""

from codetape.domain.reply_shapes import CodePlan, Function
from codetape.rules.session_view import interface_names


def planned(*signatures):
    return CodePlan(
        description="", approach="", interface=tuple(Function(signature=text, contract="") for text in signatures)
    )


def test_a_class_is_one_name_of_the_module_and_its_methods_are_its_own():
    plan = planned(
        "class Stack",
        "Stack.push(self, item) -> None",
        "pop(self) -> object",
        "def size(self) -> int",
        "def top(stack)",
    )
    assert interface_names(plan) == ("Stack", "top")


def test_earlier_rules_took_every_signature_for_a_function():
    assert interface_names(planned("class Stack", "pop(self) -> object"), 2) == ("Stack", "pop")
