"""Addresses of servers: what of one goes onto a tape, and what may not be in it."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from codetape.errors import UsageError

_SECRETS = frozenset(
    {"api_key", "apikey", "api-key", "key", "token", "access_token", "auth", "authorization", "password", "secret",
     "subscription-key", "sig", "signature", "code"}
)  # fmt: skip


def without_user(url: str) -> str:
    """Return an address without the name and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def refuse_secrets(url: str) -> None:
    """Raise UsageError for an address that holds a name, a password or a key: it would be on every tape."""
    parts = urlsplit(url)
    query = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if "@" in parts.netloc or query & _SECRETS:
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
        raise UsageError(
            f"The address {bare} was given with a secret in it, which would be on every tape.",
            remedy="Give the address alone, and the key in a variable that --api-key-env names.",
        )


@cache
def library_version(name: str) -> str:
    """Return the version of an installed library; empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
