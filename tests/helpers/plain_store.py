"""A store adapter as somebody else would write one: in memory, by name, for as long as the process lasts."""

from codetape.testing import MemoryStore

_OPEN: dict[str, MemoryStore] = {}


def create(place=""):
    return _OPEN.setdefault(place, MemoryStore())


def forget_all():
    _OPEN.clear()
