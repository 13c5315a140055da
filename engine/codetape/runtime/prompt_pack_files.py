"""Prompt packs as files: the one that ships, or a folder of the user's."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from codetape.errors import UsageError
from codetape.eventlog.events import PACK_FILE
from codetape.prompts.pack import check_pack


def load_pack(place: str | Path | Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a prompt pack's files by name: the one that ships, a folder's, or one that was read. Raises
    TemplateError."""
    if isinstance(place, Mapping):
        check_pack(dict(place))
        return dict(place)
    if place is None:
        root: Any = files("codetape.prompts") / "packs" / "default"
        found = {p.name: p.read_text("utf-8") for p in root.iterdir() if p.is_file()}
        found |= {f"schemas/{p.name}": p.read_text("utf-8") for p in (root / "schemas").iterdir()}
    else:
        folder = Path(place)
        if not folder.is_dir():
            raise UsageError(f"There is no prompt pack {folder}.", remedy="Give a folder with one template a purpose.")
        paths = [p for p in folder.rglob("*") if p.is_file() and p.suffix in (".md", ".json")]
        if links := [p for p in paths if p.is_symlink() or not p.resolve().is_relative_to(folder.resolve())]:
            raise UsageError(f"{links[0]} in the prompt pack is a link.", remedy="A pack holds its files itself.")
        if len(paths) > 200 or any(p.stat().st_size > 256 << 10 for p in paths):
            raise UsageError(f"{folder} is too large for a prompt pack.")
        found = {p.relative_to(folder).as_posix(): p.read_text("utf-8", "replace") for p in paths}
    kept = {name: text for name, text in found.items() if name.endswith((".md", ".json"))}
    if wrong := next((name for name in kept if not PACK_FILE.fullmatch(name)), None):
        raise UsageError(
            f"{wrong!r} is no name of a prompt pack's file.", remedy="Use letters, digits, _ and -; one folder deep."
        )
    check_pack(kept)
    return kept
