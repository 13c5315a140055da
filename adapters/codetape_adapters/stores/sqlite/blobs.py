"""Blobs: texts by their hashes, compressed."""

import threading
from collections.abc import Iterable, Sequence
from sqlite3 import Connection

import zstandard

from codetape.domain.canonical import sha256
from codetape.errors import CorruptTape

MAX_TEXT = 64 << 20  # bytes of one blob, unpacked
_NEW = "INSERT INTO blobs SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE hash = ?)"
_LOCAL = threading.local()  # neither end of the compression may be used by two threads at once


def put(db: Connection, packed: Sequence[tuple[str, bytes]]) -> None:
    """Add texts, given as their hashes and bytes; one that is there already stays."""
    compressor: zstandard.ZstdCompressor | None = getattr(_LOCAL, "compressor", None)
    if compressor is None:
        compressor = _LOCAL.compressor = zstandard.ZstdCompressor(level=3)
    for key, data in packed:
        name = bytes.fromhex(key)
        db.execute(_NEW, (name, len(data), compressor.compress(data), name))


def texts(db: Connection, blob_refs: Iterable[str]) -> dict[str, str]:
    """Return the texts of blobs, of those that are there. Raises CorruptTape for one that was edited."""
    found: dict[str, str] = {}
    keys = sorted({bytes.fromhex(ref) for ref in blob_refs})
    for start in range(0, len(keys), 500):
        batch = keys[start : start + 500]
        marks = ",".join("?" * len(batch))
        query = f"SELECT hash, size, data FROM blobs WHERE hash IN ({marks})"  # noqa: S608 - only marks
        for name, size, data in db.execute(query, batch):
            key = name.hex()
            found[key] = unpack(key, size, data)
    return found


def unpack(key: str, size: int, data: bytes) -> str:
    """Return a blob's text; its hash is checked, and its size is bounded before it is unpacked."""
    try:
        if type(size) is not int or type(data) is not bytes:
            raise CorruptTape(f"blob {key} is no blob.")
        if size > MAX_TEXT or zstandard.frame_content_size(data) != size:
            raise CorruptTape(f"blob {key} does not have the size it says.")
        text = _unpacker().decompress(data, max_output_size=max(size, 1)).decode()
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise CorruptTape(f"blob {key} cannot be unpacked.") from error
    if sha256(text) != key:
        raise CorruptTape(f"blob {key} was edited: its hash does not cover what it says.")
    return text


def _unpacker() -> zstandard.ZstdDecompressor:
    unpacker: zstandard.ZstdDecompressor | None = getattr(_LOCAL, "unpacker", None)
    if unpacker is None:
        unpacker = _LOCAL.unpacker = zstandard.ZstdDecompressor()
    return unpacker
