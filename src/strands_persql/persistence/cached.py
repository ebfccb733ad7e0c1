"""A session as the database held it at one moment: values that never change."""

import math
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

from strands_persql.persistence.row_version import RowVersion
from strands_persql.persistence.view import View, view_of
from strands_persql.tables.cells import Cells, number_in

_ROW_OVERHEAD = 256  # a row object, its other strings and its place in a list, in bytes

_COLUMNS = itemgetter("message_id", "version", "write_id", "turn", "claim", "data")
_COLUMN_TYPES = [{int}, {int}, {str}, {str}, {str}, {str}]


class StoredMessage(NamedTuple):
    """A message's row.

    Attributes:
        message_id: Its place in the history.
        version: Grows by one with each update.
        write_id: The write that stored it, or nothing for rows of 0.1.
        turn: The turn that it belongs to, or nothing where it was stored on its own.
        claim: The write that continued its turn from here, or nothing.
        data: Its JSON.
        problem: Why it can't be read, as far as its columns tell, or nothing.
    """

    message_id: int
    version: int
    write_id: str
    turn: str
    claim: str
    data: str
    problem: str = ""

    @classmethod
    def all_of(cls, rows: Sequence[Mapping[str, Any]]) -> list["StoredMessage"]:
        """Return messages as they were read."""
        columns = [*zip(*map(_COLUMNS, rows), strict=True)]
        if [set(map(type, column)) for column in columns] == _COLUMN_TYPES:  # as a rule
            return [cls(*cells) for cells in zip(*columns, strict=True)]
        return [cls.of(row) for row in rows]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "StoredMessage":
        """Return a message as it was read."""
        cells = Cells(row)
        return cls(
            cells.number("message_id"),
            cells.number("version"),
            cells.text("write_id"),
            cells.text("turn"),
            cells.text("claim"),
            cells.text("data"),
            cells.problem,
        )

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        return sys.getsizeof(self.data) + _ROW_OVERHEAD


class StoredMessages(Sequence[StoredMessage]):
    """Messages in order; appending and trimming share them with the sequence before."""

    __slots__ = ("_first", "_last", "_rows", "size")

    def __init__(self, rows: Iterable[StoredMessage] = ()) -> None:
        """Take rows in the order of their ids."""
        self._rows = list(rows)
        self._first, self._last = 0, len(self._rows)
        self.size = sum(row.size for row in self._rows)

    def __len__(self) -> int:
        """Return the number of messages."""
        return self._last - self._first

    def __getitem__(self, index: Any) -> Any:
        """Return a message, or a list of them for a slice."""
        places = range(self._first, self._last)[index]
        if isinstance(places, range):
            return [self._rows[place] for place in places]
        return self._rows[places]

    def __iter__(self) -> Iterator[StoredMessage]:
        """Go through the messages."""
        return iter(self._rows[self._first : self._last])

    def appended(self, rows: Sequence[StoredMessage]) -> "StoredMessages":
        """Return a sequence with more messages at its end; for one thread at a time.

        The messages before them aren't copied, so that an append costs the same however many.
        """
        shared, first = self._rows, self._first
        if len(shared) != self._last:  # another sequence has continued from here
            shared, first = shared[first : self._last], 0
        shared.extend(rows)
        return self._part(shared, first, len(shared), self.size + sum(row.size for row in rows))

    def copied_with(self, rows: Sequence[StoredMessage]) -> "StoredMessages":
        """Return a sequence with more messages at its end, and a list of its own."""
        size = self.size + sum(row.size for row in rows)
        return self._part([*self, *rows], 0, len(self) + len(rows), size)

    def since(self, message_id: int) -> "StoredMessages":
        """Return the part from a message id on."""
        first = self._place(message_id)
        dropped = self._rows[self._first : first]
        if not dropped:
            return self
        size = self.size - sum(row.size for row in dropped)
        if first > len(self._rows) // 2:  # don't keep alive more than is in use
            return self._part(self._rows[first : self._last], 0, self._last - first, size)
        return self._part(self._rows, first, self._last, size)

    def within(self, view: View) -> "StoredMessages":
        """Return the part that an agent works with."""
        if view.is_plain:
            return self.since(view.start)
        return StoredMessages(row for row in self if row.message_id in view)

    def find(self, message_id: int) -> StoredMessage | None:
        """Return the message of an id, or None."""
        place = self._place(message_id)
        if place < self._last and self._rows[place].message_id == message_id:
            return self._rows[place]
        return None

    def _place(self, message_id: int) -> int:
        return bisect_left(
            self._rows, message_id, self._first, self._last, key=lambda row: row.message_id
        )

    @staticmethod
    def _part(rows: list[StoredMessage], first: int, last: int, size: int) -> "StoredMessages":
        part = StoredMessages()
        part._rows, part._first, part._last, part.size = rows, first, last, size
        return part


@dataclass(frozen=True)
class CachedAgent:
    """An agent's row and the messages that it works with.

    Attributes:
        version: The row's version.
        origin: The write that created the row: another one means another agent of that name.
        history_version: Grows when messages already stored change or move.
        view: What the agent works with.
        is_counted: Whether the view's start was counted out, for the row has none.
        data: The row's JSON.
        expires: Whether its session expires.
        messages: The messages in the view.
        problem: Why the row can't be written, as far as its columns tell, or nothing.
        view_problem: Why its view can't be read, or nothing: the agent works with its window.
    """

    version: int
    origin: str
    history_version: int
    view: View
    is_counted: bool
    data: str
    expires: bool = False
    messages: StoredMessages = field(default_factory=StoredMessages)
    problem: str = ""
    view_problem: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any], known_data: str = "{}") -> "CachedAgent":
        """Return an agent as it was read, its ``data`` left out where it is known."""
        cells = Cells(row)
        is_counted = bool(row["counted"])
        view, view_problem = view_of(
            row["view"], number_in(row["window_start"]), is_counted=is_counted
        )
        return cls(
            cells.number("version"),
            cells.text("write_id"),
            number_in(row["epoch"]),  # what is garbled is as if it had never grown
            view,
            is_counted,
            known_data if row["data"] is None else row["data"],
            row["expires_after"] is not None,
            problem=cells.problem,
            view_problem=view_problem,
        )

    @property
    def last_id(self) -> int:
        """The highest message id that is known to be taken, or one below the view's start."""
        last: int = self.messages[-1].message_id if self.messages else -1
        return max(last, self.view.start - 1)

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        head = sum(sys.getsizeof(segment) for segment in self.view.head)
        return sys.getsizeof(self.data) + _ROW_OVERHEAD + self.messages.size + head

    def known(self) -> dict[str, Any]:
        """Return what is known, for the database to leave out."""
        return {
            "version": self.version,
            "write_id": self.origin,
            "epoch": self.history_version,
            "view": self.view.stored,
            "start": self.view.start,
            # Not from ``last_id``: where an answer is cut, there is more before the window's start.
            "next": self.messages[-1].message_id + 1 if self.messages else 0,
        }

    def refreshed(self, row: Mapping[str, Any], messages: Sequence[StoredMessage]) -> "CachedAgent":
        """Return the agent as the database has answered to `known`."""
        fresh = CachedAgent.of(row, self.data)
        is_continued = (
            fresh.origin == self.origin
            and fresh.history_version == self.history_version
            and fresh.view.head == self.view.head
            and self.view.start <= fresh.view.start
        )
        kept = self.messages.within(fresh.view) if is_continued else StoredMessages()
        return replace(fresh, messages=kept.copied_with(messages) if messages else kept)


@dataclass(frozen=True)
class CachedMultiAgent:
    """A multi-agent's row.

    Attributes:
        version: Its version.
        origin: The write that created it.
        data: Its JSON.
        expires: Whether its session expires.
        problem: Why the row can't be written, as far as its columns tell, or nothing.
    """

    version: int
    origin: str
    data: str
    expires: bool = False
    problem: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "CachedMultiAgent":
        """Return a multi-agent as it was read."""
        cells = Cells(row)
        return cls(
            cells.number("version"),
            cells.text("write_id"),
            row["data"],
            row["expires_after"] is not None,
            cells.problem,
        )

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        return sys.getsizeof(self.data) + _ROW_OVERHEAD

    @property
    def row_version(self) -> RowVersion:
        """Which version of the row this is."""
        return RowVersion(self.version, self.origin, expires=self.expires)

    def known(self) -> dict[str, Any]:
        """Return what is known, for the database to leave out."""
        return {"version": self.version, "write_id": self.origin}


@dataclass(frozen=True)
class CachedSession:
    """A session's row, its agents and its multi-agents.

    Attributes:
        data: The row's JSON.
        origin: The write that created it: another one means another session of that name.
        agents: Its agents by id.
        multi_agents: Its multi-agents by id.
        checked_at: When the database was asked, in seconds of the monotonic clock.
        expires_after: For how many seconds it is kept after its last activity, or None for ever.
        current_until: When it expires, in seconds of the monotonic clock, if nothing more happens
            in it: it isn't restored from memory from then on.
        has_parts: Whether anything of it was stored apart from its rows when it was read.
    """

    data: str
    origin: str
    agents: Mapping[str, CachedAgent]
    multi_agents: Mapping[str, CachedMultiAgent]
    checked_at: float
    expires_after: int | None = None
    current_until: float = math.inf
    has_parts: bool = False

    @cached_property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        return (
            sys.getsizeof(self.data)
            + _ROW_OVERHEAD
            + sum(
                sys.getsizeof(key) + part.size
                for parts in (self.agents, self.multi_agents)
                for key, part in parts.items()
            )
        )

    def known(self) -> tuple[Any, ...]:
        """Return what is known, which is the same as long as nothing has changed."""
        return (
            self.origin,
            self.data,
            {agent_id: agent.known() for agent_id, agent in self.agents.items()},
            {agent_id: agent.known() for agent_id, agent in self.multi_agents.items()},
        )

    def with_agent(self, agent_id: str, agent: CachedAgent) -> "CachedSession":
        """Return the session with an agent as it is now."""
        return replace(self, agents={**self.agents, agent_id: agent})
