"""Copies of containers that share what they contain."""

from typing import Any


def copy_containers(value: Any) -> Any:
    """Return a value with new dicts and lists of the same contents.

    A change made in place is noticed by comparing with it, in a fraction of the time of JSON.
    """
    if isinstance(value, dict):
        return {
            key: one if type(one) is str else copy_containers(one) for key, one in value.items()
        }
    if isinstance(value, list):
        return [copy_containers(one) for one in value]
    return value
