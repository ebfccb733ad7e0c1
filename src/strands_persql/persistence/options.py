"""Checks of the options that repositories and storages share."""

from collections.abc import Sequence


def check_options(max_staleness: float, on_conflict: str, choices: Sequence[str]) -> None:
    """Check how old what is remembered may be, and what happens to a write that came second.

    Args:
        max_staleness: The age in seconds.
        on_conflict: What happens.
        choices: What may happen.

    Raises:
        ValueError: If one of them is out of its range.
    """
    if not max_staleness >= 0:
        raise ValueError(f"max_staleness={max_staleness} | must not be negative")
    if on_conflict not in choices:
        allowed = " or ".join(map(repr, choices))
        raise ValueError(f"on_conflict={on_conflict!r} | must be {allowed}")
