"""codetape audit."""

import click

from codetape.cli.options import as_json, database, database_words, write_text
from codetape.cli.output import say


@click.command("audit")
@click.argument("session")
@click.option("-o", "files", multiple=True, metavar="F", help="Write the report: .html, .md or .json.")
@database
@as_json
def command(session: str, files: tuple[str, ...], db: str, as_json: bool) -> int:
    """Account for a session in one report: what was asked and done, each call's disposition and cost, each decision's
    reason, the result."""
    from codetape import api
    from codetape.inspector.report_files import AUDIT_FORMS, AuditedSession, extension_of
    from codetape.playback.tape_names import is_tape
    from codetape.reporting import audit

    forms = [AUDIT_FORMS[extension_of(file, AUDIT_FORMS)] for file in files]
    recorded = api.open_tape(session, store=db)
    report = audit.audit(recorded.stream)
    audited = AuditedSession(report, recorded.stream, session if is_tape(session) else "", database_words(db))
    for file, form in zip(files, forms, strict=True):
        write_text(file, form(audited))
    if as_json:
        click.echo(audit.as_json(report), nl=False)
    else:
        for name, value in audit.facts(report):
            say(f"{name:<18} {value}")
        for file in files:
            say(f"{'report':<18} {file}")
    return report.exit_code
