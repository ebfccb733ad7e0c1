"""Checks of the options that repositories and storages share."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any


def check_type(name: str, given: object, wanted: type) -> None:
    """Check what an option is.

    Raises:
        TypeError: If it is neither None nor of the class.
    """
    if given is not None and not isinstance(given, wanted):
        raise TypeError(f"{name}={given!r} | must be a {wanted.__name__} or None")


_LONGEST_S = 1_000 * 366 * 86_400


def check_options(max_staleness: Any, on_conflict: str, choices: Sequence[str]) -> None:
    """Check how old what is remembered may be, and what happens to a write that came second.

    Args:
        max_staleness: The age in seconds.
        on_conflict: What happens.
        choices: What may happen.

    Raises:
        ValueError: If one of them is out of its range.
    """
    if not isinstance(max_staleness, int | float) or not max_staleness >= 0:
        raise ValueError(f"max_staleness={max_staleness!r} | must be seconds, 0 or more")
    if on_conflict not in choices:
        allowed = " or ".join(map(repr, choices))
        raise ValueError(f"on_conflict={on_conflict!r} | must be {allowed}")


def seconds_of(expires_after: float | timedelta | None) -> int | None:
    """Return for how many whole seconds a session is kept at the least, or None for ever.

    Raises:
        ValueError: If it is less than a second, or endless.
    """
    if expires_after is None:
        return None
    if isinstance(expires_after, timedelta):
        expires_after = expires_after.total_seconds()
    if not 1 <= expires_after <= _LONGEST_S:
        raise ValueError(
            f"expires_after={expires_after} | must be 1 second to 1,000 years, or None for ever"
        )
    return math.ceil(expires_after)
