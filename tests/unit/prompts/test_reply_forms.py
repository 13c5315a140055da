"""The forms in which models answer: which are read, and which are asked for again."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codetape.prompts.reply_forms import as_block, as_json, fenced
from codetape.prompts.reply_parser import SHAPES, Unusable, read_block, read_json
from codetape.prompts.thoughts import split

ADD = "def add(a, b):\n    return a + b\n"
BLOCK = f"```python\n{ADD}```\n"
STRINGS = 'USAGE = """\n```\nadd 1 2\n```\n"""\n\n\n' + ADD
PLAN = {
    "description": "d", "approach": "a", "packages": [], "edge_cases": [],
    "interface": [{"signature": "def add(a, b)", "contract": "c"}],
}  # fmt: skip
JSON = json.dumps(PLAN)


def fits(source):
    return "def add" in source


def read(text):
    return read_block(as_block(text, fits))


READ = {
    "one block": BLOCK,
    "prose around it": f"Sure!\n\n{BLOCK}\nThat is it.",
    "a block of shell before it": f"```bash\npip install x\n```\nThen:\n{BLOCK}",
    "an untagged block of shell before it": f"```\npip install x\n```\n{BLOCK}",
    "an example of its use after it": f"{BLOCK}\nUse it:\n```python\nprint(add(1, 2))\n```\n",
    "its output after it": f"{BLOCK}\n```text\n3\n```\n",
    "the same block twice": BLOCK + BLOCK,
    "a closing fence that is glued to the code": f"```python\n{ADD.rstrip()}```",
    "a block in a list": "1. Here:\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n",
    "a byte order mark": f"\ufeff```python\n\ufeff{ADD}```",
    "Windows lines": BLOCK.replace("\n", "\r\n"),
    "lines of an old Macintosh": BLOCK.replace("\n", "\r"),
    "tildes": f"~~~python\n{ADD}~~~",
    "four backticks": f"````python\n{ADD}````",
    "a tag of its own": f"```py\n{ADD}```",
    "a tag in braces": f"```{{.python}}\n{ADD}```",
    "a title behind the tag": f"```python title=solution.py\n{ADD}```",
    "no fence at all": ADD,
    "thoughts before it": f"<think>\nFirst:\n```python\ndef add(a, b): ...\n```\n</think>\n{BLOCK}",
    "thoughts that lost their opening tag": f"I add.\n</think>\n\n{BLOCK}",
    "channels": f"<|channel|>analysis<|message|>I add.<|end|><|start|>assistant<|channel|>final<|message|>{BLOCK}<|return|>",
    "channels without their marks": f"analysisI add.assistantfinal{BLOCK}",
    "square tags": f"[THINK]I add.[/THINK]{BLOCK}",
    "an answer in a tag": f"<answer>\n{BLOCK}</answer>",
    "a mark of its end": f"{BLOCK.rstrip()}<|im_end|>",
}


@pytest.mark.parametrize("form", READ)
def test_a_block_that_is_meant_without_doubt_is_read(form):
    assert read(READ[form]).strip() == ADD.strip()


def test_a_fence_in_a_string_ends_no_block():
    assert read(f"```python\n{STRINGS}```\n").strip() == STRINGS.strip()
    assert read(f"Two:\n```sh\nls\n```\n```python\n{STRINGS}```\nDone.").strip() == STRINGS.strip()


ASKED_AGAIN = {
    "two that differ": (f"{BLOCK}\nOr:\n```python\ndef add(a, b):\n    return b + a\n```\n", "several_blocks"),
    "none": ("I would add the two numbers.", "no_block"),
    "a block that never ends": (f"```python\n{ADD}", "open_block"),
    "no Python": ("```python\ndef add(a, b:\n```", "syntax"),
    "another function": ("```python\ndef subtract(a, b):\n    return a - b\n```\nprint(1)", ""),
    "thoughts alone": ("<think>\nI add.", "no_block"),
}


@pytest.mark.parametrize("form", ASKED_AGAIN)
def test_a_reply_in_doubt_stays_for_the_strict_reader(form):
    text, reason = ASKED_AGAIN[form]
    found = read(text)
    assert (found.reason if isinstance(found, Unusable) else "") == reason


JSON_READ = {
    "the object": JSON,
    "a fence": f"```json\n{JSON}\n```",
    "prose and a fence": f"Here is the plan:\n\n```json\n{JSON}\n```\n\nTell me if it fits.",
    "prose": f'The plan, with {{braces}} and "quotes": {JSON} Done.',
    "a raw newline in a text": JSON.replace('"d"', '"d\nd"'),
    "a tab in a text": JSON.replace('"d"', '"d\td"'),
    "a comma too many": JSON[:-1] + ",}",
    "a comma too many in a list": JSON.replace('"c"}]', '"c"},]'),
    "a byte order mark": "\ufeff" + JSON,
    "thoughts with an object": f'<think>{{"a": 1}}</think>{JSON}',
    "a key around it": f'{{"plan": {JSON}}}',
    "a field that nobody asked for": JSON[:-1] + ', "confidence": 1}',
    "a null for what may be missing": JSON.replace("[]", "null"),
    "the object twice": JSON + "\n" + JSON,
    "an object of something else beside it": f'{{"note": 1}}\n{JSON}',
    "a fence of another language": f"```python\n{JSON}\n```",
}


@pytest.mark.parametrize("form", JSON_READ)
def test_an_object_that_is_meant_without_doubt_is_read(form):
    found = read_json("plan", as_json("plan", JSON_READ[form]))
    assert found.interface[0].signature == "def add(a, b)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (JSON + JSON.replace('"d"', '"e"'), "not_json"),
        ("no object", "not_json"),
        (JSON[:-2], "not_json"),
        ('{"description": 1}', "shape"),
        ("[" + JSON[1:-1] + "]", "shape"),
        ('{"a":' * 60_000 + "1" + "}" * 60_000, "not_json"),
    ],
)
def test_an_object_in_doubt_stays_for_the_strict_reader(text, reason):
    assert read_json("plan", as_json("plan", text)).reason == reason


@given(st.text())
def test_any_text_is_brought_into_form_or_left(text):
    assert isinstance(as_block(text, fits), str)
    for purpose in SHAPES:
        assert isinstance(as_json(purpose, text), str)


@given(st.text(alphabet="`~ \n\"'ax"))
def test_no_code_closes_the_fence_that_is_put_around_it(code):
    source = code.strip("\n") + "\n"
    found = read_block(fenced(f"X = {source!r}\n"))
    assert isinstance(found, str)


@pytest.mark.parametrize(
    "text", ["{" * 400_000, "```\n(\n" * 190 + "x = 1\n" * 60_000, '"' * 400_000, "```\n" * 400_000]
)
def test_a_hostile_reply_is_left_in_little_time(text):
    begun = time.process_time()
    as_block(text, fits)
    as_json("plan", text)
    assert time.process_time() - begun < 20


def test_a_script_that_handles_such_marks_keeps_them():
    code = "```python\nimport re\n\nTAG = re.compile('</think>')\n```"
    assert split(code) == ("", code)
    assert split("<think>x</think>a </think> b").answer == "a </think> b"
