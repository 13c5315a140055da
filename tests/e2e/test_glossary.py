"""One word for a thing: terms that the glossary replaces are in no help text, message or page of the docs."""

import ast
import re
from pathlib import Path

from click.testing import CliRunner

import codetape
import codetape_adapters
from codetape.cli import COMMANDS
from codetape.cli.group import cli
from tests.e2e.test_docs import PAGES, ROOT

FORBIDDEN = {
    r"\bverbs?\b": "command",
    r"\banew\b": "again",
    r"\bcanary\b": "self-test",
    r"\b(?:can|cannot|to) be had\b": "is available, is unavailable",
    r"\b(?:go|goes|gone|going|went) on with\b": "resume, continue",
    r"\bforesee(?:s|n)?\b": "simulate",
    r"\bsalvaged?\b": "recover",
    r"\bartefacts?\b": "domain models",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bfates?\b": "disposition",
    r"\bnobody (?:is here|sits)\b": "in non-interactive use, without confirmation",
    r"\bthey part\b": "diverge",
    r"\bwhich there never was\b": "unknown version",
    r"\bis no amount of\b": "is not a valid dollar amount",
    r"\b(?:is|are) meant by\b": "matches",
    r"\bthe seed\b|\bclosest peer\b": "nothing: docs do not say where requirements came from",
}
DECIDED = ("rules", "prompts", "decider")
"""Packages whose messages are part of what tapes hold: they change with the next version of the rules."""


def wrong(text, where):
    return [
        f"{where}: {found[0]!r}, say: {better}"
        for pattern, better in FORBIDDEN.items()
        if (found := re.search(pattern, text, re.I))
    ]


def test_no_page_of_the_docs_says_it_in_other_words():
    pages = [page for page in PAGES if page.name not in ("glossary.md", "CHANGELOG.md")]
    assert [line for page in pages for line in wrong(page.read_text(), page.relative_to(ROOT))] == []


def test_no_help_text_says_it_in_other_words():
    found = []
    for command in COMMANDS:
        made = cli.get_command(None, command)
        for words in [[command], *([command, name] for name in getattr(made, "commands", {}))]:
            said = CliRunner().invoke(cli, [*words, "--help"], prog_name="codetape", terminal_width=100).output
            found += wrong(said, " ".join(words))
    assert found == []


def texts_of(path):
    """Every string of a module, docstrings among them; of an f-string what stands between its values."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def test_no_message_or_docstring_says_it_in_other_words():
    found = []
    for root in (Path(codetape.__file__).parent, Path(codetape_adapters.__file__).parent):
        for path in sorted(root.rglob("*.py")):
            if path.relative_to(root).parts[0] not in DECIDED:
                found += [
                    line
                    for number, text in texts_of(path)
                    for line in wrong(text, f"{path.relative_to(root)}:{number}")
                ]
    assert found == []


def test_the_glossary_holds_every_replacement():
    page = (ROOT / "docs/reference/glossary.md").read_text()
    for term in (
        "command",
        "resume",
        "disposition",
        "simulate",
        "recover",
        "self-test",
        "unavailable",
        "diverge",
        "pending",
        "blob",
    ):
        assert f"| {term}" in page or f", {term}" in page, term
