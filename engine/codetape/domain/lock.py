"""A lock: what an environment installed, a ``name==version`` line each, with hashes after it."""


def pins(lock: str) -> tuple[str, ...]:
    """Return the ``name==version`` words of a lock, in its order."""
    return tuple(word for line in lock.splitlines() if "==" in (word := line.split(" ")[0]))


def versions_in(lock: str) -> dict[str, str]:
    """Return the versions by package."""
    return dict(pin.split("==", 1) for pin in pins(lock))
