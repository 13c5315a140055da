"""Counts with their nouns."""


def many(number: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"
