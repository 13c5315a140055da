"""The digest of a sample: a tape stores it for an input's file or folder, and a sandbox checks it before it runs."""

import hashlib
from collections.abc import Iterable

from codetape.domain.frozen_model import Hash


def sample_digest(parts: Iterable[tuple[str, int, Iterable[bytes]]], *, folder: bool) -> Hash:
    """Return the SHA-256 of a file's bytes, or of each path, size and content of a folder's files, in order of path.

    ``parts`` are (relative path, size in bytes, blocks of bytes).
    """
    digest = hashlib.sha256()
    for path, size, blocks in parts:
        if folder:
            digest.update(f"{path}\0{size}\0".encode())
        for block in blocks:
            digest.update(block)
    return digest.hexdigest()
