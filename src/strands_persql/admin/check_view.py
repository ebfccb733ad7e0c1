"""Whether what an agent works with is there."""

import json
import math
from collections.abc import Iterator
from typing import Any

from strands_persql.admin.findings import Finding
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import repairing
from strands_persql.tables.encoding import MissingContentError, decoded
from strands_persql.tables.large_content import split_large
from strands_persql.tables.shapes import is_message
from strands_persql.tables.tables import Tables


class ViewCheck:
    """Compares an agent's view with its messages, which it is told of in order.

    Args:
        tables: The tables.
        key: The agent.
        view: The column ``view``.
        start: The column ``window_start``.
        stored: The column ``view`` as it is stored, without large content.
    """

    def __init__(
        self, tables: Tables, key: AgentKey, view: str | None, start: Any, *, stored: str | None
    ) -> None:
        """Begin before the first message."""
        self._tables, self._key, self._stored = tables, key, stored
        self._view, self._start = view, start
        self._segments = _segments(view)
        self._rows = [0] * len(self._segments or ())
        self._newest = -1

    def message(self, message_id: int) -> None:
        """Take the next message."""
        self._newest = message_id
        for index, segment in enumerate(self._segments or ()):
            if isinstance(segment, list) and _has(segment, message_id):
                self._rows[index] += 1

    def end(self) -> Iterator[Finding]:
        """Tell what is wrong, after the last message."""
        if self._view is None and self._start is None:
            return  # a row of 0.1: it is counted out
        start = _whole(self._start)
        if self._segments is None:
            what = "what the agent works with is not a JSON list of ranges and messages"
            yield self._finding(what, "have it work with its window alone", "[]", start)
        elif start is None:
            what = "where the agent's window begins is not a message id"
            yield self._finding(what, "have it counted out", None, None)
        elif bad := [index for index in range(len(self._rows)) if not self._is_good(index)]:
            kept = [one for index, one in enumerate(self._segments) if index not in bad]
            wrong = json.dumps(self._segments[bad[0]], ensure_ascii=False)[:80]
            what = f"the agent works with {wrong}, which has no message"
            text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
            yield self._finding(what, "take it out", split_large(text).text, start)
        elif start > self._newest + 1:
            what = f"the agent's window begins with message {start}, and {self._newest} is the last"
            repair = f"have it begin with message {self._newest + 1}"
            yield self._finding(what, repair, self._stored, self._newest + 1)

    def _is_good(self, index: int) -> bool:
        assert self._segments is not None
        segment = self._segments[index]
        if isinstance(segment, list):
            return self._rows[index] > 0
        try:
            return is_message(decoded(segment, json.dumps(segment)))
        except MissingContentError:
            return False

    def _finding(self, what: str, repair: str, view: str | None, start: int | None) -> Finding:
        statement = repairing.set_view(
            self._tables,
            self._key,
            found=(self._stored, self._start),
            view=None if start is None else view,
            start=start,
        )
        return Finding("view", *self._key, None, what, repair, (statement,))


def _segments(view: str | None) -> list[Any] | None:
    """Return the segments of a view, or None where it isn't one."""
    try:
        value = json.loads(view or "[]")
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(map(_is_segment, value)):
        return None
    return value


def _is_segment(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    return isinstance(value, list) and len(value) == 2 and None not in map(_whole, value)  # noqa: PLR2004


def _has(segment: list[int], message_id: int) -> bool:
    return segment[0] <= message_id <= segment[1]


def _whole(value: Any) -> int | None:
    """Return a number as a whole one from 0 on, or None where it isn't one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and value == int(value) and value >= 0 else None
