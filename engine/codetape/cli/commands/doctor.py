"""codetape doctor."""

from typing import Any

import click

from codetape.cli.options import as_json, database
from codetape.cli.output import say, say_json

MARKS = {"well": "ok", "note": "--", "bad": "NO"}


@click.command("doctor")
@click.option("--base-url", metavar="URL", help="A server to ask as well.")
@database
@as_json
def command(base_url: str | None, db: str, as_json: bool) -> int:
    """Say what works on this machine, and what to do about the rest. Exit 1 where the demo could not execute."""
    from codetape.cli.doctor_checks import examine

    findings = examine(db, base_url)
    blocked = any(f.status == "bad" and f.needed for f in findings)
    if as_json:
        say_json({"checks": [_plain(f) for f in findings], "demo_executes": not blocked})
    else:
        for finding in findings:
            say(f"{MARKS[finding.status]:<3} {finding.name:<22} {finding.says}")
            if finding.remedy and finding.status != "well":
                say(f"{'':<26} {finding.remedy}")
    return 1 if blocked else 0


def _plain(finding: Any) -> dict[str, Any]:
    return {
        "name": finding.name,
        "status": finding.status,
        "says": finding.says,
        "remedy": finding.remedy,
        "needed": finding.needed,
    }
