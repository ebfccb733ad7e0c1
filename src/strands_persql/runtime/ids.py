"""Which ids are accepted."""

from typing import Any


def check_id(kind: str, value: Any) -> str:
    """Check an id that a caller gave, before anything is sent.

    Args:
        kind: What it identifies, such as ``"session"``.
        value: The id.

    Raises:
        ValueError: If it is empty, no text, or has a path separator, NUL or lone surrogate.
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

    Raises:
        ValueError: If it is no integer, or negative.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"message_id={value!r} | must be an integer and not negative")
    return value
