"""Where the parts of a prompt come from: the recorded texts that a prompt contains, each with its origin."""

from dataclasses import dataclass, field
from typing import NamedTuple

from codetape.eventlog.session_state import SessionState

MAX_KNOWN = 100  # texts that a prompt is searched for
MAX_SEARCHED = 400_000  # characters of a message; a longer one is not searched
_SHORT = 12  # characters: a shorter text occurs in a prompt by chance, and proves no origin
_HEAD = 2000  # characters of a text that are looked for: a prompt may have cut what follows
PACK = "the prompt pack"


class RecordedText(NamedTuple):
    """A text that a prompt may contain: what kind it is, and its origin in words."""

    text: str
    kind: str
    origin: str


@dataclass(frozen=True)
class Passage:
    """A part of a message: its text, and the kind and origin of it; both empty for what the prompt pack says."""

    text: str
    kind: str
    origin: str


@dataclass
class PromptOrigins:
    """The texts that prompts may contain, gathered event by event."""

    _made: list[RecordedText] = field(default_factory=list)

    def learn(self, before: SessionState, after: SessionState) -> None:
        """Take in what one event changed."""
        old, new, where = before.work, after.work, f"event {before.seq}"
        for name in ("code", "tests"):
            if getattr(new, name) != getattr(old, name):
                self._made.append(RecordedText(getattr(new, name), name, f"{name} of {where}"))
        if new.plan is not old.plan and new.plan:
            self._made.append(RecordedText(new.plan.description, "plan", f"the plan of {where}"))
        if new.diagnosis is not old.diagnosis and new.diagnosis:
            words = f"the diagnosis of {where}"
            self._made += [RecordedText(f.root_cause, "diagnosis", words) for f in new.diagnosis.failures]
        if new.report is not old.report and new.report:
            bad = [t for t in new.report.tests if t.outcome != "passed"]
            self._made += [RecordedText(t.message, "report", f"the report of {where}") for t in bad]

    def mark(self) -> int:
        """Return how much is known now, for `texts` at a later time."""
        return len(self._made)

    def texts(self, session: SessionState, mark: int | None = None) -> list[RecordedText]:
        """Return what is known, or was at a mark, and the task's own texts. Of very many the newest are taken."""
        task = session.the_task
        made = self._made[: len(self._made) if mark is None else mark][-MAX_KNOWN:]
        asked = [
            RecordedText(task.prompt, "task", "the task"),
            RecordedText(session.anchors or "", "task", "the task's examples"),
            RecordedText(task.tests, "task", "the user's tests"),
            RecordedText(task.data_schema, "task", "the task's schema"),
            *(RecordedText(i.sample.head, "sample", f"the sample of {i.name}") for i in task.inputs if i.sample),
            *(RecordedText(constraint, "task", "a constraint") for constraint in task.constraints),
        ]
        return [known for known in reversed([*made, *asked]) if len(known.text.strip()) >= _SHORT]


def origin_of(body: str, known: list[RecordedText]) -> str:
    """Return the origins of the recorded texts that a part of a prompt contains; the prompt pack if it contains none."""
    sources = [one.origin for one in known if one.text.strip()[:_HEAD] in body]
    return ", ".join(dict.fromkeys(sources)) or PACK


def passages(message: str, known: list[RecordedText]) -> list[Passage]:
    """Return a message cut at the bounds of the recorded texts in it; of two that overlap the longer one counts."""
    if len(message) > MAX_SEARCHED:
        return [Passage(message, "", "")]
    found = []
    for one in known:
        text = one.text.strip()
        start = message.find(text)
        if start < 0 and len(text) > _HEAD:
            text = text[:_HEAD]
            start = message.find(text)
        if start >= 0:
            found.append((start, start + len(text), one))
    taken: list[tuple[int, int, RecordedText]] = []
    for start, end, one in sorted(found, key=lambda place: place[0] - place[1]):
        if all(end <= other[0] or start >= other[1] for other in taken):
            taken.append((start, end, one))
    parts, at = [], 0
    for start, end, one in sorted(taken, key=lambda place: place[0]):
        parts += [Passage(message[at:start], "", "")] if start > at else []
        parts.append(Passage(message[start:end], one.kind, one.origin))
        at = end
    return [*parts, Passage(message[at:], "", "")] if at < len(message) or not parts else parts
