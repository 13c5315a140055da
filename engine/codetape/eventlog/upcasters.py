"""Reads stored payloads as the present version of their kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from codetape.domain.validation import reason_of
from codetape.errors import CorruptTape
from codetape.eventlog.events import KINDS, Payload

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(kind, version) -> the payload of version + 1. Append only, once 0.1.0 is out."""


def decode_payload(kind: str, version: int, payload: str, seq: int) -> Payload:
    """Read a stored payload as the present version of its kind."""
    shape = KINDS.get(kind)
    if version < 1:
        raise CorruptTape(f"event {seq} is of the unknown version {version}.", seq=seq)
    if shape is None or version > shape.version:
        raise CorruptTape(
            f"event {seq} is a {kind} of version {version}, which this codetape does not know.",
            remedy="A newer codetape wrote it: upgrade.",
            seq=seq,
        )
    try:
        if version == shape.version:
            return shape.model_validate_json(payload, strict=True)
        value = json.loads(payload)
        while version < shape.version:
            value, version = UPCASTERS[kind, version](value), version + 1
        return shape.model_validate_json(json.dumps(value), strict=True)
    except (ValueError, RecursionError) as error:  # RecursionError: JSON that is nested too deeply
        raise CorruptTape(f"event {seq} is no {kind}: {reason_of(error)}", seq=seq) from error
