"""CSV in which no cell becomes a formula in a spreadsheet."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from codetape.text.escape import shown


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records as CSV. A leading apostrophe quotes a text that a spreadsheet would take for a formula."""
    out = io.StringIO()
    if records:
        writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in record.items()} for record in records)
    return out.getvalue()


def _plain(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = shown(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
