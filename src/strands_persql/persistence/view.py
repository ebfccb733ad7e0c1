"""What an agent works with, said compactly: ranges of its history, and what no one said."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from strands_persql.tables.encoding import parsed
from strands_persql.tables.large_content import Skeleton, split_large
from strands_persql.tables.tables import MAX_ID

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
    def of(cls, head: Any, start: int) -> "View":
        """Return the view of an agent's row.

        Raises:
            ValueError: If it can't be read.
        """
        if head is None:
            return cls(start, is_explicit=False)
        try:
            segments = parsed(head)
            if not isinstance(segments, list):
                raise TypeError("it is not a list")  # noqa: TRY301 - as below
            return cls(start, tuple(map(_segment, segments)))
        except (TypeError, LookupError, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error

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
        return None if text is None else split_large(text)

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


def view_of(head: Any, start: int, *, is_counted: bool) -> tuple[View, str]:
    """Return the view of an agent's row, and why it can't be read where that is so.

    Without it the agent works with its window, behind a message that can't be read.

    Args:
        head: The column ``view``.
        start: Where the window begins.
        is_counted: Whether that was counted out, for the column ``window_start`` has no number.
    """
    try:
        view = View.of(head, start)
    except ValueError as error:
        problem = f"its column 'view' can't be read ({error})"
    else:
        if not is_counted or view.is_plain:
            return view, ""
        problem = "its column 'window_start' is misshapen"
    return View(start, ("null",), is_explicit=False), problem


def _segment(value: Any) -> Segment:
    if isinstance(value, list):
        first, last = value
        if not _is_id(first) or not _is_id(last):
            raise TypeError("what should be a message's id isn't one")
        return first, last
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= MAX_ID


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
