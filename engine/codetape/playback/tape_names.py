"""Which names stand for tape files, and not for sessions of a store."""

from pathlib import Path


def is_tape(name: str) -> bool:
    """Whether a name stands for a tape file rather than a session of a store."""
    return name == "demo" or name.endswith(".jsonl") or Path(name).is_file()


def is_tape_or_folder(name: str) -> bool:
    """Whether a name stands for a tape file, or a folder that may hold some."""
    return is_tape(name) or Path(name).is_dir()
