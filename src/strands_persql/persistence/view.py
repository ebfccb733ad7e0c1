"""What an agent works with, said compactly: ranges of its history, and what no one said."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from strands_persql.tables.leaves import Skeleton, split

Segment: TypeAlias = tuple[int, int] | str
"""The first and the last id of messages in a row, or the JSON of a message that has no row."""


@dataclass(frozen=True)
class View:
    """An agent's messages in order: some segments, then all of the history from an id on.

    As a rule there are no segments: the agent works with the end of its history, and a message
    that is appended changes nothing here.

    Attributes:
        start: From which id on the agent works with all messages.
        head: What comes before those.
        is_explicit: Whether this is all. Rows of earlier versions don't say: a conversation
            manager may put a summary before it.
    """

    start: int = 0
    head: tuple[Segment, ...] = ()
    is_explicit: bool = True

    @classmethod
    def of(cls, head: str | None, start: int) -> "View":
        """Return the view of an agent's row."""
        if head is None:
            return cls(start, is_explicit=False)
        return cls(start, tuple(map(_segment, json.loads(head))))

    @property
    def json(self) -> str | None:
        """The segments as JSON, or None where an earlier version has written the row."""
        if not self.is_explicit:
            return None
        return f"[{','.join(map(_segment_json, self.head))}]"

    @cached_property
    def skeleton(self) -> Skeleton | None:
        """The segments as the row has them, and what of them is stored apart from it."""
        text = self.json
        return None if text is None else split(text)

    @property
    def stored(self) -> str | None:
        """The segments as the row has them."""
        return None if self.skeleton is None else self.skeleton.text

    @property
    def is_plain(self) -> bool:
        """Whether the agent works with the end of its history alone."""
        return not self.head

    def __contains__(self, message_id: int) -> bool:
        """Whether the agent works with the message of an id."""
        return message_id >= self.start or any(
            one[0] <= message_id <= one[1] for one in self.head if not isinstance(one, str)
        )


def _segment(value: Any) -> Segment:
    if isinstance(value, list):
        return int(value[0]), int(value[1])
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _segment_json(segment: Segment) -> str:
    return segment if isinstance(segment, str) else f"[{segment[0]},{segment[1]}]"


def build_view(
    items: Iterable[int | str], known: Sequence[int], loaded: Sequence[tuple[int, int]]
) -> View:
    """Return the view of its items in order.

    Args:
        items: Ids, and the JSON of messages that have no row.
        known: All ids that are known to be taken, sorted.
        loaded: The ranges of ids in which every message is known.
    """
    segments: list[Segment] = []
    for item in items:
        last = segments[-1] if segments else None
        if isinstance(item, str):
            segments.append(item)
        elif isinstance(last, tuple) and _follows(last[1], item, known, loaded):
            segments[-1] = (last[0], item)
        else:
            segments.append((item, item))
    newest = known[-1] if known else -1
    tail = segments[-1] if segments else None
    if isinstance(tail, tuple) and tail[1] == newest:
        return View(tail[0], tuple(segments[:-1]))
    return View(newest + 1, tuple(segments))


def _follows(
    before: int, after: int, known: Sequence[int], loaded: Sequence[tuple[int, int]]
) -> bool:
    """Whether no message can be between two ids, in this order."""
    if after == before + 1:
        return True
    if after < before or bisect_right(known, before) != bisect_left(known, after):
        return False
    return any(first <= before and after <= last for first, last in loaded)


def items_of(view: View, ids: Sequence[int]) -> list[int | str]:
    """Return a view's items in order: those of the ids that it has, and its other messages.

    Args:
        view: The view.
        ids: Ids of the history, sorted.
    """
    items: list[int | str] = []
    for segment in view.head:
        if isinstance(segment, str):
            items.append(segment)
        else:
            items += ids[bisect_left(ids, segment[0]) : bisect_right(ids, segment[1])]
    return [*items, *ids[bisect_left(ids, view.start) :]]
