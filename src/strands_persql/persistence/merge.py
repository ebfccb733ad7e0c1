"""Three-way merge of what two writers made of the same JSON object."""

import math
from typing import Any

_ABSENT: Any = object()


def merge(
    base: dict[str, Any], found: dict[str, Any], ours: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Apply our change, from ``base`` to ``ours``, to what another writer left.

    Nested objects are merged key by key; lists and scalars are one value each. Where both sides
    changed the same value, ours is kept.

    Args:
        base: What we last knew.
        found: What is in the database.
        ours: What we want to store.

    Returns:
        The merged object, which may share values with its inputs, and the dotted paths of the
        values that both sides changed and on which they differ.
    """
    contested: list[str] = []
    return _merge(base, found, ours, "", contested), contested


def _merge(
    base: dict[str, Any], found: dict[str, Any], ours: dict[str, Any], path: str, out: list[str]
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in [*found, *(key for key in ours if key not in found)]:
        was, theirs, mine = (side.get(key, _ABSENT) for side in (base, found, ours))
        if isinstance(theirs, dict) and isinstance(mine, dict):
            below = was if isinstance(was, dict) else {}
            merged[key] = _merge(below, theirs, mine, f"{path}{key}.", out)
            continue
        if same(mine, was):
            chosen = theirs
        else:
            chosen = mine
            if not same(theirs, was) and not same(theirs, mine):
                out.append(f"{path}{key}")
        if chosen is not _ABSENT:
            merged[key] = chosen
    return merged


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON, which tells 1 from 1.0 and from true."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def merge_content(
    base: dict[str, Any], found: dict[str, Any], ours: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Merge two writers' content of an agent.

    State and Strands' internal state are merged key by key; all else is one value each. Where
    both sides changed the same value, ours is kept.

    Returns:
        The merged content, and the dotted paths of the state that both sides changed.
    """
    merged: dict[str, Any] = {}
    contested: list[str] = []
    for key, mine in {**found, **ours}.items():
        if key in ("state", "_internal_state"):
            merged[key], disputed = merge(*(side.get(key) or {} for side in (base, found, ours)))
            contested += disputed if key == "state" else []
        elif key in found and (key not in ours or same(base.get(key), mine)):
            merged[key] = found[key]
        else:
            merged[key] = mine
    return merged, contested


def settled_interrupts(content: dict[str, Any]) -> dict[str, Any]:
    """Return an agent's content whose interrupts are those of one of the turns that wait.

    ``waiting`` has the interrupts of each turn of the session that has stopped for an answer, for
    several writers may have such turns; ``interrupt_state`` is what Strands itself restores.
    """
    internal = content.get("_internal_state")
    if not isinstance(internal, dict) or "waiting" not in internal:
        return content
    internal = dict(internal)
    waiting = internal["waiting"]
    if not waiting:
        del internal["waiting"]
    else:
        active = [state for state in waiting.values() if state.get("activated")]
        if active and internal.get("interrupt_state") not in active:
            internal["interrupt_state"] = active[-1]
    return {**content, "_internal_state": internal}
