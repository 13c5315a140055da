"""codetape audit."""

import click

from codetape.cli.options import as_json, database, write_text
from codetape.cli.output import say
from codetape.errors import UsageError


@click.command("audit")
@click.argument("session")
@click.option("-o", "files", multiple=True, metavar="F", help="Write the report: .html, .md or .json.")
@database
@as_json
def command(session: str, files: tuple[str, ...], db: str, as_json: bool) -> int:
    """Account for a session in one report: what was asked and done, each call's disposition and cost, each decision's
    reason, the result."""
    from codetape import api
    from codetape.reporting import audit

    forms = [
        (file, next((form for end, form in audit.FORMS.items() if file.lower().endswith(end)), None)) for file in files
    ]
    if wrong := next((file for file, form in forms if form is None), None):
        raise UsageError(f"{wrong} has none of the extensions {', '.join(audit.FORMS)}.")
    report = api.audit(session, store=db)
    for file, form in forms:
        if form is not None:
            write_text(file, form(report))
    if as_json:
        click.echo(audit.as_json(report), nl=False)
    else:
        for name, value in audit.facts(report):
            say(f"{name:<18} {value}")
        for file in files:
            say(f"{'report':<18} {file}")
    return report.exit_code
