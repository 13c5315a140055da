"""Python text to its syntax tree, once for all who read it."""

import ast
from functools import lru_cache

_KEPT = 32  # trees: what a session looks at between two of its decisions
_LONG = 100_000  # characters; a tree takes a hundred times its text's memory


def tree_of(source: str) -> ast.Module:
    """Return the syntax tree of a text: shared, so that nobody may change it. Raises as `ast.parse` does."""
    return ast.parse(source) if len(source) > _LONG else _kept(source)


@lru_cache(maxsize=_KEPT)
def _kept(source: str) -> ast.Module:
    return ast.parse(source)
