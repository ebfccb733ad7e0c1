"""Keys of values: how they are written, which of them share parts, and whom they are about."""

import re
from typing import Any

from strands.types.exceptions import StorageError

_SLASHES = re.compile(r"/+")
_SHARING = "/snapshots/"
_LAST = "\U0010ffff"
_OF_SESSION = re.compile(
    r"(?:@[^~/]+~/)?(?:session|context)/(?P<session>[^/]+)/(?:scopes/(?:agent|multiAgent)/(?P<agent>[^/]+)/)?"
)


def normalized_key(key: Any) -> str:
    """Return a key as Strands' storages write it: one slash between its segments, none around.

    Raises:
        StorageError: If it is empty, has a backslash, a ``..`` segment, or a character that no
            database takes.
    """
    text = _SLASHES.sub("/", _checked("key", key)).strip("/")
    if not text:
        raise StorageError("Storage key must not be empty")
    return text


def normalized_prefix(prefix: Any) -> str:
    """Return a prefix as Strands' storages write it: a slash at its end stays.

    Raises:
        StorageError: If it has a backslash, a ``..`` segment, or a character that no database
            takes.
    """
    return _SLASHES.sub("/", _checked("prefix", prefix)).lstrip("/")


def _checked(kind: str, text: Any) -> str:
    if not isinstance(text, str):
        raise StorageError(f"Invalid storage {kind} {text!r}: it must be text")
    if "\\" in text:
        raise StorageError(f"Invalid storage {kind} '{text}': backslashes are not allowed")
    if ".." in text.split("/"):
        raise StorageError(f"Invalid storage {kind} '{text}': '..' path segments are not allowed")
    if "\0" in text or any("\ud800" <= one <= "\udfff" for one in text):
        raise StorageError(
            f"Invalid storage {kind} {text!r}: NUL and lone surrogates are not allowed"
        )
    return text


def end_of(prefix: str) -> str | None:
    """Return the least text that is beyond all that begin with a prefix, or None for no end."""
    prefix = prefix.rstrip(_LAST)
    if not prefix:
        return None
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)  # noqa: PLR2004


def pool_of(key: str) -> str:
    """Return the pool of a value's parts.

    The snapshots of an agent share one, as they have most of their text in common: all that is
    below a folder ``snapshots``. Any other value has one of its own.
    """
    place = key.rfind(_SHARING)
    return key if place < 0 else key[: place + len(_SHARING)]


def pool_end(pool: str) -> str | None:
    """Return the key before which a pool's values end, or None where it has only one."""
    return end_of(pool) if pool.endswith("/") else None


def context_of(key: str) -> dict[str, Any]:
    """Return the session and the agent that a key is about, as far as Strands' layout says it."""
    found = _OF_SESSION.match(key)
    if found is None:
        return {"session_id": None, "agent_id": None}
    return {"session_id": found["session"], "agent_id": found["agent"]}
