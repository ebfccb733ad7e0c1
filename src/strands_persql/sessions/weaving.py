"""Bringing other writers' messages into an agent's list: pure functions of lists."""

from collections.abc import Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def weave(base: Sequence[_T], ours: Sequence[_T], theirs: Sequence[_T]) -> list[_T]:
    """Merge what two sides made of one sequence; its items occur once in each.

    What either dropped is dropped, what either added stays, beside what it was added behind.

    Args:
        base: The sequence that both began with.
        ours: What we made of it.
        theirs: What the others made of it.

    Returns:
        The merged sequence, in their order, or in ours where they changed nothing.
    """
    if list(theirs) == list(base):
        return list(ours)
    began, kept, found = set(base), set(ours), set(theirs)
    merged = [one for one in theirs if one not in began or one in kept]
    places = {one: place for place, one in enumerate(merged)}
    added: dict[int, list[_T]] = {}
    behind = -1
    for one in ours:
        if one in places:
            behind = places[one]
        elif one not in began and one not in found:
            added.setdefault(behind, []).append(one)
    woven = list(added.get(-1, ()))
    for place, one in enumerate(merged):
        woven.append(one)
        woven += added.get(place, ())
    return woven


def in_order(
    woven: Sequence[_T], *sides: Sequence[_T], place: Callable[[_T], int | None]
) -> list[_T]:
    """Return merged items in the order of their places, if each side had its own in that order.

    What both sides have brought back is else in the order in which it was merged.

    Args:
        woven: The merged items; those without a place stay where they are.
        *sides: What was merged.
        place: Returns an item's place, or None where it has none.
    """
    for side in sides:
        places = [found for found in map(place, side) if found is not None]
        if places != sorted(places):
            return list(woven)
    placed = [(found, one) for one in woven if (found := place(one)) is not None]
    ordered = iter([one for _, one in sorted(placed, key=lambda pair: pair[0])])
    return [one if place(one) is None else next(ordered) for one in woven]
