"""Ids: which are accepted from callers, and how new ones are made."""

import os
from typing import Any, NamedTuple

CHANGE_ID_LENGTH = 16
"""Characters of the id of a change set."""


class AgentKey(NamedTuple):
    """Which agent of which session."""

    session_id: str
    agent_id: str

    @property
    def context(self) -> dict[str, Any]:
        """Return both ids by name, for statements and errors."""
        return {"session_id": self.session_id, "agent_id": self.agent_id}


def new_id() -> str:
    """Return an id for one logical write, kept through all its retries."""
    return os.urandom(CHANGE_ID_LENGTH // 2).hex()


def check_id(kind: str, value: Any) -> str:
    """Check an id that a caller gave, before anything is sent.

    Args:
        kind: What it identifies, such as ``"session"``.
        value: The id.

    Returns:
        The id.

    Raises:
        ValueError: If it is not text, is empty, or has a path separator, NUL or lone surrogate.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{kind}_id={value!r} | must be text and not empty")
    if any(character in value for character in "/\\\0"):
        raise ValueError(f"{kind}_id={value!r} | must not contain path separators or NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{kind}_id={value!r} | must not contain lone surrogates") from None
    return value


def check_message_id(value: Any) -> int:
    """Check a message's id.

    Returns:
        The id.

    Raises:
        ValueError: If it is not an integer, or negative.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"message_id={value!r} | must be an integer and not negative")
    return value
