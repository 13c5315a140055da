"""Reports of audits, checks and comparisons as files: the form is told by a file's extension."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from codetape.errors import UsageError
from codetape.evals import report_formats
from codetape.evals.judge import CheckReport
from codetape.inspector.check_page import check_page
from codetape.inspector.compare_page import compare_page
from codetape.inspector.rendering import Links
from codetape.inspector.session_page import SessionView, session_page
from codetape.playback.diff import SessionDiff
from codetape.ports import Stream
from codetape.reporting import audit as audits
from codetape.reporting.audit import Audit

PAGE = ".html"
CHECK_FORMS: dict[str, Callable[[CheckReport], str]] = {
    **report_formats.FORMS,
    PAGE: lambda report: check_page(report, Links()),
}


@dataclass(frozen=True)
class AuditedSession:
    """An audit with the session that it is of. ``file`` is the tape that it was read from, if any; ``database`` are the
    words by which commands find its store."""

    audit: Audit
    stream: Stream
    file: str = ""
    database: tuple[str, ...] = ()


def audit_page(audited: AuditedSession) -> str:
    """Return an audit as the page of its session, with what was verified."""
    report = audited.audit
    return session_page(
        SessionView.of(audited.stream),
        Links(),
        database=audited.database,
        file=audited.file,
        findings=report.findings,
        more=tuple(fact for fact in audits.facts(report) if fact[0] == "verified"),
    )


AUDIT_FORMS: dict[str, Callable[[AuditedSession], str]] = {
    ".json": lambda audited: audits.as_json(audited.audit),
    ".md": lambda audited: audits.as_markdown(audited.audit),
    PAGE: audit_page,
}


def diff_page(comparison: SessionDiff, a: Stream, b: Stream) -> str:
    """Return two sessions side by side as a page."""
    return compare_page(comparison, SessionView.of(a), SessionView.of(b), Links())


def extension_of(file: str, forms: Iterable[str]) -> str:
    """Return the extension of a file, of those that reports may have. Raises UsageError for any other."""
    known = [*forms]
    found = next((extension for extension in known if file.lower().endswith(extension)), None)
    if found is None:
        raise UsageError(
            f"{file} has none of the extensions {', '.join(known)}.", remedy="They say which form the report takes."
        )
    return found
