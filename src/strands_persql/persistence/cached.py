"""A session as the database held it at one moment: values that never change."""

import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

_ROW_OVERHEAD = 256  # a row object, its other strings and its place in a list, in bytes


@dataclass(frozen=True)
class MessageRow:
    """A message as it is stored."""

    message_id: int
    version: int
    write_id: str
    turn: str
    data: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "MessageRow":
        """Take a row of the database."""
        return cls(
            int(row["message_id"]), int(row["version"]), row["write_id"], row["turn"], row["data"]
        )

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        return sys.getsizeof(self.data) + _ROW_OVERHEAD


class Window(Sequence[MessageRow]):
    """Messages in order; appending shares the older ones with the window before."""

    __slots__ = ("_count", "_rows", "size")

    def __init__(self, rows: Iterable[MessageRow] = ()) -> None:
        """Take rows in the order of their ids."""
        self._rows = list(rows)
        self._count = len(self._rows)
        self.size = sum(row.size for row in self._rows)

    def __len__(self) -> int:
        """Count the messages."""
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """Give a message, or a list of them for a slice."""
        if isinstance(index, slice):
            return self._rows[: self._count][index]
        return self._rows[range(self._count)[index]]

    def __iter__(self) -> Iterator[MessageRow]:
        """Go through the messages."""
        return iter(self._rows[: self._count])

    def appended(self, rows: Sequence[MessageRow]) -> "Window":
        """Give a window with more messages at its end; for one thread at a time.

        The messages before them aren't copied, so that an append costs the same however many.
        """
        shared = self._rows
        if len(shared) != self._count:  # another window has gone on from here
            shared = shared[: self._count]
        shared.extend(rows)
        longer = Window()
        longer._rows, longer._count = shared, len(shared)
        longer.size = self.size + sum(row.size for row in rows)
        return longer

    def find(self, message_id: int) -> MessageRow | None:
        """Give the message of an id, or None."""
        index = bisect_left(self._rows, message_id, hi=self._count, key=lambda row: row.message_id)
        if index < self._count and self._rows[index].message_id == message_id:
            return self._rows[index]
        return None

    def since(self, message_id: int) -> "Window":
        """Give the part from a message id on."""
        if not self or self[0].message_id >= message_id:
            return self
        return Window(row for row in self if row.message_id >= message_id)


@dataclass(frozen=True)
class AgentSnapshot:
    """An agent's row and the messages of its window.

    Attributes:
        version: The row's version.
        write_id: The write that created the row.
        epoch: Grows when messages already stored change or move.
        window_start: The id from which on the agent still works with its messages.
        data: The row's JSON.
        window: The messages from ``window_start`` on.
    """

    version: int
    write_id: str
    epoch: int
    window_start: int
    data: str
    window: Window = field(default_factory=Window)

    @classmethod
    def of(cls, row: Mapping[str, Any], known_data: str = "{}") -> "AgentSnapshot":
        """Take a row of the database, whose ``data`` may be left out where it is known."""
        data = row["data"]
        return cls(
            int(row["version"]),
            row["write_id"],
            int(row["epoch"]),
            int(row["window_start"]),
            known_data if data is None else data,
        )

    @property
    def next_id(self) -> int:
        """The id after the last message known."""
        return self.window[-1].message_id + 1 if self.window else self.window_start

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        return sys.getsizeof(self.data) + _ROW_OVERHEAD + self.window.size

    def known(self) -> dict[str, Any]:
        """Say what is known, for the database to leave out."""
        return {
            "version": self.version,
            "write_id": self.write_id,
            "epoch": self.epoch,
            "start": self.window_start,
            "next": self.next_id,
        }

    def refreshed(self, row: Mapping[str, Any], messages: Sequence[MessageRow]) -> "AgentSnapshot":
        """Take in what the database has answered to `known`."""
        fresh = AgentSnapshot.of(row, self.data)
        kept = (
            fresh.write_id == self.write_id
            and fresh.epoch == self.epoch
            and self.window_start <= fresh.window_start
        )
        window = self.window.since(fresh.window_start) if kept else Window()
        return replace(fresh, window=Window([*window, *messages]) if messages else window)


@dataclass(frozen=True)
class MultiAgentSnapshot:
    """A multi-agent's row: its version, the write that created it, and its JSON."""

    version: int
    write_id: str
    data: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "MultiAgentSnapshot":
        """Take a row of the database."""
        return cls(int(row["version"]), row["write_id"], row["data"])

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        return sys.getsizeof(self.data) + _ROW_OVERHEAD

    def known(self) -> dict[str, Any]:
        """Say what is known, for the database to leave out."""
        return {"version": self.version, "write_id": self.write_id}


@dataclass(frozen=True)
class SessionSnapshot:
    """A session's row, its agents and its multi-agents.

    Attributes:
        data: The row's JSON.
        agents: Its agents by id.
        multi_agents: Its multi-agents by id.
        checked_at: When the database was asked, in seconds of the monotonic clock.
    """

    data: str
    agents: Mapping[str, AgentSnapshot]
    multi_agents: Mapping[str, MultiAgentSnapshot]
    checked_at: float

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

    def with_agent(self, agent_id: str, agent: AgentSnapshot) -> "SessionSnapshot":
        """Give the session with an agent in another state."""
        agents = {**self.agents, agent_id: agent}
        return SessionSnapshot(self.data, agents, self.multi_agents, self.checked_at)
