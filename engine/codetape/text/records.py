"""Dataclasses as flat records for tables."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any


def records(found: Iterable[Any]) -> list[dict[str, Any]]:
    """Return dataclasses as flat records, one a row, as pandas and polars take them."""
    return [asdict(row) for row in found]
