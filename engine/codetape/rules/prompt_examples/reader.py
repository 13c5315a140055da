"""What those share that read examples in a task."""

import ast
import re

from codetape.rules.prompt_examples import passages
from codetape.rules.prompt_examples.example import PromptExample, free_names, from_solution
from codetape.rules.rule_versions import RULES_VERSION

_PRINTS = re.compile(r"(?i)\b(prints?|printing|printed|standard output|stdout)\b")


MAX_PARSES = 5000  # texts that are parsed in the search of one prompt


class Reader:
    """What readers of a prompt's passages share: examples as they are found, those left out, and how many texts may
    still be parsed.

    A prompt of nothing but brackets would be parsed for hours.
    """

    def __init__(self, text: passages.Passages, rules: int = RULES_VERSION) -> None:
        self.text, self.rules = text, rules
        self.found: list[PromptExample] = []
        self.left_out: list[tuple[str, str]] = []
        self.parses = MAX_PARSES
        self.prose = "\n".join(
            line for t in text.texts for line in t.split("\n") if not line.lstrip().startswith((">>>", "..."))
        )
        self.prints = bool(_PRINTS.search(self.prose))

    def spent(self) -> bool:
        """Take one parse; whether none was left."""
        self.parses -= 1
        return self.parses < 0

    def leave_out(self, source: str, why: str) -> None:
        """Name an example that is no test."""
        self.left_out.append((source.strip().split("\n")[0][:200], why))

    def unknown(self, sources: list[str]) -> str:
        """Return a name that an example uses and that nobody could offer: data that the task only speaks of."""
        called = {
            n.func.id
            for source in sources
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        offered = called | self.text.functions | self.text.names | from_solution(sources)
        return next((name for name in free_names(sources) if name not in offered and not name[0].isupper()), "")
