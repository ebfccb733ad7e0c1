"""Owners: what the ids of their sessions begin with in the database."""

import re
from typing import Any

_RESERVED = re.compile(r"[%~/\\]")
_ESCAPED = re.compile(r"%([0-9A-F]{2})")
_SCOPE = re.compile(r"@([^~]+)~")


def scope_of(owner: Any) -> str:
    """Return what the ids of an owner's sessions begin with in the database.

    No owner's scope begins with another one's, whatever they are called.

    Args:
        owner: The owner.

    Raises:
        ValueError: If it is not text, is empty, or has NUL or a lone surrogate.
    """
    if not isinstance(owner, str) or not owner:
        raise ValueError(f"owner={owner!r} | must be text and not empty")
    if "\0" in owner or any("\ud800" <= one <= "\udfff" for one in owner):
        raise ValueError(f"owner={owner!r} | must not contain NUL or lone surrogates")
    return f"@{_RESERVED.sub(lambda found: f'%{ord(found[0]):02X}', owner)}~"


def split_scope(stored_id: str) -> tuple[str, str]:
    """Return the scope that an id in the database begins with, or nothing, and the rest of it."""
    found = _SCOPE.match(stored_id)
    end = 0 if found is None else found.end()
    return stored_id[:end], stored_id[end:]


def owner_of(stored_id: str) -> str | None:
    """Return the owner of a session by its id in the database, or None where it has none."""
    found = _SCOPE.match(stored_id)
    if found is None:
        return None
    return _ESCAPED.sub(lambda one: chr(int(one[1], 16)), found[1])
